"""A plugin that lives in this process."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

import pah_opt
from pah_opt import Recipe, Step
from pah_opt.errors import DuplicateOptimizerError, PluginError
from pah_opt.plugins import register, registrations, unregister
from pah_opt.registry import default_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


PRESET = """
@pah_opt.hookimpl
def pah_opt_presets():
    return [pah_opt.Recipe(name="zoo-half", steps=[pah_opt.Step.of("magnitude-pruning")])]
"""


def presets(name: str) -> SimpleNamespace:
    return SimpleNamespace(
        pah_opt_presets=pah_opt.hookimpl(lambda: [Recipe(name=name, steps=[Step.of("magnitude-pruning")])])
    )


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    unregister("mine")


def test_a_registered_plugin_is_in_the_default_registry_at_once() -> None:
    assert "half" not in default_registry().presets
    assert register(presets("half"), "mine") == "mine"
    assert "half" in default_registry().presets


def test_registering_a_name_again_replaces_the_plugin() -> None:
    register(presets("half"), "mine")
    register(presets("third"), "mine")
    assert "third" in default_registry().presets
    assert "half" not in default_registry().presets


def test_unregistering_takes_a_plugin_back() -> None:
    register(presets("half"), "mine")
    unregister("mine")
    assert "half" not in default_registry().presets


def test_unregistering_what_is_not_there_does_nothing() -> None:
    register(presets("half"), "other")
    unregister("mine")
    assert "half" in default_registry().presets
    unregister("other")
    assert "half" not in default_registry().presets


def test_a_broken_plugin_is_refused_at_once_and_not_registered() -> None:
    before = registrations()
    with pytest.raises(PluginError, match="it implements no hook"):
        register(SimpleNamespace(), "mine")
    assert registrations() == before


@pytest.mark.parametrize(
    ("taken", "said"),
    [("balanced", r"the preset 'balanced' is already brought by plugin 'presets' \(pah-opt "),
     ("half", r"the preset 'half' is already brought by plugin 'other' \(registered in this process\)")],
)  # fmt: skip
def test_a_name_that_another_plugin_brings_is_refused_at_once_and_not_registered(taken: str, said: str) -> None:
    register(presets("half"), "other")
    try:
        before = registrations()
        with pytest.raises(DuplicateOptimizerError, match=f"{said}.*; give yours another name"):
            register(presets(taken), "mine")
        assert registrations() == before
    finally:
        unregister("other")


def test_a_name_is_free_where_its_plugin_is_left_out(
    install: Callable[..., None], good: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install("zoo", good("zoo-shrink") + PRESET)
    with pytest.raises(DuplicateOptimizerError, match="'zoo-half' is already brought by plugin 'zoo'"):
        register(presets("zoo-half"), "mine")
    monkeypatch.setenv("PAH_OPT_PLUGINS", "")
    assert register(presets("zoo-half"), "mine") == "mine"


def test_a_broken_plugin_elsewhere_is_no_reason_to_refuse_and_not_logged(
    install: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    install("broken-one", "raise RuntimeError('no licence')")
    assert register(presets("half"), "mine") == "mine"
    assert not caplog.records


def test_the_name_is_the_modules_or_the_classs_by_default() -> None:
    class Mine:
        @pah_opt.hookimpl
        def pah_opt_presets(self) -> list[Recipe]:
            return []

    name = register(Mine())
    unregister(name)
    assert name == "Mine"
