"""One broken plugin is left out by name, with its traceback, and never stops the host."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

import pah_opt
from pah_opt.errors import PluginError
from pah_opt.plugins import BUILT_IN, LeftOutPlugin, Plugins, load_plugins

if TYPE_CHECKING:
    from collections.abc import Callable


def named(plugins: Plugins, name: str) -> LeftOutPlugin:
    """Return the one plugin of that name that was left out."""
    (found,) = [left for left in plugins.left_out if left.origin.name == name]
    return found


def loaded_names(plugins: Plugins) -> list[str]:
    return [plugin.origin.name for plugin in plugins.loaded]


def test_an_installed_plugin_brings_its_strategy(install: Callable[..., None], good: Callable[[str], str]) -> None:
    install("zoo", good("zoo-shrink"), version="2.3")
    (plugin,) = [plugin for plugin in load_plugins().loaded if plugin.origin.name == "zoo"]
    assert [optimizer.name for optimizer in plugin.optimizers] == ["zoo-shrink"]
    assert (plugin.origin.distribution, plugin.origin.version, plugin.origin.target) == ("zoo", "2.3", "zoo")


def test_built_in_plugins_load_first_and_the_others_by_name(
    install: Callable[..., None], good: Callable[[str], str]
) -> None:
    for name in ("zoo", "ant", "bee"):
        install(name, good(f"{name}-shrink"))
    origins = [plugin.origin for plugin in load_plugins().loaded]
    built_in = [origin.built_in for origin in origins]
    assert built_in == sorted(built_in, reverse=True)
    assert [origin.name for origin in origins if not origin.built_in] == ["ant", "bee", "zoo"]


BROKEN = {
    "raises on import": ("raise RuntimeError('no licence')", "its import failed: RuntimeError: no licence"),
    "exits on import": ("import sys; sys.exit('bye')", "its import failed: SystemExit: bye"),
    "has a syntax error": ("def broken(:", "its import failed: SyntaxError"),
    "imports what is not there": ("import no_such_library_here", "its import failed: ModuleNotFoundError"),
    "raises in its hook": (
        "import pah_opt\n@pah_opt.hookimpl\ndef pah_opt_optimizers():\n    raise KeyError('gone')",
        "its hook pah_opt_optimizers failed: KeyError: 'gone'",
    ),
    "raises while its hook is iterated": (
        "import pah_opt\n@pah_opt.hookimpl\ndef pah_opt_optimizers():\n    yield from 1 / 0",
        "its hook pah_opt_optimizers failed: ZeroDivisionError",
    ),
    "exits in its hook": (
        "import pah_opt\n@pah_opt.hookimpl\ndef pah_opt_presets():\n    raise SystemExit(3)",
        "its hook pah_opt_presets failed: SystemExit: 3",
    ),
    "has a hook that does not exist": (
        "import pah_opt\n@pah_opt.hookimpl\ndef pah_opt_optimiser():\n    return []",
        "there is no hook 'pah_opt_optimiser'; did you mean 'pah_opt_optimizers'?",
    ),
    "forgot to mark its hook": (
        "def pah_opt_optimizers():\n    return []",
        "function pah_opt_optimizers() is not marked with @pah_opt.hookimpl",
    ),
    "misspelled and forgot to mark its hook": (
        "def pah_opt_optimizer():\n    return []",
        "function pah_opt_optimizer() is not marked with @pah_opt.hookimpl",
    ),
    "has a hook with arguments": (
        "import pah_opt\n@pah_opt.hookimpl\ndef pah_opt_optimizers(registry):\n    return []",
        "it breaks the plugin contract: PluginValidationError",
    ),
    "wraps a hook": (
        "import pah_opt\n@pah_opt.hookimpl(wrapper=True)\ndef pah_opt_optimizers():\n    return (yield)",
        "pah_opt_optimizers is a wrapper",
    ),
    "is written for another contract": (
        "pah_opt_api_version = 2",
        "it is written for version 2 of the plugin contract, this pah-opt has version 1",
    ),
    "has a version that is no number": ("pah_opt_api_version = 'one'", "version 'one' of the plugin contract"),
    "returns nothing": (
        "import pah_opt\n@pah_opt.hookimpl\ndef pah_opt_optimizers():\n    pass",
        "pah_opt_optimizers must return a list, got None",
    ),
    "returns text": (
        "import pah_opt\n@pah_opt.hookimpl\ndef pah_opt_optimizers():\n    return 'prune'",
        "pah_opt_optimizers must return a list, got 'prune'",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_left_out_by_name_with_its_traceback(
    case: str, install: Callable[..., None], good: Callable[[str], str]
) -> None:
    source, message = BROKEN[case]
    install("broken-one", source)
    install("zoo", good("zoo-shrink"))
    plugins = load_plugins()
    left = named(plugins, "broken-one")
    assert message in str(left.error)
    assert "plugin 'broken-one' (broken-one 1.0): " in str(left.error)
    assert left.traceback.startswith("Traceback") or "SyntaxError" in left.traceback
    assert "zoo" in loaded_names(plugins)


@pytest.mark.parametrize("case", BROKEN)
def test_strict_raises_for_a_broken_plugin(case: str, install: Callable[..., None]) -> None:
    source, message = BROKEN[case]
    install("broken-one", source)
    with pytest.raises(PluginError) as caught:
        load_plugins(strict=True, without=[BUILT_IN])
    assert message in str(caught.value)


def test_the_traceback_shows_the_plugins_own_line(install: Callable[..., None]) -> None:
    install("broken-one", "# first\n\nraise RuntimeError('no licence')")
    traceback = named(load_plugins(), "broken-one").traceback
    assert "broken_one.py" in traceback
    assert "line 3" in traceback


def test_ctrl_c_during_an_import_is_not_swallowed(install: Callable[..., None]) -> None:
    install("slow-one", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_plugins()


def test_leaving_a_plugin_out_is_logged_once(install: Callable[..., None], caplog: pytest.LogCaptureFixture) -> None:
    install("broken-one", "raise RuntimeError('no licence')")
    with caplog.at_level(logging.WARNING, "pah_opt.plugins"):
        load_plugins()
    (message,) = [record.getMessage() for record in caplog.records if "broken-one" in record.getMessage()]
    assert "it is left out (details: pah-opt plugins)" in message


def test_what_a_plugin_prints_stays_out_of_standard_output(
    install: Callable[..., None], good: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    install("zoo", "print('hello')\n" + good("zoo-shrink").replace("    return [", "    print('again')\n    return ["))
    assert "zoo" in loaded_names(load_plugins())
    assert capsys.readouterr() == ("", "hello\nagain\n")


def test_a_plugin_without_hooks_loads(install: Callable[..., None]) -> None:
    install("empty-one", '"""Nothing yet."""')
    assert "empty-one" in loaded_names(load_plugins())


def test_a_plugin_without_hooks_is_refused_when_strict(install: Callable[..., None]) -> None:
    install("empty-one", '"""Nothing yet."""')
    with pytest.raises(PluginError, match="it implements no hook; hooks: pah_opt_optimizers"):
        load_plugins(strict=True, without=[BUILT_IN])


def test_a_module_called_like_a_hook_is_not_taken_for_one(
    install: Callable[..., None], good: Callable[[str], str]
) -> None:
    install("pah-opt-zoo-parts", "LIMIT = 1")
    install("zoo", good("zoo-shrink") + "\nimport pah_opt_zoo_parts\npah_opt_zoo_limit = pah_opt_zoo_parts.LIMIT\n")
    assert "zoo" in loaded_names(load_plugins())


def test_a_matching_version_is_accepted(install: Callable[..., None], good: Callable[[str], str]) -> None:
    install("zoo", good("zoo-shrink") + "\npah_opt_api_version = 1\n")
    assert "zoo" in loaded_names(load_plugins())


def test_an_entry_point_may_name_an_object(install: Callable[..., None], good: Callable[[str], str]) -> None:
    source = good("zoo-shrink") + (
        "\nclass Plugin:\n    @pah_opt.hookimpl\n    def pah_opt_optimizers(self):\n        return [Shrink()]\n"
        "plugin = Plugin()\n"
    )
    install("zoo", source, attribute=":plugin")
    assert "zoo" in loaded_names(load_plugins())


@pytest.mark.parametrize("attribute", [":Shrink", ":nothing", ":missing"])
def test_an_entry_point_must_not_name_a_class_none_or_what_is_missing(
    attribute: str, install: Callable[..., None], good: Callable[[str], str]
) -> None:
    install("zoo", good("zoo-shrink") + "\nnothing = None\n", attribute=attribute)
    left = named(load_plugins(), "zoo")
    expected = "AttributeError" if attribute == ":missing" else "a plugin is a module or an object with hooks"
    assert expected in str(left.error)


def test_a_hook_may_have_a_name_of_its_own() -> None:
    plugin = SimpleNamespace(presets=pah_opt.hookimpl(specname="pah_opt_presets")(lambda: ()))
    plugins = load_plugins(extra={"mine": plugin}, strict=True, without=[BUILT_IN])
    assert loaded_names(plugins) == ["mine"]


def test_extra_plugins_come_from_no_distribution() -> None:
    plugin = SimpleNamespace(pah_opt_presets=pah_opt.hookimpl(lambda: ()))
    (loaded,) = load_plugins(extra={"mine": plugin}, without=[BUILT_IN]).loaded
    assert (loaded.origin.distribution, loaded.origin.version) == (None, None)
    assert str(loaded.origin) == "'mine' (registered in this process)"
