"""Observe a model on calibration images: streaming covariances of layer inputs, and blocks run one at a time.

Methods that repair or choose weights from data (SparseGPT, least-squares compensation, static quantization) need the
second moments of what goes into a linear layer. :func:`collect_inputs_covariance` gets them in one pass over the
model; :class:`BlockRunner` gets them block by block, so that a later block is observed on what the already changed
earlier ones produce, at the cost of one forward pass in all.

Nothing here changes a model, and no hook outlives a call.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from pah_opt.errors import DataError, UnsupportedModelError
from pah_opt.models.covariance import Covariance
from pah_opt.models.precision import Precision, mixed
from pah_opt.models.supply import enough_images, evenly_spaced, has_enough_images
from pah_opt.models.watching import first_output, watching_inputs, watching_outputs
from pah_opt.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pah_opt.layout import Layout
    from pah_opt.splits import Split

__all__ = [
    "BlockRunner",
    "Covariance",
    "calibration_batches",
    "check_images",
    "checked_pixels",
    "collect_inputs_covariance",
    "enough_images",
    "evenly_spaced",
    "has_enough_images",
    "watching_inputs",
    "watching_outputs",
]


def calibration_batches(split: Split | None, layout: Layout, batch_size: int, like: Tensor) -> Iterator[Tensor]:
    """Yield checked pixels, ``(batch, channels, height, width)``, on the device and in the type of ``like``.

    Args:
        split: images; labels are not looked at.
        layout: says what the model takes.
        batch_size: images per batch.
        like: a parameter of the model.

    Raises:
        DataError: there are no images, or they are of another shape, or hold NaN or infinity.
    """
    if split is None or len(split) == 0:
        raise DataError("there are no calibration images; pass data with at least one training image")
    for batch in split.batches(batch_size):
        yield checked_pixels(batch.pixel_values, layout, split.name).to(like.device, like.dtype)


def checked_pixels(pixels: Tensor, layout: Layout, name: str) -> Tensor:
    """Return ``pixels``, which fit a model and are finite.

    Raises:
        DataError: they do not fit or are not finite; the message names ``name``.
    """
    wanted = (layout.in_channels, *layout.image_size)
    if pixels.ndim != 4 or tuple(pixels.shape[1:]) != wanted:
        raise DataError(
            f"images of {name} have shape {tuple(pixels.shape)}, the model takes"
            f" (batch, {', '.join(map(str, wanted))}); preprocess them with the model's own processor"
        )
    if not torch.isfinite(pixels).all():
        raise DataError(f"images of {name} hold NaN or infinity; check the files and the preprocessing")
    return pixels


def check_images(split: Split, layout: Layout, batch_size: int) -> None:
    """Look at every image of a split, for steps that change a model before they use images.

    Raises:
        DataError: images are of another shape than the model takes, or hold NaN or infinity.
    """
    for batch in split.batches(batch_size):
        checked_pixels(batch.pixel_values, layout, split.name)


class _CovarianceCollector:
    """Gathers one Covariance per watched path."""

    def __init__(self, weights: Mapping[str, Tensor] | None = None) -> None:
        self.found: dict[str, Covariance] = {}
        self.weights = weights or {}

    def see(self, path: str, inputs: Tensor) -> None:
        if path not in self.found:
            self.found[path] = Covariance(inputs.shape[-1], inputs.device)
        self.found[path].update(inputs, self.weights.get(path))

    def result(self, paths: Sequence[str]) -> dict[str, Covariance]:
        _require_seen(self.found, paths)
        for path in paths:
            if not self.found[path].is_finite:
                raise DataError(f"inputs of {path} are not finite on the calibration images; check the model's weights")
        return {path: self.found[path] for path in paths}


def _require_seen(seen: Mapping[str, object], paths: Iterable[str]) -> None:
    missing = [path for path in paths if path not in seen]
    if missing:
        raise UnsupportedModelError(f"{missing[0]} did not run in the forward pass, so its inputs cannot be observed")


@torch.no_grad()
def collect_inputs_covariance(
    model: nn.Module,
    layout: Layout,
    paths: Sequence[str],
    split: Split | None,
    *,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> dict[str, Covariance]:
    """Observe what goes into layers, in one pass over the whole model.

    Memory is ``8 * width**2`` bytes per path; :class:`BlockRunner` needs it for one block at a time.

    Args:
        model: in ``eval`` mode, with values.
        layout: of ``model``.
        paths: modules to observe, such as ``layout.mlp_layers``; each must run as a module in the forward pass.
        split: calibration images.
        batch_size: images per forward pass.
        progress: shows progress.

    Returns:
        A Covariance for each path.

    Raises:
        DataError: the images cannot be used, or activations are not finite.
        UnsupportedModelError: a path did not run.
    """
    collector = _CovarianceCollector()
    like = next(model.parameters())
    batches = calibration_batches(split, layout, batch_size, like)
    total = math.ceil(len(split) / batch_size) if split is not None else 0
    with watching_inputs({path: model.get_submodule(path) for path in paths}, collector.see):
        for pixels in (progress or Progress()).track(batches, "calibrating", total=total):
            model(pixels)
    return collector.result(paths)


class _StopForwardError(Exception):
    """Ends a forward pass at the first block; never leaves this module."""


class BlockRunner:
    """Runs transformer blocks one at a time on cached inputs.

    The embeddings run once, on construction; :meth:`advance` replaces the cache by a block's outputs. A caller
    changes a block between observing it and advancing, and the next block sees the consequence::

        runner = BlockRunner(model, layout, split)
        for index, block in enumerate(layout.blocks):
            seen = runner.covariances(index, [block.mlp.fc2])
            ...  # change the block
            runner.advance(index)

    Args:
        model: in ``eval`` mode, with values.
        layout: of ``model``; block paths must stay valid while the runner is used.
        split: calibration images.
        batch_size: images per forward pass.
        precision: ``bf16`` runs matrix products in bfloat16, where the device has it.

    Raises:
        DataError: the images cannot be used; nothing has been changed by then.
    """

    def __init__(
        self,
        model: nn.Module,
        layout: Layout,
        split: Split | None,
        *,
        batch_size: int = 32,
        precision: Precision = "no",
    ) -> None:
        self.model = model
        self.layout = layout
        self.hidden: list[Tensor] = []
        """Inputs of the next block, one ``(batch, tokens, hidden_size)`` tensor per batch of images."""
        self._precision = precision
        self._extras: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self._fill(split, batch_size)

    @torch.no_grad()
    def _fill(self, split: Split | None, batch_size: int) -> None:
        first = self.model.get_submodule(self.layout.blocks[0].path)
        handle = first.register_forward_pre_hook(self._keep, with_kwargs=True)
        try:
            for pixels in calibration_batches(split, self.layout, batch_size, next(self.model.parameters())):
                self._run_to_first_block(pixels)
        finally:
            handle.remove()

    def _run_to_first_block(self, pixels: Tensor) -> None:
        try:
            with self._autocast(pixels):
                self.model(pixels)
        except _StopForwardError:
            return
        raise UnsupportedModelError(f"{self.layout.blocks[0].path} did not run in the forward pass")

    def _keep(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Some implementations pass the tokens by keyword; every block of a ViT gets the same other arguments.
        kwargs = dict(kwargs)
        tokens = args[0] if args else kwargs.pop("hidden_states")
        self.hidden.append(tokens.detach())
        self._extras.append((args[1:], kwargs))
        raise _StopForwardError

    @torch.no_grad()
    def outputs(self, index: int) -> Iterator[Tensor]:
        """Yield block ``index``'s outputs for each cached batch, leaving the cache as it is."""
        for position in range(len(self.hidden)):
            yield self._run(index, position)

    def inputs(self, index: int, paths: Sequence[str]) -> Iterator[dict[str, Tensor]]:
        """Yield what goes into modules inside block ``index`` for each cached batch, leaving the cache as it is.

        Each forward pass ends as soon as every path was seen.

        Raises:
            UnsupportedModelError: a path did not run as a module.
        """
        for seen, _ in self._passes(index, paths, whole=False):
            yield seen

    def passes(self, index: int, paths: Sequence[str]) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """Yield what goes into modules inside block ``index``, and its output, for each cached batch.

        The cache stays as it is.

        Raises:
            UnsupportedModelError: a path did not run as a module.
        """
        for seen, output in self._passes(index, paths, whole=True):
            yield seen, cast("Tensor", output)

    @torch.no_grad()
    def _passes(
        self, index: int, paths: Sequence[str], *, whole: bool
    ) -> Iterator[tuple[dict[str, Tensor], Tensor | None]]:
        """Run each cached batch, to its end or until every path was seen; there is no output in the latter case."""
        seen: dict[str, Tensor] = {}
        modules = {path: self.model.get_submodule(path) for path in paths}

        def see(path: str, inputs: Tensor) -> None:
            seen[path] = inputs
            if not whole and len(seen) == len(modules):
                raise _StopForwardError

        for position in range(len(self.hidden)):
            seen.clear()
            output = None
            with watching_inputs(modules, see), suppress(_StopForwardError):
                output = self._run(index, position)
            _require_seen(seen, paths)
            yield dict(seen), output

    def covariances(
        self, index: int, paths: Sequence[str], weights: Mapping[str, Tensor] | None = None
    ) -> dict[str, Covariance]:
        """Observe what goes into modules inside block ``index``, leaving the cache as it is.

        Args:
            index: of the block.
            paths: modules to observe.
            weights: how much each token counts, ``(tokens,)``, for some of the paths.

        Raises:
            DataError: activations are not finite.
            UnsupportedModelError: a path did not run as a module.
        """
        collector = _CovarianceCollector(weights)
        for batch in self.inputs(index, paths):
            for path, inputs in batch.items():
                collector.see(path, inputs)
        return collector.result(paths)

    def advance(self, index: int) -> None:
        """Replace the cached inputs by block ``index``'s outputs."""
        for position, output in enumerate(self.outputs(index)):
            self.hidden[position] = output

    @torch.no_grad()
    def run_from(self, hidden: Tensor, position: int, indices: Iterable[int]) -> Tensor:
        """Return what blocks ``indices``, one after another, make of ``hidden``; the cache stays as it is.

        Args:
            hidden: ``(batch, tokens, hidden_size)``.
            position: of the cached batch whose other arguments the blocks get.
            indices: of the blocks.
        """
        args, kwargs = self._extras[position]
        with self._autocast(hidden):
            for index in indices:
                block = self.model.get_submodule(self.layout.blocks[index].path)
                hidden = first_output(block(hidden, *args, **kwargs))
        return hidden

    def _autocast(self, like: Tensor) -> AbstractContextManager[Any]:
        return mixed(self._precision, like.device)

    def _run(self, index: int, position: int) -> Tensor:
        return self.run_from(self.hidden[position], position, [index])
