"""Which plugins there are, and which of them are chosen."""

from __future__ import annotations

from importlib.metadata import PathDistribution
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

import pah_opt
from pah_opt.errors import PluginError
from pah_opt.plugins import BUILT_IN, load_plugins
from pah_opt.plugins.discovery import installed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def two(install: Callable[..., None], good: Callable[[str], str]) -> None:
    install("ant-tools", good("ant-shrink"), plugin="ant")
    install("zoo", good("zoo-shrink"))


def third_party(**options: object) -> list[str]:
    plugins = load_plugins(**options)  # type: ignore[arg-type]
    assert any(plugin.origin.built_in for plugin in plugins.loaded)
    return [plugin.origin.name for plugin in plugins.loaded if not plugin.origin.built_in]


@pytest.mark.usefixtures("two")
def test_all_plugins_are_chosen_when_the_variable_is_not_set() -> None:
    assert third_party() == ["ant", "zoo"]


@pytest.mark.usefixtures("two")
def test_an_empty_variable_leaves_only_the_built_in_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAH_OPT_PLUGINS", "")
    assert third_party() == []


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize("value", ["ant", " ant ,", "ant-tools", "ant,torchao"])
def test_the_variable_names_plugins_or_their_distributions(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAH_OPT_PLUGINS", value)
    assert third_party() == ["ant"]


@pytest.mark.usefixtures("two")
def test_an_unknown_name_in_the_variable_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAH_OPT_PLUGINS", "ant,zooo")
    with pytest.raises(PluginError, match=r"PAH_OPT_PLUGINS names .zooo., .* did you mean .zoo.\?"):
        load_plugins()


@pytest.mark.usefixtures("two")
def test_without_leaves_out_plugins_and_whole_distributions() -> None:
    assert third_party(without=["ant-tools"]) == ["zoo"]
    assert third_party(without=["zoo"]) == ["ant"]


@pytest.mark.usefixtures("two")
def test_without_works_on_built_in_plugins() -> None:
    plugins = load_plugins(without=["torchao"])
    assert "torchao" not in [plugin.origin.name for plugin in plugins.loaded]
    assert "torchao" in [origin.name for origin in plugins.not_chosen]
    assert not any(plugin.origin.built_in for plugin in load_plugins(without=[BUILT_IN]).loaded)


@pytest.mark.usefixtures("two")
def test_an_unknown_name_to_leave_out_is_an_error_that_names_it() -> None:
    with pytest.raises(PluginError, match=r"--no-plugin names .torchoa., .* did you mean .torchao.\?"):
        load_plugins(without=["torchoa"])


def test_plugins_of_this_process_are_chosen_whatever_the_variable_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAH_OPT_PLUGINS", "")
    plugin = SimpleNamespace(pah_opt_presets=pah_opt.hookimpl(lambda: ()))
    assert third_party(extra={"mine": plugin}) == ["mine"]
    assert third_party(extra={"mine": plugin}, without=["mine"]) == []


def test_finding_plugins_imports_none(install: Callable[..., None]) -> None:
    install("broken-one", "raise RuntimeError('imported')")
    assert "broken-one" in [candidate.origin.name for candidate in installed()]


def test_malformed_entry_points_concern_only_their_own_distribution(
    install: Callable[..., None], good: Callable[[str], str], site: Path
) -> None:
    install("zoo", good("zoo-shrink"))
    install("bad-file", "")
    (site / "bad_file-1.0.dist-info" / "entry_points.txt").write_text("[pah_opt]\nno equals sign\n")
    plugins = load_plugins()
    assert "zoo" in [plugin.origin.name for plugin in plugins.loaded]
    (left,) = [left for left in plugins.left_out if left.origin.name == "bad-file"]
    assert "its entry_points.txt cannot be read" in str(left.error)


def test_entry_points_that_are_no_text_are_nobody_elses_problem(
    install: Callable[..., None], good: Callable[[str], str], site: Path
) -> None:
    install("zoo", good("zoo-shrink"))
    install("latin", "")
    (site / "latin-1.0.dist-info" / "entry_points.txt").write_bytes(b"[console_scripts]\ncaf\xe9 = latin:main\n")
    assert "zoo" in [plugin.origin.name for plugin in load_plugins().loaded]


def test_a_folder_without_metadata_is_ignored(
    install: Callable[..., None], good: Callable[[str], str], site: Path
) -> None:
    install("zoo", good("zoo-shrink"))
    install("left-over", good("over-shrink"))
    (site / "left_over-1.0.dist-info" / "METADATA").unlink()
    names = [plugin.origin.name for plugin in load_plugins().loaded]
    assert "zoo" in names
    assert "left-over" not in names


def test_of_one_distribution_in_two_places_only_the_importable_one_counts(
    install: Callable[..., None], good: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("zoo", good("zoo-shrink"), version="1.0")
    older = tmp_path / "older"
    older.mkdir()
    (tmp_path / "site" / "zoo-1.0.dist-info").rename(older / "zoo-0.9.dist-info")
    install("zoo", good("zoo-shrink"), version="1.0")
    monkeypatch.setattr("sys.path", [*__import__("sys").path, str(older)])
    assert [c.origin.version for c in installed() if c.origin.name == "zoo"] == ["1.0"]


@pytest.mark.parametrize("broken", ["metadata", "version"])
def test_unreadable_metadata_stops_no_other_plugin(
    broken: str, install: Callable[..., None], good: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install("zoo", good("zoo-shrink"))
    install("odd", good("odd-shrink"))
    whole = getattr(PathDistribution, broken)

    def read(distribution: PathDistribution) -> object:
        if distribution.read_text("entry_points.txt") == "[pah_opt]\nodd = odd\n":
            raise KeyError(broken)
        return whole.fget(distribution)

    monkeypatch.setattr(PathDistribution, broken, property(read))
    found = {candidate.origin.name: candidate.origin.version for candidate in installed()}
    assert found["zoo"] == "1.0"
    assert found.get("odd", "absent") == ("absent" if broken == "metadata" else None)
