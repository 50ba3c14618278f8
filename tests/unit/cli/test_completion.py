"""What a shell offers when TAB is pressed, through click's own completion."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.shell_completion import BashComplete

from pah_opt.cli import main
from pah_opt.errors import PluginError


def offered(*words: str) -> list[str]:
    *arguments, incomplete = words
    completion = BashComplete(main, {}, "pah-opt", "_PAH_OPT_COMPLETE")
    return [item.value for item in completion.get_completions(list(arguments), incomplete)]


def test_commands_and_options_complete() -> None:
    assert offered("pl") == ["plan", "plugin", "plugins"]
    assert "--calibration-images" in offered("run", "x", "--cal")


def test_presets_and_strategies_complete_plugins_included() -> None:
    assert {"balanced", "cli-half"} <= set(offered("presets", ""))
    assert offered("presets", "cli-") == ["cli-half"]
    assert offered("list", "cli-s") == ["cli-shrink"]


@pytest.mark.parametrize("command", ["run", "plan"])
def test_recipes_complete_to_presets_files_and_folders(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "balconies").mkdir()
    for name in ("ball.yaml", "bald.txt", "balconies/inner.json"):
        (tmp_path / name).touch()
    assert offered(command, "bal") == ["balanced", "balconies/", "ball.yaml"]
    assert offered(command, "balconies/") == ["balconies/inner.json"]
    assert offered(command, "no-such-folder/") == []


def test_a_registry_that_cannot_be_had_offers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise PluginError("PAH_OPT_PLUGINS names what is not there")

    monkeypatch.setattr("pah_opt.registry.default_registry", broken)
    assert offered("presets", "") == []
