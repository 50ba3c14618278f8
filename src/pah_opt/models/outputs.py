"""Take the logits out of whatever a model returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pah_opt.errors import UnsupportedModelError


def logits_of(output: Any) -> Tensor:
    """Return the logits, ``(batch, num_classes)``, of a model's output.

    Args:
        output: a tensor, or an object or mapping with ``logits`` (as every transformers classifier returns).

    Raises:
        UnsupportedModelError: there is no single tensor of logits; names what came instead.
    """
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
    if not isinstance(logits, Tensor):
        raise UnsupportedModelError(
            f"the model returned {_described(output)}, which has no tensor of logits; it must return logits of shape "
            "(batch, classes), or an object with .logits: give a bare backbone a classifier, or add a ModelAdapter "
            "whose logits() finds them"
        )
    if logits.ndim != 2:
        raise UnsupportedModelError(
            f"the model returned logits of shape {tuple(logits.shape)}; a classifier returns (batch, classes)"
        )
    return logits


def _described(output: Any) -> str:
    kind = type(output).__name__
    if isinstance(output, Mapping):
        return f"a {kind} with the keys {', '.join(map(str, output)) or '(none)'}"
    if isinstance(output, (tuple, list)):
        return f"a {kind} of {len(output)} ({', '.join(type(part).__name__ for part in output)})"
    return f"a {kind}"
