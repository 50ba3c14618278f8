"""When gradients say nothing about a model. Nothing here loads torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pah_opt.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn

    from pah_opt.optimizer import Context


def classifier_problems(model: nn.Module, context: Context, instead: str) -> list[str]:
    """Say that loss gradients cannot be had from a model without a classifier.

    Args:
        model: the model.
        context: its adapter.
        instead: what needs no gradients, such as ``"importance: magnitude"``.
    """
    if context.adapter.layout(model).num_classes:
        return []
    return [f"loss gradients need a classifier, and this model is a bare backbone; use {instead}"]


def require_gradients(found: Iterable[Tensor], instead: str) -> None:
    """Refuse gradients that are all zero: they would rank nothing, and ties would go by position.

    Args:
        found: gradients, or what was made of them.
        instead: what needs no gradients, such as ``"allocation: uniform"``.

    Raises:
        DataError: every one is zero.
    """
    if not any(bool(each.any()) for each in found):
        raise DataError(
            "no gradient reaches the layers: the logits do not depend on them, as with a classifier whose weights are "
            f"all zero; fit it first (pah-opt adapt --mode head), or use {instead}"
        )
