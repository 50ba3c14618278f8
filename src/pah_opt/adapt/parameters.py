"""Which parameters are trained: chosen by name, and fit to be trained."""

from __future__ import annotations

from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING

import torch

from pah_opt.errors import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torch import nn


def unmatched_freezes(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """Return the patterns that match none of the parameter names nor any module that holds one."""
    known = list(names)
    return [pattern for pattern in patterns if not any(_matches(name, pattern) for name in known)]


def untrainable(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Return why ``model`` cannot be trained with these parameters frozen; looks at names and types only."""
    names = [name for name, _ in model.named_parameters()]
    problems = [
        f"freeze pattern {pattern!r} matches no parameter; patterns are globs over names such as {names[0]!r}"
        for pattern in unmatched_freezes(names, patterns)
    ]
    trained = unfrozen(model, patterns)
    if not trained:
        problems.append(
            "there is no parameter to train: all are frozen; freeze fewer, or call model.requires_grad_(True)"
        )
    halves = [name for name, parameter in trained.items() if parameter.dtype in {torch.float16, torch.bfloat16}]
    if halves:
        problems.append(
            f"{len(halves)} parameters ({halves[0]}, …) are stored in half precision, where small updates are lost; "
            "train in float32 (in a recipe, put the cast step after this one), with mixed_precision bf16 for speed"
        )
    return problems


def unfrozen(model: nn.Module, patterns: Sequence[str]) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained with these frozen, by name."""
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not any(_matches(name, pattern) for pattern in patterns)
    }


def refuse_untrainable(model: nn.Module, patterns: Sequence[str]) -> None:
    """Refuse a model that cannot be trained with these parameters frozen.

    Raises:
        UnsupportedModelError: with every reason.
    """
    problems = untrainable(model, patterns)
    if problems:
        raise UnsupportedModelError(f"{type(model).__name__} cannot be trained: " + "; ".join(problems))


def freeze(model: nn.Module, patterns: Sequence[str]) -> dict[str, nn.Parameter]:
    """Stop gradients of parameters that match, and return those that are trained, by name.

    Parameters that had no gradient before have none after.

    Args:
        model: changed in place (its ``requires_grad`` flags).
        patterns: globs over parameter names (``*.bias``) or over the modules that hold them (``vit.layers.[0-8]``).

    Raises:
        UnsupportedModelError: a pattern matches nothing, nothing is left to train, or it is stored in half precision.
    """
    refuse_untrainable(model, patterns)
    trained = unfrozen(model, patterns)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    return trained


def _matches(name: str, pattern: str) -> bool:
    parts = name.split(".")
    return any(fnmatchcase(".".join(parts[:end]), pattern) for end in range(1, len(parts) + 1))


@contextmanager
def recomputed_blocks(model: nn.Module, paths: Sequence[str]) -> Iterator[None]:
    """Run blocks without keeping their activations; the backward pass computes them again.

    References:
        T. Chen et al.: Training Deep Nets with Sublinear Memory Cost, https://arxiv.org/abs/1604.06174.
    """
    from torch.utils.checkpoint import checkpoint

    before = [(vars(model.get_submodule(path)), vars(model.get_submodule(path)).get("forward")) for path in paths]
    for path in paths:
        block = model.get_submodule(path)
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    try:
        yield
    finally:
        for attributes, forward in before:
            del attributes["forward"]
            if forward is not None:
                attributes["forward"] = forward
