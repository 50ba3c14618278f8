"""Write a model's tensors as one safetensors file, one tensor in memory at a time, hashing on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pah_opt.storage.digest import Digest, HashingWriter, hashing_pool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from torch import Tensor

    from pah_opt.storage.weights import Weights


def write_weights(file: BinaryIO, weights: Weights) -> Digest:
    """Write a safetensors file.

    Args:
        file: where to, from its current position.
        weights: what to write; its tensors must not change meanwhile.

    Returns:
        Size and checksums of what was written.

    Raises:
        OSError: it could not be written.
    """
    with hashing_pool() as pool:
        writer = HashingWriter(file, pool)
        for data in weights_bytes(weights):
            writer.write(data)
        return writer.digest()


def weights_bytes(weights: Weights) -> Iterator[bytes | memoryview]:
    """Yield the content of the file, piece by piece."""
    yield weights.header()
    for leaf in weights.leaves:
        with torch.no_grad():
            parts = leaf.encoding.encode(leaf.name, leaf.tensor)
            yield from (tensor_bytes(tensor) for _, tensor in parts)


def tensor_bytes(tensor: Tensor) -> memoryview:
    """Return the bytes of a dense tensor, copied only if it is not contiguous or on another device."""
    flat = tensor.detach().reshape(-1).contiguous()
    return flat.view(torch.uint8).cpu().numpy().data
