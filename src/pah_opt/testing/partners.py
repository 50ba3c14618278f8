"""Two steps in both orders: they work together, or the recipe is refused before anything runs."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from pah_opt.environment import Environment
from pah_opt.errors import PahOptError, RecipeError
from pah_opt.recipe import Recipe, Step
from pah_opt.registry.describe import obstacles
from pah_opt.testing.models import tiny_images

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from pah_opt.registry import Registry
    from pah_opt.testing.trial import Trial

_TRAINED = MappingProxyType({"steps": 1, "batch_size": 16})

PARTNERS: Mapping[str, Mapping[str, Any]] = MappingProxyType({
    "bitsandbytes": {"scheme": "nf4", "rounding": "nearest"},  # repair asks for widths that tiny models do not have
    "cast": {"dtype": "bf16"},
    # The compiler's front end alone: machine code takes seconds and is not what a pair is about.
    "compile": {"backend": "eager"},
    "depth-pruning": {"count": 1},
    "fused-attention": {},
    "fused-qkv": {},
    "gradual-pruning": {"sparsity": 0.5, "rounds": 1, **_TRAINED},
    "input-size": {"size": 16},
    "magnitude-pruning": {"sparsity": 0.5},
    "reconstruct": {"images": 16},
    "recover": dict(_TRAINED),
    "semi-structured": {"kernels": "pattern", "method": "magnitude"},
    "sparsegpt": {"sparsity": 0.5},
    "structured-pruning": {"heads": 0.5, "mlp": 0.5},
    "torchao": {"scheme": "int8-dynamic"},
    "unstructured-pruning": {"sparsity": 0.5},
    "wanda": {"sparsity": 0.5},
    "width-pruning": {"ratio": 0.25},
})  # fmt: skip
"""Parameters with which each built-in strategy runs on a tiny model in a moment."""


def partners_of(registry: Registry, wanted: Mapping[str, Mapping[str, Any]] | None = None) -> list[Step]:
    """Return one step per strategy that can run on this machine, with parameters that suit tiny models.

    Args:
        registry: what there is.
        wanted: parameters by strategy; every built-in one by default.
    """
    chosen = PARTNERS if wanted is None else wanted
    known = [name for name in chosen if name in registry.optimizers]
    able = [name for name in known if not obstacles(registry.get(name).optimizer, Environment())]
    return [Step.of(name, **chosen[name]) for name in able]


def pair_mistake(trial: Trial, model: nn.Module, first: Step, second: Step) -> str | None:
    """Run two steps one after the other; return what is wrong with how that went, or None.

    Refusing the recipe with a :class:`~pah_opt.errors.RecipeError` is right, and so is a model with finite logits and
    true attributes. Anything else is wrong: a step that was planned must not fail when it runs.
    """
    recipe = Recipe(name="pair", steps=(first, second))
    order = f"{first.use} before {second.use}"
    try:
        made = trial.apply(model, recipe).model
    except RecipeError:
        return None
    except PahOptError as error:
        return f"{order} was planned and then failed ({error}); refuse it in tags() or check(), or make it work"
    except Exception as error:  # noqa: BLE001  # whatever a strategy raises
        return f"{order} raised {type(error).__name__}: {error}; refuse it in tags() or check(), or make it work"
    adapter = trial.adapter(made)
    if false := adapter.disagreements(made):
        return f"{order} left attributes that are no longer true: {'; '.join(false)}; call context.adapter.sync(model)"
    size = adapter.layout(made).image_size[0]
    if not torch.isfinite(trial.logits(made, tiny_images(image=size))).all():
        return f"{order} gives logits that are not finite"
    return None
