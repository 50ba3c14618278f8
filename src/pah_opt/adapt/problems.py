"""Why a model cannot be trained as settings ask, found before any training: names, types and shapes are looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pah_opt.adapt.parameters import untrainable

if TYPE_CHECKING:
    from torch import nn

    from pah_opt.adapt.settings import TrainSettings
    from pah_opt.layout import Layout, ModelAdapter


def training_problems(
    model: nn.Module,
    settings: TrainSettings,
    adapter: ModelAdapter,
    teacher: nn.Module | None,
    *,
    same_size: bool = False,
) -> list[str]:
    """Return why a step of a recipe cannot train ``model``; works on the ``meta`` device too.

    Args:
        model: as the steps before leave it.
        settings: how it would be trained.
        adapter: of both models.
        teacher: the dense model; None when it is not known.
        same_size: whether both see images of one size, whatever their own sizes are.
    """
    found = untrainable(model, settings.freeze)
    if settings.distill_features and teacher is not None:
        found += hidden_state_problems(model, teacher, adapter, "set distill_features to 0", same_size=same_size)
    return found


def hidden_state_problems(
    model: nn.Module, teacher: nn.Module, adapter: ModelAdapter, remedy: str, *, same_size: bool = False
) -> list[str]:
    """Return why a model's hidden states cannot be compared with those of the dense model.

    Args:
        model: as the steps before leave it.
        teacher: the dense model.
        adapter: of both.
        remedy: what to do then.
        same_size: whether both see images of one size, whatever their own sizes are.
    """
    own, dense = adapter.layout(model), adapter.layout(teacher)
    if own.hidden_size == dense.hidden_size and (same_size or own.image_size == dense.image_size):
        return []
    mismatch = (
        f"features are matched token by token, and a hidden size of {own.hidden_size} at {own.image_size} pixels does "
        f"not match the dense model's {dense.hidden_size} at {dense.image_size}; {remedy}"
    )
    return [mismatch]


def head_problems(model: nn.Module, layout: Layout, remedy: str) -> list[str]:
    """Return why classifiers cannot be fitted by logistic regression.

    Args:
        model: the model.
        layout: of the model.
        remedy: what to do where there is none.
    """
    if not layout.classifiers:
        return [f"there is no classifier to fit in this model; {remedy}"]
    return [
        f"the classifier {path} has no bias, and one is fitted with it; give it one (torch.nn.Linear with bias=True), "
        f"or {remedy}"
        for path in layout.classifiers
        if getattr(model.get_submodule(path), "bias", None) is None
    ]
