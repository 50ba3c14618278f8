"""Which layers are hurt most by quantization: each is quantized alone, and the model is run from its block on."""

from __future__ import annotations

import copy
import math
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from pah_opt.environment import Environment
from pah_opt.models.calibration import checked_pixels, evenly_spaced
from pah_opt.optimizer import Context
from pah_opt.progress import Progress
from pah_opt.strategies.torchao.divergence import divergence

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pah_opt.layout import Layout, ModelAdapter
    from pah_opt.splits import Split
    from pah_opt.strategies.torchao.config import TorchaoConfig

Ranking = Literal["kl", "top1_drop_pp"]
"""What decides how damaging a layer is."""


@dataclass(frozen=True)
class LayerSensitivity:
    """What happens to a model's logits when one layer alone is quantized.

    Args:
        path: the layer.
        scheme: how it was quantized.
        kl: mean Kullback-Leibler divergence of the class probabilities from the float model's, in nats.
        mse: mean squared error of the logits, relative to their mean square.
        top1_drop_pp: accuracy lost, in percentage points (negative when gained).
    """

    path: str
    scheme: str
    kl: float
    mse: float
    top1_drop_pp: float

    def to_data(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return finite(asdict(self))


def finite(figures: dict[str, Any]) -> dict[str, Any]:
    """Return figures with None for those of logits that overflowed, for which JSON has no number."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in figures.items()
    }


def sensitivity(
    model: nn.Module,
    adapter: ModelAdapter,
    split: Split,
    config: TorchaoConfig | None = None,
    *,
    images: int = 64,
    by: Ranking = "kl",
    progress: Progress | None = None,
    seed: int = 0,
) -> tuple[LayerSensitivity, ...]:
    """Quantize each layer alone and measure what that does to the logits, most damaging layer first.

    A layer of block ``i`` costs a pass from block ``i`` on, so a whole scan of a ViT-B (72 layers) costs about 40
    forward passes over the images.

    Args:
        model: in float; untouched.
        adapter: of the model.
        split: calibration images; their labels are used for ``top1_drop_pp`` only.
        config: how to quantize; by default ``TorchaoConfig()``. ``guarded`` is not looked at.
        images: at most so many images are looked at, evenly spaced.
        by: what the order is made by: ``kl`` by the logits, ``top1_drop_pp`` by the accuracy, which needs many images;
            layers that cost the same accuracy are ordered by their logits.
        progress: shows progress.
        seed: of what is random in calibration.

    Raises:
        DataError: the images cannot be used.
        UnsupportedModelError: the config does not fit the model; the message lists why.
    """
    from pah_opt.strategies.torchao.apply import quantize_model
    from pah_opt.strategies.torchao.config import TorchaoConfig

    config = (config or TorchaoConfig()).model_copy(update={"guarded": None})
    model = adapter.prepare(copy.deepcopy(model)).eval()  # with the layers that the step will see
    context = Context(
        adapter, Environment(), seed=seed, calibration=split, training=split, reference=model,
        progress=progress or Progress(),
    )  # fmt: skip
    quantized, assignment = quantize_model(copy.deepcopy(model), config, context)
    tensors = {path: tensors_of(quantized, path) for path in assignment.schemes}
    scan = Scan(model, adapter, evenly_spaced(split, images), config.batch_size)
    return scan.run(tensors, assignment.schemes, context.progress, by=by)


class LinearTensors(NamedTuple):
    """What quantization replaces in a linear layer: the weight, and the bias, which static int8 corrects."""

    weight: Tensor
    bias: Tensor | None


def tensors_of(model: nn.Module, path: str) -> LinearTensors:
    """Return the tensors that the linear layer at ``path`` has now."""
    layer = model.get_submodule(path)
    return LinearTensors(layer.weight, layer.bias)  # type: ignore[arg-type]  # chosen among linear layers


def put_tensors(model: nn.Module, tensors: Mapping[str, LinearTensors]) -> None:
    """Give linear layers these tensors, by path."""
    for path, given in tensors.items():
        layer = model.get_submodule(path)
        layer.weight, layer.bias = given  # type: ignore[assignment]  # parameters, as they came from a layer


def _damage(value: float) -> float:
    """Return a divergence by which layers can be ordered: what overflowed to NaN is the worst."""
    return math.inf if math.isnan(value) else value


@dataclass(frozen=True)
class Scan:
    """Runs a float model with one quantized layer at a time.

    Args:
        model: in float and ``eval`` mode; tensors are swapped and put back.
        adapter: of the model.
        split: images to look at.
        batch_size: images per forward pass.
    """

    model: nn.Module
    adapter: ModelAdapter
    split: Split
    batch_size: int

    @torch.no_grad()
    def run(
        self,
        tensors: Mapping[str, LinearTensors],
        schemes: Mapping[str, str],
        progress: Progress,
        *,
        by: Ranking = "kl",
    ) -> tuple[LayerSensitivity, ...]:
        """Return one LayerSensitivity for each layer of ``tensors``, most damaging first."""
        layout = self.adapter.layout(self.model)
        found: dict[str, list[Tensor]] = {path: [] for path in tensors}
        reference: list[Tensor] = []
        labels: list[Tensor] = []
        batches = self.split.batches(self.batch_size)
        total = math.ceil(len(self.split) / self.batch_size)
        for batch in progress.track(batches, "measuring each layer's sensitivity", total=total):
            pixels = self._placed(batch.pixel_values, layout)
            outputs, logits = self._reference(pixels, layout)
            reference.append(logits)
            labels.append(batch.labels.cpu())
            for path, given in tensors.items():
                with (
                    replayed(self.model, layout, _block_of(path, layout), outputs),
                    swapped(self.model, {path: given}),
                ):
                    found[path].append(self._logits(pixels))
        measured = [
            LayerSensitivity(path, schemes[path], *divergence(reference, logits, labels))
            for path, logits in found.items()
        ]
        return tuple(sorted(measured, key=lambda one: (_damage(getattr(one, by)), _damage(one.kl)), reverse=True))

    def all_logits(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the logits and the labels of every image, batch by batch."""
        layout = self.adapter.layout(self.model)
        logits, labels = [], []
        for batch in self.split.batches(self.batch_size):
            logits.append(self._logits(self._placed(batch.pixel_values, layout)))
            labels.append(batch.labels.cpu())
        return logits, labels

    def _placed(self, pixels: Tensor, layout: Layout) -> Tensor:
        like = next(self.model.parameters())
        return checked_pixels(pixels, layout, self.split.name).to(like.device, like.dtype)

    @torch.no_grad()
    def _logits(self, pixels: Tensor) -> Tensor:
        return self.adapter.logits(self.model(pixels)).double().cpu()

    def _reference(self, pixels: Tensor, layout: Layout) -> tuple[list[Any], Tensor]:
        """Return what each block puts out, and the logits."""
        outputs: list[Any] = []
        handles = [
            self.model.get_submodule(block.path).register_forward_hook(lambda *seen: outputs.append(seen[-1]))
            for block in layout.blocks
        ]
        try:
            return outputs, self._logits(pixels)
        finally:
            for handle in handles:
                handle.remove()


def _block_of(path: str, layout: Layout) -> int:
    """Return the index of the block that holds a layer; the number of blocks for a layer behind them."""
    within = (i for i, block in enumerate(layout.blocks) if path.startswith(f"{block.path}."))
    return next(within, len(layout.blocks))


class _Replay(nn.Module):
    """Stands in for a block and puts out what another block did before."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, *_: Any, **__: Any) -> Any:
        return self.output


@contextmanager
def replayed(model: nn.Module, layout: Layout, index: int, outputs: Sequence[Any]) -> Iterator[None]:
    """Skip the blocks before ``index``: the last of them puts out what it did in an earlier run."""
    skipped = [block.path for block in layout.blocks[:index]]
    kept = {path: model.get_submodule(path) for path in skipped}
    try:
        for path in skipped:
            _put(model, path, _Replay(outputs[index - 1]))
        yield
    finally:
        for path, block in kept.items():
            _put(model, path, block)


def _put(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    model.get_submodule(parent)._modules[name] = module  # noqa: SLF001  # keeps the order of the blocks


@contextmanager
def swapped(model: nn.Module, tensors: Mapping[str, LinearTensors]) -> Iterator[None]:
    """Give linear layers other tensors until the ``with`` block ends."""
    own = {path: tensors_of(model, path) for path in tensors}
    try:
        put_tensors(model, tensors)
        yield
    finally:
        put_tensors(model, own)
