"""Write a model's tensors as one safetensors file, one tensor in memory at a time, hashing on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pah_opt.storage.digest import Digest, HashingWriter, hashing_pool

if TYPE_CHECKING:
    from typing import BinaryIO

    from torch import Tensor

    from pah_opt.storage.weights import Weights


@torch.no_grad()
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
        writer.write(weights.header())
        for leaf in weights.leaves:
            for _, tensor in leaf.encoding.encode(leaf.name, leaf.tensor):
                writer.write(tensor_bytes(tensor))
        return writer.digest()


def tensor_bytes(tensor: Tensor) -> memoryview:
    """Return the bytes of a dense tensor, copied only if it is not contiguous or on another device."""
    flat = tensor.detach().reshape(-1).contiguous()
    return flat.view(torch.uint8).cpu().numpy().data
