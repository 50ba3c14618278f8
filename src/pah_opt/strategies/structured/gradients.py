"""Derivatives of the loss by a factor on each head or hidden unit, image by image."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pah_opt.errors import DataError
from pah_opt.models.calibration import calibration_batches, checked_pixels
from pah_opt.models.gradients import require_gradients
from pah_opt.models.watching import frozen_parameters, watching_inputs, watching_outputs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pah_opt.layout import Layout, ModelAdapter
    from pah_opt.splits import Split


def gate_gradients(
    model: nn.Module,
    adapter: ModelAdapter,
    layout: Layout,
    split: Split | None,
    units: Mapping[str, int],
    *,
    batch_size: int = 32,
) -> dict[str, Tensor]:
    r"""Return how each image's loss changes with a factor on each unit.

    A factor :math:`m_u` on what unit :math:`u` feeds into its reading layer has the derivative
    :math:`\sum_t h_{tu} \, \partial L / \partial h_{tu}` at one; weights need no gradients for it.

    Args:
        model: in ``eval`` mode, with values; its parameters are left as they are, without gradients.
        adapter: takes the logits out of the model's output.
        layout: of ``model``.
        split: calibration images with labels.
        units: reading layers by path, with the number of inputs per unit.
        batch_size: images per pass.

    Returns:
        For each path, ``(images, units)`` in float32.

    Raises:
        DataError: the images or labels cannot be used, or every derivative is zero.
    """
    if split is None or len(split) == 0:
        raise DataError("there are no labelled calibration images; pass data with at least one training image")
    found: dict[str, list[Tensor]] = {path: [] for path in units}

    def see(path: str, inputs: Tensor) -> None:
        # A hook that held the tensor it hangs on would keep the whole graph for ever: no collector sees that ring.
        values = inputs.detach()

        def keep(gradient: Tensor) -> None:
            product = (values * gradient).float()
            count = product.shape[-1] // units[path]
            found[path].append(product.reshape(len(product), -1, count, units[path]).sum(dim=(1, 3)))

        inputs.register_hook(keep)  # type: ignore[no-untyped-call]  # torch leaves it untyped

    like = next(model.parameters())
    readers = {path: model.get_submodule(path) for path in units}
    with frozen_parameters(model), watching_inputs(readers, see), torch.enable_grad():
        for pixels, labels in split.batches(batch_size):
            ready = checked_pixels(pixels, layout, split.name).to(like.device, like.dtype)
            logits = adapter.logits(model(_own(ready)))
            loss = cross_entropy(logits.float(), _checked(labels, logits, split.name), reduction="sum")
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    derivatives = {path: torch.cat(parts) for path, parts in found.items()}
    require_gradients(derivatives.values(), "another importance")
    return derivatives


class Sensitivity(NamedTuple):
    """How much the logits care about the output of one layer.

    Args:
        outputs: squared change of the logits per squared change of each output, ``(outputs,)``, mean over tokens.
        tokens: the same per token, ``(tokens,)``, relative to the mean token.
    """

    outputs: Tensor
    tokens: Tensor


def output_sensitivities(
    model: nn.Module,
    adapter: ModelAdapter,
    layout: Layout,
    split: Split | None,
    paths: Sequence[str],
    *,
    batch_size: int = 32,
    seed: int = 0,
) -> dict[str, Sensitivity]:
    r"""Return how much the logits care about each output, and each token, of some layers.

    With random :math:`v \sim N(0, I)` for every image, :math:`E[(\partial\, v^\top z / \partial y)^2]` is the squared
    change of the logits :math:`z` per squared change of the output :math:`y`: the Gauss-Newton diagonal, which needs no
    labels.

    Args:
        model: in ``eval`` mode, with values; its parameters are left as they are, without gradients.
        adapter: takes the logits out of the model's output.
        layout: of ``model``.
        split: calibration images.
        paths: layers whose outputs, ``(batch, tokens, outputs)``, are looked at.
        batch_size: images per pass.
        seed: of the random directions.

    Raises:
        DataError: the images cannot be used, or the logits do not depend on these layers.
    """
    sums: dict[str, Tensor] = {}

    def see(path: str, outputs: Tensor) -> None:
        def keep(gradient: Tensor) -> None:
            sums[path] = sums.get(path, 0) + gradient.float().square().sum(dim=0)

        outputs.register_hook(keep)  # type: ignore[no-untyped-call]  # torch leaves it untyped

    images = 0
    generator = torch.Generator().manual_seed(seed)
    like = next(model.parameters())
    writers = {path: model.get_submodule(path) for path in paths}
    with frozen_parameters(model), watching_outputs(writers, see), torch.enable_grad():
        for pixels in calibration_batches(split, layout, batch_size, like):
            images += len(pixels)
            logits = adapter.logits(model(_own(pixels))).float()
            directions = torch.randn(logits.shape, generator=generator, dtype=torch.float32, device="cpu").to(
                logits.device
            )
            (logits * directions).sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    require_gradients(sums.values(), "focus: none")
    return {path: _sensitivity(sums[path] / images) for path in paths}


def _own(pixels: Tensor) -> Tensor:
    """Return a copy that gradients may be taken of: moving to where they are would give the caller's own images."""
    return pixels.detach().clone().requires_grad_()


def _sensitivity(mean_square: Tensor) -> Sensitivity:
    tokens = mean_square.sum(dim=-1)
    return Sensitivity(mean_square.mean(dim=0), tokens / tokens.mean().clamp_min(torch.finfo(tokens.dtype).tiny))


def _checked(labels: Tensor, logits: Tensor, name: str) -> Tensor:
    classes = logits.shape[1]
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise DataError(
            f"labels of {name} go from {int(labels.min())} to {int(labels.max())}; the model knows 0 to {classes - 1}"
        )
    return labels.to(logits.device)
