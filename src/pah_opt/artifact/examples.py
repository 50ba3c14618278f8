"""A few inputs and the logits the model gave for them, so that a loaded model can prove to be the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pah_opt.artifact.record import Examples
from pah_opt.errors import ArtifactError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pah_opt.layout import ModelAdapter

EXAMPLE_IMAGES = 2
TOLERANCE = 0.02
"""Largest difference of a logit, as a share of the largest logit, on another machine or another version of torch.

On the same machine and versions there is none. A model that was rebuilt wrongly is far beyond this.
"""


def make_examples(model: nn.Module, adapter: ModelAdapter, *, seed: int = 0) -> Examples:
    """Compute the logits of fixed random inputs.

    Args:
        model: the model, on any device; left in the mode it is in.
        adapter: knows the model.
        seed: of the inputs.

    Returns:
        Inputs and logits on the CPU. The inputs are exact in bfloat16, so that they are stored in half the bytes.
    """
    layout = adapter.layout(model)
    shape = (EXAMPLE_IMAGES, layout.in_channels, *layout.image_size)
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), device="cpu").bfloat16().float()
    return Examples(values, compute_logits(model, adapter, values))


def current_examples(stored: Examples | None, model: nn.Module, adapter: ModelAdapter) -> Examples:
    """Return what was stored if the model still answers so, and what it answers now if it was changed since.

    A model that cannot run on this machine keeps what was stored.
    """
    if stored is None:
        return make_examples(model, adapter)
    layout = adapter.layout(model)
    if tuple(stored.pixel_values.shape[1:]) != (layout.in_channels, *layout.image_size):
        return make_examples(model, adapter)
    try:
        found = compute_logits(model, adapter, stored.pixel_values)
    except Exception:  # noqa: BLE001  # made for another device: foreign modules may raise anything
        return stored
    return stored if _worst(found, stored.logits) <= _allowed(stored.logits) else Examples(stored.pixel_values, found)


def _worst(found: Tensor, wanted: Tensor) -> float:
    same = found.shape == wanted.shape
    return (found.float() - wanted.float()).abs().max().item() if same else float("inf")


def _allowed(wanted: Tensor) -> float:
    return TOLERANCE * max(wanted.float().abs().max().item(), 1e-6)


@torch.no_grad()
def compute_logits(model: nn.Module, adapter: ModelAdapter, pixel_values: Tensor) -> Tensor:
    """Return the logits of ``model`` in ``eval`` mode, on the CPU."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    training = model.training
    try:
        return adapter.logits(model.eval()(pixel_values.to(device))).cpu()
    finally:
        model.train(training)


def check_examples(model: nn.Module, adapter: ModelAdapter, examples: Examples) -> None:
    """Compute the logits again and compare.

    Raises:
        ArtifactError: they differ by more than :data:`TOLERANCE`.
    """
    try:
        found = compute_logits(model, adapter, examples.pixel_values)
    except Exception as error:  # a forward pass of foreign modules may raise anything
        raise ArtifactError(f"the loaded model cannot be run ({type(error).__name__}: {error})") from error
    wanted = examples.logits
    if found.shape != wanted.shape:
        raise ArtifactError(f"the loaded model gives logits {tuple(found.shape)}, it gave {tuple(wanted.shape)}")
    worst = _worst(found, wanted)
    if not worst <= _allowed(wanted):
        raise ArtifactError(
            f"the loaded model gives other logits than when it was saved (largest difference {worst:.3g}): "
            "it was rebuilt wrongly; compare the versions in the artifact's environment with those installed"
        )
