"""Names to Optimizers, clashes, presets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from pah_opt import Recipe, Step
from pah_opt.errors import DuplicateOptimizerError, RecipeError, UnknownOptimizerError
from pah_opt.optimizer import AnyOptimizer
from pah_opt.plugins import LoadedPlugin, Origin, Plugins
from pah_opt.registry import Registry

MakePlugin = Callable[..., LoadedPlugin]
Change = Callable[..., AnyOptimizer]


def test_get_returns_the_optimizer_with_where_it_comes_from(registry: Registry) -> None:
    found = registry.get("prune")
    assert found.optimizer.name == "prune"
    assert (found.plugin, found.distribution, found.version) == ("basics", "basics-dist", "1.0")


def test_an_unknown_name_is_refused_with_the_nearest(registry: Registry) -> None:
    with pytest.raises(UnknownOptimizerError) as caught:
        registry.get("prunne")
    (problem,) = caught.value.problems
    assert problem.message == "there is no strategy 'prunne'"
    assert problem.nearest == "prune"
    assert problem.allowed == "prune, quantize, train, pack"


def test_an_unknown_name_tells_which_plugins_were_not_loaded() -> None:
    registry = Registry.of(Plugins(not_chosen=(Origin("zoo", "zoo", "1.0"),)))
    with pytest.raises(UnknownOptimizerError, match=r"plugins not loaded: zoo \(see pah-opt plugins\)"):
        registry.get("zoo-shrink")


def test_of_two_plugins_with_one_name_the_first_stays(plugin: MakePlugin, prune: AnyOptimizer, changed: Change) -> None:
    later = plugin("later", changed(name="other"), changed())
    registry = Registry.of(Plugins(loaded=(plugin("first", prune), later)))
    assert registry.get("prune").optimizer is prune
    assert list(registry.optimizers) == ["prune"]
    (left,) = registry.plugins.left_out
    assert left.origin == later.origin
    assert isinstance(left.error, DuplicateOptimizerError)
    assert str(left.error) == (
        "plugin 'later' (later-dist 1.0): the strategy 'prune' is already brought by plugin 'first' (first-dist 1.0); "
        "uninstall one of them, or leave one out with --no-plugin"
    )
    assert [loaded.origin.name for loaded in registry.plugins.loaded] == ["first"]


def test_a_clash_raises_when_strict(plugin: MakePlugin, prune: AnyOptimizer) -> None:
    with pytest.raises(DuplicateOptimizerError, match=r"later-dist 1\.0.*first-dist 1\.0"):
        Registry.of(Plugins(loaded=(plugin("first", prune), plugin("later", prune))), strict=True)


@pytest.mark.parametrize("kind", ["adapters", "metrics", "presets"])
def test_adapters_metrics_and_presets_clash_too(kind: str, plugin: MakePlugin) -> None:
    brings = {kind: (SimpleNamespace(name="same"),)}
    registry = Registry.of(Plugins(loaded=(plugin("first", **brings), plugin("later", **brings))))
    assert [left.origin.name for left in registry.plugins.left_out] == ["later"]
    assert f"the {kind[:-1]} 'same' is already brought" in str(registry.plugins.left_out[0].error)


def test_names_of_different_kinds_do_not_clash(plugin: MakePlugin, prune: AnyOptimizer) -> None:
    preset = Recipe(name="prune", steps=[Step.of("prune")])
    registry = Registry.of(Plugins(loaded=(plugin("first", prune), plugin("later", presets=(preset,)))))
    assert not registry.plugins.left_out


def test_adapters_of_others_come_before_the_built_in_ones(plugin: MakePlugin) -> None:
    ours, theirs = SimpleNamespace(name="ours"), SimpleNamespace(name="theirs")
    built_in = plugin("adapters", distribution="pah-opt", adapters=(ours,))
    registry = Registry.of(Plugins(loaded=(built_in, plugin("zoo", adapters=(theirs,)))))
    assert registry.adapters == (theirs, ours)


def test_what_a_registry_holds_cannot_be_changed(registry: Registry, prune: AnyOptimizer) -> None:
    with pytest.raises(TypeError):
        registry.optimizers["x"] = registry.get("prune")  # type: ignore[index]


def test_plugin_versions_name_third_party_distributions(plugin: MakePlugin, prune: AnyOptimizer) -> None:
    loaded = (plugin("torchao", distribution="pah-opt"), plugin("zoo"), LoadedPlugin(Origin("notebook")))
    assert Registry.of(Plugins(loaded=loaded)).plugin_versions == {"zoo-dist": "1.0"}


def test_a_recipe_may_be_a_preset_a_path_or_text(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert registry.recipe("half").steps[0].parameters == {"ratio": 0.5}
    assert registry.recipe("steps: [{use: train}]").steps[0].use == "train"
    Path("half").write_text("steps: [{use: pack}]\n")
    assert registry.recipe("half").steps[0].use == "pack"
    assert registry.recipe(Path("half")).steps[0].use == "pack"


def test_an_unknown_preset_is_refused_with_the_nearest(registry: Registry) -> None:
    said = "there is no preset 'hafl', nor a file of that name; allowed: half; did you mean 'half'"
    for asked in (registry.preset, registry.recipe):
        with pytest.raises(RecipeError, match=said):
            asked("hafl")
    assert registry.preset("half").name == "half"
