"""Strategies and plugins described as JSON data."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from pydantic import BaseModel, ConfigDict, Field

from pah_opt import Effect, Needs, OptimizerConfig
from pah_opt.environment import Environment
from pah_opt.errors import PluginError
from pah_opt.plugins import LeftOutPlugin, LoadedPlugin, Origin, Plugins
from pah_opt.registry import RegisteredOptimizer, Registry, default_registry, describe_optimizer, describe_plugins
from pah_opt.registry.describe import effect_in_words, needs_in_words, obstacles
from pah_opt.registry.parameter_rows import describe_parameters

if TYPE_CHECKING:
    from collections.abc import Callable

    from pah_opt.optimizer import AnyOptimizer

HERE = Environment(cuda=False)


def test_a_strategy_is_described_with_its_parameters(registry: Registry) -> None:
    assert describe_optimizer(registry.get("prune"), HERE) == {
        "name": "prune",
        "summary": "Removes what matters least.",
        "description": "",
        "goal": "both",
        "plugin": "basics",
        "distribution": "basics-dist",
        "version": "1.0",
        "available": True,
        "obstacles": [],
        "needs": [],
        "tags": {
            "requires": ["graph:eager", "shapes:free", "weights:float"],
            "excludes": [],
            "provides": [],
            "removes": [],
        },
        "promises": ["the same shapes"],
        "backends": [],
        "references": ["arXiv 1506.02626"],
        "parameters": [
            {
                "name": "ratio",
                "type": "number > 0 and < 1",
                "required": False,
                "default": 0.5,
                "description": "Share that goes.",
            },
            {
                "name": "scope",
                "type": "layer or global",
                "required": False,
                "default": "layer",
                "description": "Where weights are compared.",
            },
        ],
    }


def test_what_keeps_a_strategy_from_running_is_described_with_the_remedy(registry: Registry) -> None:
    described = describe_optimizer(registry.get("pack"), Environment(cuda=False, versions={"no-such-library": "1.5"}))
    assert described["available"] is False
    assert described["obstacles"] == [
        {"reason": "no-such-library 1.5 is installed, >=2 is needed", "remedy": "pip install 'pah-opt[pack]'"}
    ]
    assert described["backends"] == [{"distribution": "no-such-library", "versions": ">=2", "installed": "1.5"}]


def test_needs_are_unknown_where_a_parameter_has_no_default(registry: Registry) -> None:
    described = describe_optimizer(registry.get("quantize"), HERE)
    assert described["needs"] is described["tags"] is described["promises"] is None
    assert described["parameters"][0]["required"] is True


@pytest.mark.parametrize("answer", [ZeroDivisionError("oops"), "nonsense"])
def test_a_strategy_that_cannot_say_what_it_needs_is_described_all_the_same(
    registry: Registry, changed: Callable[..., AnyOptimizer], answer: object
) -> None:
    def asked(self: object, config: object) -> object:
        if isinstance(answer, Exception):
            raise answer
        return answer

    odd = replace(registry.get("prune"), optimizer=changed(needs=asked, tags=asked, expects=asked))
    described = describe_optimizer(odd, HERE)
    assert described["needs"] is described["tags"] is described["promises"] is None
    assert described["parameters"]


def test_hardware_that_the_defaults_need_is_an_obstacle(changed: Callable[..., AnyOptimizer]) -> None:
    fast = changed(needs=lambda self, config: Needs(capability=(9, 0), instead="use prune"))
    (obstacle,) = obstacles(fast, HERE)
    assert str(obstacle) == "needs a CUDA device, and there is none; run it on a machine with one; or use prune"
    assert obstacles(fast, Environment(cuda=True, capability=(9, 0))) == ()


def test_a_strategy_that_raises_when_asked_is_an_obstacle_to_itself_only(changed: Callable[..., AnyOptimizer]) -> None:
    def raises(self: object, environment: object) -> None:
        raise OSError("no driver")

    (obstacle,) = obstacles(changed(available=raises), HERE)
    assert obstacle.reason == "its available() failed with OSError: no driver"


class Inner(BaseModel):
    """Settings inside a setting."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    rate: float = 0.1
    """How fast."""
    again: Inner | None = None
    """The same once more."""


class Outer(OptimizerConfig):
    """Parameters of every shape."""

    names: dict[str, int] = Field(default_factory=dict)
    """By name."""
    fast: Inner = Inner(rate=0.5)
    """With a rate of its own."""
    guard: Inner | None = None
    """Off by default."""


def test_nested_parameters_are_described_under_dotted_names() -> None:
    rows = {row["name"]: row for row in describe_parameters(Outer)}
    assert list(rows) == ["names", "fast", "fast.rate", "fast.again", "guard", "guard.rate", "guard.again"]
    assert rows["guard.rate"]["description"] == "How fast."
    assert (rows["fast.rate"]["default"], rows["guard.rate"]["default"]) == (0.5, 0.1)


def test_a_default_that_a_factory_makes_is_described() -> None:
    assert next(describe_parameters(Outer))["default"] == {}
    torchao = describe_optimizer(default_registry().get("torchao"), HERE)["parameters"]
    assert {row["name"]: row["default"] for row in torchao}["per_layer"] == {}


@pytest.mark.parametrize(
    ("effect", "words"),
    [
        (Effect(), ["the same shapes"]),
        (Effect(fewer_parameters=True, same_shapes=False), ["fewer parameters"]),
        (Effect(zeros_at_least=0.5, same_shapes=False), ["zeros of at least 50%"]),
        (
            Effect(fewer_bytes=True, linear_dtype="int8", same_shapes=False),
            ["fewer bytes", "linear weights stored as int8"],
        ),
        (Effect(same_logits=True, new_type=True), ["the same shapes", "the same logits", "modules of another type"]),
    ],
)
def test_promises_are_said_in_words(effect: Effect, words: list[str]) -> None:
    assert effect_in_words(effect) == words


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        (Needs(), []),
        (Needs(calibration=True), ["calibration images"]),
        (Needs(calibration=True, labels=True), ["labelled calibration images"]),
        (Needs(optional_calibration=True), ["calibration images, where there are any"]),
        (Needs(training=True, cuda=True), ["training images", "a CUDA device"]),
        (Needs(capability=(8, 9)), ["a CUDA device of compute capability 8.9 or newer"]),
    ],
)
def test_needs_are_said_in_words(needs: Needs, words: list[str]) -> None:
    assert needs_in_words(needs) == words


def test_plugins_are_described_by_what_became_of_them(plugin: Callable[..., LoadedPlugin], prune: AnyOptimizer) -> None:
    broken = LeftOutPlugin(Origin("bad", "bad-dist", "2"), PluginError("kaput"), "Traceback ...")
    registry = Registry.of(Plugins((plugin("good", prune),), (broken,), (Origin("other"),)))
    described = describe_plugins(registry)
    assert described["loaded"] == [
        {
            "name": "good",
            "distribution": "good-dist",
            "version": "1.0",
            "target": "good",
            "strategies": ["prune"],
            "adapters": [],
            "metrics": [],
            "presets": [],
        }
    ]
    assert described["left_out"][0]["error"] == "kaput"
    assert described["left_out"][0]["traceback"] == "Traceback ..."
    assert described["not_chosen"][0]["name"] == "other"
    assert described["api_version"] == 1


def test_everything_installed_can_be_described_as_json() -> None:
    registry = default_registry()
    described: list[RegisteredOptimizer] = list(registry.optimizers.values())
    written = json.loads(json.dumps([describe_optimizer(each, HERE) for each in described], allow_nan=False))
    assert [each["name"] for each in written] == list(registry.optimizers)
    plugins = json.loads(json.dumps(describe_plugins(registry), allow_nan=False))
    assert {name for each in plugins["loaded"] for name in each["strategies"]} == set(registry.optimizers)


def test_every_parameter_of_the_library_is_documented() -> None:
    built_in = [registered for registered in default_registry().optimizers.values() if registered.origin.built_in]
    undocumented = [
        f"{registered.optimizer.name}.{parameter['name']}"
        for registered in built_in
        for parameter in describe_optimizer(registered, HERE)["parameters"]
        if not parameter["description"]
    ]
    assert undocumented == []
