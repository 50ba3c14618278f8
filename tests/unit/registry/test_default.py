"""The registry of everything installed, loaded once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pah_opt.errors import PluginError
from pah_opt.registry import Registry, default_registry, default_without, reset_default_registry, using_registry
from pah_opt.registry.default import Chosen, strict_registry

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    reset_default_registry()
    yield
    reset_default_registry()


def names() -> set[str]:
    return {plugin.origin.name for plugin in default_registry().plugins.loaded}


def test_it_is_loaded_once() -> None:
    assert default_registry() is default_registry()


def test_reset_loads_it_again() -> None:
    before = default_registry()
    reset_default_registry()
    assert default_registry() is not before


def test_a_change_of_the_variable_loads_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    before = default_registry()
    monkeypatch.setenv("PAH_OPT_PLUGINS", "torchao")
    assert default_registry() is not before


def test_plugins_are_left_out_inside_the_block_only() -> None:
    assert "torchao" in names()
    with default_without(["torchao"]):
        assert "torchao" not in names()
        with default_without(["structured"]):
            assert "torchao" in names()
    assert "torchao" in names()


def test_what_a_process_chose_holds_where_it_is_sent_and_there_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as there, default_without(["torchao"]):
        there.setenv("PAH_OPT_PLUGINS", "")
        chosen = Chosen.here()
    assert chosen == Chosen(("torchao",), "")
    with chosen.used():
        assert "torchao" not in names()
        assert Chosen.here() == chosen
    assert Chosen.here() == Chosen()
    assert "torchao" in names()


def test_what_is_to_be_left_out_need_not_be_installed_elsewhere() -> None:
    with Chosen(("of-another-machine", "torchao")).used():
        assert "torchao" not in names()


def test_an_unknown_name_to_leave_out_is_an_error() -> None:
    with default_without(["torchoa"]), pytest.raises(PluginError, match="torchoa"):
        default_registry()


def test_the_strict_registry_honours_what_is_left_out() -> None:
    with default_without(["pah-opt"]):
        assert not any(plugin.origin.built_in for plugin in strict_registry().plugins.loaded)


def test_the_registry_that_a_call_was_given_is_the_default_inside_it_only() -> None:
    own = Registry.of(default_registry().plugins)
    with using_registry(own):
        assert default_registry() is own
    assert default_registry() is not own
