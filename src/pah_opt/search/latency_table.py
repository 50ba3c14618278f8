"""Latency before anything runs: what each layer of a planned model takes on this device, from a table of timings.

A forward pass is taken to be the sum of its parts: the patch embedding, and in each block the linear layers, the
attention product, two norms, the activation and two residual sums. Each part is timed once for each shape and type.
Two things are found on the dense model and applied to others. The glue between parts (on a CPU; a GPU is given work
ahead) takes the same time however narrow a block is: it is what a pass of a single image takes beyond its parts. And
timed alone, a part finds its data in the caches, where inside a model it does not: the rest is a factor on all parts.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from pah_opt.measure.shadow import input_dtype
from pah_opt.measure.tensors import linear_shape, storage_type
from pah_opt.measure.timer import timer_for

if TYPE_CHECKING:
    from pah_opt.layout import Block, Layout, ModelAdapter

PASSES = 15
"""Timed calls of one part in a burst; the median of them counts."""
LEAST_S = 0.02
"""Bursts go on for so long, and the quickest counts: a part may take microseconds, and another process's turn on the
core outlasts many bursts."""
MOST_GLUE = 0.5
"""Share of the dense model's latency that glue may have at most, so that no noisy timing decides everything."""
Key = tuple[Hashable, ...]


PLANNED_KINDS = ("fp32", "bf16", "fp16", "fp64")
"""Types of weights whose layers are timed without a real model."""


@dataclass
class LatencyTable:
    """Timings of parts on one device at one batch size; filled as it is asked.

    Args:
        batch_size: images in a pass.
        device: where parts are timed.
        times_ms: what is known, by part.
        factor: how much longer parts take inside a model than alone.
        glue_ms: what a block takes besides its parts.
    """

    batch_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    times_ms: dict[Key, float] = field(default_factory=dict)
    factor: float = 1.0
    glue_ms: float = 0.0

    def calibrate(self, dense: nn.Module, adapter: ModelAdapter, dense_ms: float) -> None:
        """Find what a pass takes besides its parts, from the measured latency of the dense model."""
        layout = adapter.layout(dense)
        parts = self._parts_ms(dense, layout)
        if parts is None:
            return
        if self.device.type == "cpu":
            most = MOST_GLUE * dense_ms / _spans(layout)
            self.glue_ms = min(self._measured_glue_ms(dense, layout), most)
        self.factor = (dense_ms - self.glue_ms * _spans(layout)) / parts

    def _measured_glue_ms(self, dense: nn.Module, layout: Layout) -> float:
        single = LatencyTable(1, self.device)
        pixels = torch.randn(1, layout.in_channels, *layout.image_size, device=self.device).to(input_dtype(dense))
        beyond = self._time(dense, pixels) - (single._parts_ms(dense, layout) or 0.0)
        return max(beyond, 0.0) / _spans(layout)

    def learn(self, model: nn.Module, adapter: ModelAdapter) -> None:
        """Time the linear layers of a real model whose type and shape are not in the table yet (quantized ones)."""
        layout = adapter.layout(model)
        tokens = _tokens(layout)
        for block in layout.blocks:
            for path in _linears(block):
                layer = model.get_submodule(path)
                key = self._linear_key(layer, tokens)
                if key not in self.times_ms:
                    self.times_ms[key] = self._time(layer, self._pixels(tokens, linear_shape(layer)[1], model))

    @property
    def learnt(self) -> int:
        """How many layers are known of types that only real models have: with each, predictions change."""
        return sum(key[0] == "linear" and key[3] not in PLANNED_KINDS for key in self.times_ms)

    def predict(self, planned: nn.Module, adapter: ModelAdapter) -> float | None:
        """Return the latency of a planned model in ms, or None when a layer of its type was never seen for real.

        Args:
            planned: may be on the ``meta`` device.
            adapter: of the model.
        """
        layout = adapter.layout(planned)
        parts = self._parts_ms(planned, layout)
        return None if parts is None else parts * self.factor + self.glue_ms * _spans(layout)

    def _parts_ms(self, model: nn.Module, layout: Layout) -> float | None:
        total = self._embedding_ms(model, layout)
        for block in layout.blocks:
            spent = self._block_ms(model, layout, block)
            if spent is None:
                return None
            total += spent
        return total

    def _embedding_ms(self, model: nn.Module, layout: Layout) -> float:
        shape = (self.batch_size, layout.in_channels, *layout.image_size)
        dtype = input_dtype(model)
        kernel = layout.patch_size
        return self._known(
            ("patches", shape, kernel, layout.hidden_size, dtype),
            lambda: nn.Conv2d(layout.in_channels, layout.hidden_size, kernel, kernel),
            shape, dtype=dtype,
        )  # fmt: skip

    def _block_ms(self, model: nn.Module, layout: Layout, block: Block) -> float | None:
        tokens, hidden, dtype = _tokens(layout), layout.hidden_size, input_dtype(model)
        total = 0.0
        for path in _linears(block):
            spent = self._linear_ms(model.get_submodule(path), tokens, dtype)
            if spent is None:
                return None
            total += spent
        wide, narrow = (self.batch_size, tokens, block.mlp.width), (self.batch_size, tokens, hidden)
        total += self._attention_ms(layout, block, dtype)
        total += 2 * self._known(("norm", narrow, dtype), lambda: nn.LayerNorm(hidden), narrow, dtype=dtype)
        total += self._known(("activation", wide, dtype), nn.GELU, wide, dtype=dtype)
        return total + 2 * self._known(("residual", narrow, dtype), _Residual, narrow, dtype=dtype)

    def _attention_ms(self, layout: Layout, block: Block, dtype: torch.dtype) -> float:
        each = block.attention
        shape = (self.batch_size, each.num_heads, _tokens(layout), each.head_dim)
        return self._known(("attention", shape, each.value_dim, dtype), _Attention, shape, dtype=dtype)

    def _linear_ms(self, layer: nn.Module, tokens: int, dtype: torch.dtype) -> float | None:
        key = self._linear_key(layer, tokens)
        if key in self.times_ms:
            return self.times_ms[key]
        out, into = linear_shape(layer)
        if key[3] in PLANNED_KINDS:
            return self._known(key, lambda: nn.Linear(into, out), (self.batch_size, tokens, into), dtype=dtype)
        return self._scaled(key)

    def _scaled(self, key: Key) -> float | None:
        """Take the layer of the same type that is nearest in size, and scale its time with the size."""
        same = [other for other in self.times_ms if other[0] == "linear" and other[3] == key[3] and other[1] == key[1]]
        if not same:
            return None
        size = _size(key)
        nearest = min(same, key=lambda other: abs(_size(other) - size))
        return self.times_ms[nearest] * size / _size(nearest)

    def _linear_key(self, layer: nn.Module, tokens: int) -> Key:
        weight = getattr(layer, "weight", None)
        kind = storage_type(weight) if isinstance(weight, Tensor) else type(layer).__name__
        return ("linear", self.batch_size * tokens, linear_shape(layer), kind)

    def _known(self, key: Key, make: Callable[[], nn.Module], shape: tuple[int, ...], *, dtype: torch.dtype) -> float:
        if key not in self.times_ms:
            module = make().to(self.device, dtype).eval()
            self.times_ms[key] = self._time(module, torch.randn(shape, device=self.device).to(dtype))
        return self.times_ms[key]

    def _time(self, module: nn.Module, given: Tensor) -> float:
        timer = timer_for(self.device)
        with torch.inference_mode():
            timer.wall_ms(lambda: module(given), 3)
            bursts: list[float] = []
            started = time.perf_counter()
            while not bursts or time.perf_counter() - started < LEAST_S:
                bursts.append(statistics.median(timer.time(lambda: module(given), PASSES).device_ms))
            return min(bursts)

    def _pixels(self, tokens: int, width: int, model: nn.Module) -> Tensor:
        return torch.randn((self.batch_size, tokens, width), device=self.device).to(input_dtype(model))


class _Attention(nn.Module):
    def forward(self, heads: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(heads, heads, heads)


class _Residual(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values + values


def _spans(layout: Layout) -> int:
    """Return how many stretches of glue there are: one for each block, one for what is around them."""
    return len(layout.blocks) + 1


def _tokens(layout: Layout) -> int:
    rows, columns = (size // patch for size, patch in zip(layout.image_size, layout.patch_size, strict=True))
    return layout.prefix_tokens + rows * columns


def _linears(block: Block) -> tuple[str, ...]:
    attention, mlp = block.attention, block.mlp
    paths = (attention.query, attention.key, attention.value, attention.output, mlp.fc1, mlp.gate, mlp.fc2)
    return tuple(dict.fromkeys(path for path in paths if path is not None))


def _size(key: Key) -> int:
    out, into = cast("tuple[int, int]", key[2])  # as _linear_key puts it there
    return out * into
