"""Fill a rebuilt, empty model with the tensors of a weights file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pah_opt.errors import ArtifactError
from pah_opt.storage.assemble import assemble
from pah_opt.storage.leaves import Held, held_tensors

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pah_opt.storage.reader import WeightsReader


@torch.no_grad()
def fill_model(model: nn.Module, reader: WeightsReader, device: torch.device) -> None:
    """Give every parameter and buffer of ``model`` its stored tensor, on ``device``; sharing is restored.

    Args:
        model: rebuilt to the stored shapes, usually on the ``meta`` device; changed in place.
        reader: the weights.
        device: where the tensors go.

    Raises:
        ArtifactError: names or shapes differ between the model and the file; nothing in the file was used beyond that.
    """
    held = list(held_tensors(model))
    _check_names({item.path for item in held}, reader)
    with reader.decoding_ahead():
        _Filler(reader, device).fill(held)


def _check_names(wanted: set[str], reader: WeightsReader) -> None:
    index = reader.index
    parts = {f"{path}.{part}" for path, item in index.quantized.items() for part in item.parts}
    leaves = set(reader.leaves) | set(index.parts)
    found = (leaves - parts) | set(index.quantized) | set(index.shared)
    absent = parts - leaves
    for names, what in ((wanted - found, "lacks"), (found - wanted, "has unknown"), (absent, "lacks parts:")):
        if names:
            raise ArtifactError(f"{reader.name} {what} {_some(names)}: it does not belong to this model")


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:3]) + (f" and {len(ordered) - 3} more" if len(ordered) > 3 else "")


class _Filler:
    def __init__(self, reader: WeightsReader, device: torch.device) -> None:
        self._reader = reader
        self._device = device
        self._made: dict[str, Tensor] = {}

    def fill(self, held: list[Held]) -> None:
        shared = self._reader.index.shared
        for item in held:
            if item.path not in shared:
                self._made[item.path] = self._make(item)
                _put(item, self._made[item.path])
        for item in held:
            if item.path in shared:
                _put(item, self._shared(item, shared[item.path]))

    def _shared(self, item: Held, first: str) -> Tensor:
        if first not in self._made or self._made[first].shape != item.tensor.shape:
            raise ArtifactError(f"{item.path} is stored as the same as {first}, which it cannot be")
        return self._made[first]

    def _make(self, item: Held) -> Tensor:
        described = self._reader.index.quantized.get(item.path)
        if described is not None:
            return assemble(item, described, {part: self._leaf(f"{item.path}.{part}") for part in described.parts})
        name = self._reader.index.parts.get(item.path, item.path)
        shape = self._reader.leaves[name].shape if name in self._reader.leaves else None
        if shape != tuple(item.tensor.shape):
            raise ArtifactError(f"{item.path} has shape {shape} and the model needs {tuple(item.tensor.shape)}")
        tensor = self._leaf(item.path)
        if not isinstance(item.tensor, nn.Parameter):
            return tensor
        return nn.Parameter(tensor, requires_grad=item.tensor.requires_grad and tensor.is_floating_point())

    def _leaf(self, name: str) -> Tensor:
        return self._reader.leaf(name).to(self._device)


def _put(item: Held, tensor: Tensor) -> None:
    slots = item.module._parameters if item.name in item.module._parameters else item.module._buffers  # noqa: SLF001
    slots[item.name] = tensor  # type: ignore[assignment]  # setattr would refuse another class of parameter
