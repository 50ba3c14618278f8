"""Compression by hand, as it is commonly done: real runs of the ways that fail, to stand beside the ones that hold.

Nothing here is canned: masks are made by ``torch.nn.utils.prune``, int8 by ``torch.ao.quantization``, and files are
saved by ``torch.save`` to be counted.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import nn

from pah_opt.adapt.heads import replace_head
from pah_opt.errors import UnsupportedHardwareError, UnsupportedModelError
from pah_opt.splits import Batch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pah_opt.layout import ModelAdapter
    from pah_opt.splits import Split
    from pah_opt.study.schema import Row


@dataclass(frozen=True)
class NaiveModel:
    """What a naive tool made.

    Args:
        model: to be measured.
        split: the images to judge it on; those of the study unless preparing them wrongly is the point.
        timed: whether its speed is worth measuring; False where only images or labels differ.
        known: figures that are known better than by counting: the bytes of the file that ``torch.save`` writes.
        unknown: figures that counting gets wrong for this model.
    """

    model: nn.Module
    split: Split
    timed: bool = True
    known: dict[str, float] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()


def run_naive(row: Row, model: nn.Module, adapter: ModelAdapter, test: Split, seed: int) -> NaiveModel:
    """Do to a copy of ``model`` what a row's naive tool does.

    Args:
        row: with ``naive``.
        model: the adapted model; left untouched.
        adapter: of the model.
        test: the study's test images.
        seed: of what is random.
    """
    if row.naive == "wrong-normalisation":
        return NaiveModel(model, UnscaledPixels.of(test), timed=False)
    if row.naive == "labels-out-of-step":
        return NaiveModel(model, ShiftedLabels(test), timed=False)
    own = copy.deepcopy(model)
    if row.naive == "fresh-head":
        replace_head(own, adapter, test.class_names, seed + 1)
        return NaiveModel(own.eval(), test, timed=False)
    if row.naive == "dynamic-int8":
        return _dynamic_int8(own, test)
    return _masked(own, float(row.amount or 0.0), test)


def saved_bytes(model: nn.Module) -> int:
    """Return the size of the file that ``torch.save`` writes of a state dict."""
    with tempfile.TemporaryFile() as file:
        torch.save(model.state_dict(), file)
        return file.tell()


def _masked(model: nn.Module, amount: float, test: Split) -> NaiveModel:
    """Prune every linear layer globally by magnitude, the classifier too, and leave the masks in the model."""
    from torch.nn.utils import prune

    layers = [(module, "weight") for module in model.modules() if isinstance(module, nn.Linear)]
    prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=amount)
    with_masks = saved_bytes(model)
    bare = [(getattr(module, "weight_mask"), module) for module, _ in layers]  # noqa: B009  # added by prune
    zeros = sum(int((mask == 0).sum()) for mask, _ in bare)
    values = sum(p.numel() for p in model.parameters())
    known = {"file_bytes": float(with_masks), "sparsity_pct": 100.0 * zeros / values}
    return NaiveModel(model, test, known={**known, "file_without_masks_bytes": float(_without_masks(model))})


def _without_masks(model: nn.Module) -> int:
    """Return the file size after ``prune.remove``: the zeros are in the weights, and take as much room as before."""
    state = dict(model.state_dict())
    for name in [name for name in state if name.endswith("_mask")]:
        base = name.removesuffix("_mask")
        state[base] = state.pop(f"{base}_orig") * state.pop(name)
    with tempfile.TemporaryFile() as file:
        torch.save(state, file)
        return file.tell()


def _dynamic_int8(model: nn.Module, test: Split) -> NaiveModel:
    """Quantize every linear layer, the classifier too, with torch's own eager tool."""
    if next(model.parameters()).device.type != "cpu":
        raise UnsupportedHardwareError("torch's quantize_dynamic runs on the CPU only; run this row with --device cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its own tool outdated
        from torch.ao.quantization import quantize_dynamic

        quantized: nn.Module = quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)  # type: ignore[no-untyped-call]
        size = saved_bytes(quantized)
    # Its layers keep packed weights outside their parameters, and products that no counter sees.
    return NaiveModel(
        quantized, test, known={"file_bytes": float(size)}, unknown=("params", "sparsity_pct", "macs")
    )  # fmt: skip


class ShiftedLabels:
    """Images whose labels are one class out of step, as after sorting class names another way."""

    def __init__(self, split: Split) -> None:
        self._split = split
        self.name = f"{split.name}, labels out of step"
        self.class_names = split.class_names

    @property
    def fingerprint(self) -> str:
        """That of the images."""
        return f"{self._split.fingerprint}-shifted"

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._split)

    def _changed(self, batch: Batch) -> Batch:
        return Batch(batch.pixel_values, (batch.labels + 1) % len(self.class_names))

    def batches(self, batch_size: int, *, shuffle_seed: int | None = None) -> Iterator[Batch]:
        """Yield every image once."""
        for batch in self._split.batches(batch_size, shuffle_seed=shuffle_seed):
            yield self._changed(batch)

    def subset(self, indices: Sequence[int]) -> ShiftedLabels:
        """Return the images at ``indices``."""
        return ShiftedLabels(self._split.subset(indices))

    def resized(self, height: int, width: int) -> ShiftedLabels:
        """Return the same images at another size."""
        return ShiftedLabels(self._split.resized(height, width))


class UnscaledPixels(ShiftedLabels):
    """Images handed over as values from 0 to 255, without the scaling and normalisation of the model's processor."""

    def __init__(self, split: Split, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(split)
        self.name = f"{split.name}, pixels from 0 to 255"
        self._mean, self._std = mean, std

    @classmethod
    def of(cls, split: Split) -> UnscaledPixels:
        """Undo what the processor of ``split`` does.

        Raises:
            UnsupportedModelError: the processor does not say how it normalises.
        """
        processor = getattr(split, "processor", None)
        mean, std = getattr(processor, "image_mean", None), getattr(processor, "image_std", None)
        if mean is None or std is None:
            raise UnsupportedModelError(
                f"the images of {split.name} come without a processor that has image_mean and image_std, so its "
                "normalisation cannot be left out on purpose; remove this row"
            )
        return cls(split, tuple(mean), tuple(std))

    @property
    def fingerprint(self) -> str:
        """That of the images, changed."""
        return f"{self._split.fingerprint}-unscaled"

    def _changed(self, batch: Batch) -> Batch:
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (self._mean, self._std))
        return Batch((batch.pixel_values * std + mean) * 255.0, batch.labels)

    def subset(self, indices: Sequence[int]) -> UnscaledPixels:
        """Return the images at ``indices``."""
        return UnscaledPixels(self._split.subset(indices), self._mean, self._std)

    def resized(self, height: int, width: int) -> UnscaledPixels:
        """Return the same images at another size."""
        return UnscaledPixels(self._split.resized(height, width), self._mean, self._std)
