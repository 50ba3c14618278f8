"""Strategies and plugins described as JSON data: what ``pah-opt list``, ``pah-opt plugins`` and the reference show."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeVar

from pah_opt.environment import Obstacle
from pah_opt.optimizer import API_VERSION, Effect, Needs, Tags
from pah_opt.registry.needs import Supply
from pah_opt.registry.parameter_rows import describe_parameters

if TYPE_CHECKING:
    from collections.abc import Callable

    from pah_opt.environment import Environment
    from pah_opt.optimizer import AnyOptimizer, OptimizerConfig
    from pah_opt.plugins import LoadedPlugin, Origin
    from pah_opt.registry.catalogue import RegisteredOptimizer, Registry

T = TypeVar("T")


def describe_optimizer(registered: RegisteredOptimizer, environment: Environment) -> dict[str, Any]:
    """Return what a strategy is for, its parameters, what it needs, and whether it can run on this machine.

    Needs, tags, promises and obstacles are those of the default parameters; a strategy without defaults for all has
    None for the first three, and so has one that fails to say them.
    """
    optimizer = registered.optimizer
    needs = _declared(optimizer, optimizer.needs, Needs)
    tags = _declared(optimizer, optimizer.tags, Tags)
    promises = _declared(optimizer, optimizer.expects, Effect)
    found = obstacles(optimizer, environment)
    return {
        "name": optimizer.name,
        "summary": optimizer.summary,
        "description": inspect.cleandoc(type(optimizer).__doc__ or ""),
        "goal": optimizer.goal,
        "plugin": registered.plugin,
        "distribution": registered.distribution,
        "version": registered.version,
        "available": not found,
        "obstacles": [{"reason": obstacle.reason, "remedy": obstacle.remedy} for obstacle in found],
        "needs": None if needs is None else needs_in_words(needs),
        "tags": None if tags is None else _tags(tags),
        "promises": None if promises is None else effect_in_words(promises),
        "backends": [
            {"distribution": b.distribution, "versions": b.versions, "installed": environment.version(b.distribution)}
            for b in optimizer.backends
        ],
        "references": list(optimizer.references),
        "parameters": list(describe_parameters(optimizer.config_type)),
    }


def obstacles(optimizer: AnyOptimizer, environment: Environment) -> tuple[Obstacle, ...]:
    """Return what keeps a strategy, with its default parameters, from running on this machine."""
    try:
        found = tuple(optimizer.available(environment))
    except Exception as error:  # noqa: BLE001  # a plugin may raise anything; the listing goes on
        return (Obstacle(f"its available() failed with {type(error).__name__}: {error}", "report it to its plugin"),)
    hardware = Supply(environment).unmet_hardware(_declared(optimizer, optimizer.needs, Needs) or Needs())
    return (*found, *(Obstacle(reason, remedy) for reason, remedy in hardware))


def _declared(optimizer: AnyOptimizer, method: Callable[[OptimizerConfig], object], kind: type[T]) -> T | None:
    """Return what a strategy declares for its default parameters; None where it has none for all, or fails."""
    try:
        declared = method(optimizer.config_type())
    except Exception:  # noqa: BLE001  # a plugin may raise anything; the listing goes on, and validate() names it
        return None
    return declared if isinstance(declared, kind) else None


def _tags(tags: Tags) -> dict[str, list[str]]:
    return {kind: sorted(getattr(tags, kind)) for kind in ("requires", "excludes", "provides", "removes")}


def needs_in_words(needs: Needs) -> list[str]:
    """Return what is needed besides the model, such as ``["calibration images"]``."""
    capability = "" if needs.capability is None else " of compute capability {}.{} or newer".format(*needs.capability)
    words = {
        "calibration images": needs.calibration and not needs.labels,
        "labelled calibration images": needs.labels,
        "calibration images, where there are any": needs.optional_calibration,
        "training images": needs.training,
        f"a CUDA device{capability}": needs.cuda or needs.capability is not None,
    }
    return [text for text, needed in words.items() if needed]


def effect_in_words(effect: Effect) -> list[str]:
    """Return what is promised and verified, such as ``["fewer parameters"]``."""
    words = {
        "fewer parameters": effect.fewer_parameters,
        "fewer bytes": effect.fewer_bytes,
        f"zeros of at least {effect.zeros_at_least or 0:.0%}": effect.zeros_at_least is not None,
        f"linear weights stored as {effect.linear_dtype}": effect.linear_dtype is not None,
        "the same shapes": effect.same_shapes,
        "the same logits": effect.same_logits,
        "modules of another type": effect.new_type,
    }
    return [text for text, promised in words.items() if promised]


def describe_plugins(registry: Registry) -> dict[str, Any]:
    """Return every plugin that was found: loaded with what it brings, left out with its traceback, or not chosen."""
    plugins = registry.plugins
    return {
        "api_version": API_VERSION,
        "loaded": [{**_origin(plugin.origin), **_brings(plugin)} for plugin in plugins.loaded],
        "left_out": [
            {**_origin(left.origin), "error": str(left.error), "traceback": left.traceback} for left in plugins.left_out
        ],
        "not_chosen": [_origin(origin) for origin in plugins.not_chosen],
    }


def _origin(origin: Origin) -> dict[str, Any]:
    return {
        "name": origin.name, "distribution": origin.distribution, "version": origin.version, "target": origin.target,
    }  # fmt: skip


def _brings(plugin: LoadedPlugin) -> dict[str, list[str]]:
    return {
        "strategies": [optimizer.name for optimizer in plugin.optimizers],
        "adapters": [adapter.name for adapter in plugin.adapters],
        "metrics": [metric.name for metric in plugin.metrics],
        "presets": [preset.name for preset in plugin.presets],
    }
