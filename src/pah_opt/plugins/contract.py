"""What hooks must return: each object is checked member by member, so that a mistake is named at once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, get_args

from pydantic import PydanticUserError

from pah_opt.environment import Backend
from pah_opt.errors import PluginError
from pah_opt.optimizer import Goal, OptimizerConfig
from pah_opt.recipe import Recipe

_OPTIMIZER_NAME = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")
_METRIC_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_OPTIMIZER_METHODS = (
    "apply",
    "expects",
    "tags",
    "needs",
    "alignment",
    "available",
    "check",
    "state",
    "restore",
    "finish",
)
_ADAPTER_METHODS = (
    "matches",
    "prepare",
    "layout",
    "sync",
    "disagreements",
    "structure",
    "rebuild",
    "resize",
    "logits",
)

Check = Callable[[Any], Iterator[str]]


def _describe(value: object) -> str:
    return f"{value!r:.80} ({type(value).__name__})"


def _text(item: object, member: str) -> Iterator[str]:
    value = getattr(item, member, None)
    if not isinstance(value, str) or not value.strip():
        yield f"{member} must be text, got {_describe(value)}"


def _name(item: object, pattern: re.Pattern[str], rule: str) -> Iterator[str]:
    value = getattr(item, "name", None)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        yield f"name must be {rule}, got {_describe(value)}"


def _choice(item: object, member: str, allowed: tuple[str, ...]) -> Iterator[str]:
    value = getattr(item, member, None)
    if value not in allowed:
        yield f"{member} must be one of {', '.join(allowed)}, got {_describe(value)}"


def _tuple_of(item: object, member: str, kind: type) -> Iterator[str]:
    value = getattr(item, member, None)
    if not isinstance(value, tuple) or not all(isinstance(part, kind) for part in value):
        yield f"{member} must be a tuple of {kind.__name__}, got {_describe(value)}"


def _methods(item: object, names: Iterable[str], base: str) -> Iterator[str]:
    for name in names:
        if not callable(getattr(item, name, None)):
            yield f"method {name}() is missing; subclass {base} to inherit the defaults"


def _schema(config_type: type[OptimizerConfig]) -> Iterator[str]:
    """Parameters come from YAML and JSON, so each must have a JSON schema; messages and listings are made from it."""
    try:
        schema = config_type.model_json_schema(by_alias=True)
        json.dumps(schema, allow_nan=False)
        yield from _loose_parts(config_type, schema)
    except PydanticUserError as error:
        yield f"the parameters of {config_type.__name__} must be JSON data: {error.message}"
    except ValueError:
        yield f"a default or bound of {config_type.__name__} is infinite or NaN, which JSON has not; use None instead"


def _loose_parts(config_type: type[OptimizerConfig], schema: dict[str, Any]) -> Iterator[str]:
    """Yield the models inside of a config that take unknown names, so that a typo there would do nothing."""
    for name, part in schema.get("$defs", {}).items():
        if "properties" in part and part.get("additionalProperties") is not False:
            yield f"{name}, a part of {config_type.__name__}, takes misspelt names; derive it from OptimizerConfig too"


def optimizer_mistakes(item: object) -> Iterator[str]:
    """Yield what an object lacks to be an Optimizer."""
    yield from _name(item, _OPTIMIZER_NAME, "lower case with hyphens, such as 'my-pruning'")
    config_type = getattr(item, "config_type", None)
    if not (isinstance(config_type, type) and issubclass(config_type, OptimizerConfig)):
        yield f"config_type must be a subclass of pah_opt.OptimizerConfig, got {_describe(config_type)}"
    else:
        yield from _schema(config_type)
    yield from _text(item, "summary")
    yield from _choice(item, "goal", get_args(Goal))
    yield from _tuple_of(item, "references", str)
    yield from _tuple_of(item, "backends", Backend)
    yield from _methods(item, _OPTIMIZER_METHODS, "pah_opt.Optimizer")


def adapter_mistakes(item: object) -> Iterator[str]:
    """Yield what an object lacks to be a ModelAdapter."""
    yield from _name(item, _OPTIMIZER_NAME, "lower case with hyphens, such as 'my-vit'")
    yield from _methods(item, _ADAPTER_METHODS, "pah_opt.layout.ModelAdapter")


def metric_mistakes(item: object) -> Iterator[str]:
    """Yield what an object lacks to be a Metric."""
    yield from _name(item, _METRIC_NAME, "lower case with underscores and a unit, such as 'robust_top1_pct'")
    yield from _text(item, "summary")
    yield from _choice(item, "better", ("lower", "higher"))
    yield from _methods(item, ("measure",), "pah_opt.metric.Metric")


def preset_mistakes(item: object) -> Iterator[str]:
    """Yield what an object lacks to be a preset."""
    if not isinstance(item, Recipe):
        yield f"a preset must be a pah_opt.Recipe, got {_describe(item)}"
    elif "name" not in item.model_fields_set:
        yield "a preset needs a name of its own: Recipe(name=...)"


CHECKS: dict[str, Check] = {
    "pah_opt_optimizers": optimizer_mistakes,
    "pah_opt_model_adapters": adapter_mistakes,
    "pah_opt_metrics": metric_mistakes,
    "pah_opt_presets": preset_mistakes,
}
"""For each hook, what is wrong with one object that it returned."""


def checked_items(hook: str, returned: object) -> tuple[Any, ...]:
    """Return what a hook returned as a tuple, each item checked.

    Raises:
        PluginError: it is not iterable, an item breaks the contract, or two items have the same name.
    """
    if not isinstance(returned, Iterable) or isinstance(returned, str):
        raise PluginError(f"{hook} must return a list, got {_describe(returned)}")
    items = tuple(returned)
    mistakes = [f"item {i + 1}: {mistake}" for i, item in enumerate(items) for mistake in _item_mistakes(hook, item)]
    if mistakes:
        raise PluginError(f"{hook} returned what it must not: " + "; ".join(mistakes))
    names = [item.name for item in items]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise PluginError(f"{hook} returned the same name twice: {', '.join(twice)}")
    return items


def _item_mistakes(hook: str, item: object) -> Iterable[str]:
    if isinstance(item, type):
        return (f"{item.__name__} is a class; return an instance: {item.__name__}()",)
    return CHECKS[hook](item)
