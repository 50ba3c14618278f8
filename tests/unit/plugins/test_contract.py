"""Hooks that return the wrong things: the message says which member, and what it must be."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, ConfigDict

from pah_opt import Effect, Optimizer, OptimizerConfig, Recipe, Step
from pah_opt.errors import PluginError
from pah_opt.plugins.contract import checked_items


class Config(OptimizerConfig):
    pass


class Right(Optimizer[Config]):
    name = "right"
    config_type = Config
    summary = "Right."
    goal = "both"

    def apply(self, model: Any, config: Config, context: Any) -> Any:
        return model

    def expects(self, config: Config) -> Effect:
        return Effect()


class NotJson(OptimizerConfig):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    thing: Right | None = None


class Loose(BaseModel):
    depth: int = 3


class Holder(OptimizerConfig):
    inner: Loose | None = None


class Endless(OptimizerConfig):
    limit: float = float("inf")


class Bare:
    """Structurally half an Optimizer."""

    name = "bare"
    config_type = Config
    summary = "Bare."
    goal = "both"
    references = ()
    backends = ()


def with_(**members: Any) -> Any:
    return type("Changed", (Right,), members)()


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (with_(name="Not_Good"), "name must be lower case with hyphens, such as 'my-pruning', got 'Not_Good' (str)"),
        (with_(name=None), "name must be lower case with hyphens, such as 'my-pruning', got None (NoneType)"),
        (with_(config_type=dict), "config_type must be a subclass of pah_opt.OptimizerConfig"),
        (with_(config_type=Config()), "config_type must be a subclass of pah_opt.OptimizerConfig"),
        (with_(config_type=NotJson), "the parameters of NotJson must be JSON data"),
        (with_(config_type=Endless), "a default or bound of Endless is infinite or NaN, which JSON has not"),
        (
            with_(config_type=Holder),
            "Loose, a part of Holder, takes misspelt names; derive it from OptimizerConfig too",
        ),
        (with_(summary=" "), "summary must be text, got ' ' (str)"),
        (with_(goal="speed"), "goal must be one of memory, latency, both, accuracy, got 'speed' (str)"),
        (with_(references="arXiv"), "references must be a tuple of str, got 'arXiv' (str)"),
        (with_(backends=("torchao",)), "backends must be a tuple of Backend"),
        (with_(apply=None), "method apply() is missing"),
        (Bare(), "method alignment() is missing; subclass pah_opt.Optimizer to inherit the defaults"),
        (Right, "Right is a class; return an instance: Right()"),
        ("right", "name must be lower case"),
    ],
)
def test_what_is_no_optimizer_is_refused_member_by_member(item: Any, message: str) -> None:
    with pytest.raises(PluginError) as caught:
        checked_items("pah_opt_optimizers", [Right(), item])
    assert f"item 2: {message}" in str(caught.value)


def test_every_wrong_member_is_named_at_once() -> None:
    with pytest.raises(PluginError) as caught:
        checked_items("pah_opt_optimizers", [with_(name="X", summary="", goal=1)])
    assert str(caught.value).count("item 1: ") == 3


def test_right_optimizers_are_kept_in_order() -> None:
    items = (with_(name="b"), with_(name="a"))
    assert checked_items("pah_opt_optimizers", iter(items)) == items


def test_one_name_twice_in_one_plugin_is_refused() -> None:
    with pytest.raises(PluginError, match="pah_opt_optimizers returned the same name twice: right"):
        checked_items("pah_opt_optimizers", [Right(), Right()])


class Speed:
    name: ClassVar[str] = "speed_ms"
    summary = "Speed."
    better = "lower"

    def measure(self, model: Any, adapter: Any, test: Any) -> None: ...


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"name": "speed-ms"}, "name must be lower case with underscores and a unit"),
        ({"better": "more"}, "better must be one of lower, higher, got 'more' (str)"),
        ({"measure": 3}, "method measure() is missing"),
    ],
)
def test_what_is_no_metric_is_refused(members: dict[str, Any], message: str) -> None:
    assert checked_items("pah_opt_metrics", [Speed()])
    with pytest.raises(PluginError) as caught:
        checked_items("pah_opt_metrics", [type("Changed", (Speed,), members)()])
    assert message in str(caught.value)


def test_what_is_no_preset_is_refused() -> None:
    with pytest.raises(PluginError, match=r"a preset must be a pah_opt\.Recipe, got \{\} \(dict\)"):
        checked_items("pah_opt_presets", [{}])


def test_a_preset_needs_a_name_of_its_own() -> None:
    with pytest.raises(PluginError, match="a preset needs a name of its own"):
        checked_items("pah_opt_presets", [Recipe(steps=[Step.of("right")])])
    assert checked_items("pah_opt_presets", [Recipe(name="mine", steps=[Step.of("right")])])


@pytest.mark.parametrize("method", ["layout", "prepare", "resize"])
def test_what_is_no_adapter_is_refused(method: str) -> None:
    with pytest.raises(PluginError, match=rf"method {method}\(\) is missing; subclass pah_opt\.layout\.ModelAdapter"):
        checked_items("pah_opt_model_adapters", [with_(name="my-vit")])
