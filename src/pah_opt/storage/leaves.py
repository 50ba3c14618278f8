"""A model's tensors taken apart into leaves: plain tensors that a file can hold, and how to put them together again.

Quantized tensors are subclasses that wrap several plain ones (torchao), or parameters with a state beside them
(bitsandbytes). Their bytes are the bytes of their leaves.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from pah_opt.errors import ArtifactError
from pah_opt.storage.attributes import to_json
from pah_opt.storage.backends import is_torchao_tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

COMPILED = "_orig_mod"
"""Name that torch.compile gives to the module it wraps."""


class Held(NamedTuple):
    """One tensor that a module holds.

    Args:
        path: its dotted name, without the wrappers of compiled modules.
        module: the module that holds it.
        name: its name there.
        tensor: the parameter or buffer.
    """

    path: str
    module: nn.Module
    name: str
    tensor: Tensor


@dataclass(frozen=True)
class Parts:
    """A tensor taken apart.

    Args:
        kind: how to put it together again: ``plain``, ``torchao``, ``bnb-int8``, ``bnb-4bit``.
        leaves: plain tensors by suffix; the suffix of a plain tensor is empty.
        type: name of the tensor's class, where several have the same kind.
        attributes: the rest, as JSON data.
    """

    kind: str
    leaves: Mapping[str, Tensor]
    type: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)


def held_tensors(model: nn.Module) -> Iterator[Held]:
    """Yield every parameter and buffer under every name it has, buffers that state dicts leave out included."""
    for prefix, module in model.named_modules(remove_duplicate=False):
        path = ".".join(part for part in prefix.split(".") if part and part != COMPILED)
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):  # noqa: SLF001  # no public way
            if tensor is not None:
                yield Held(f"{path}.{name}" if path else name, module, name, tensor)


def take_apart(held: Held) -> Parts:
    """Take one tensor apart, copying nothing that can be shared.

    Raises:
        ArtifactError: the tensor is of a type that cannot be stored.
    """
    tensor = held.tensor
    if type(tensor).__module__.partition(".")[0] == "bitsandbytes":
        from pah_opt.storage.bnb import take_apart_bnb

        return take_apart_bnb(held)
    if type(tensor) in (Tensor, nn.Parameter, nn.Buffer):
        return Parts("plain", {"": _strided(held.path, tensor)})
    if isinstance(tensor, torch.sparse.SparseSemiStructuredTensor):
        # Its own format belongs to one kind of GPU; a plain tensor's zeros take as little room, and load anywhere.
        return Parts("plain", {"": tensor.detach().to_dense()})
    if is_torchao_tensor(tensor):
        return _take_apart_torchao(held.path, tensor)
    raise ArtifactError(
        f"{held.path} is a {type(tensor).__module__}.{type(tensor).__qualname__}, which cannot be stored; "
        "tensors that can: plain ones, 2:4 sparse ones, torchao's and bitsandbytes'"
    )


def _strided(path: str, tensor: Tensor) -> Tensor:
    if tensor.layout is not torch.strided:
        raise ArtifactError(f"{path} has layout {tensor.layout}, which cannot be stored; call .to_dense() on it first")
    return tensor.detach()


def _take_apart_torchao(path: str, tensor: Any) -> Parts:
    names, attributes = tensor.__tensor_flatten__()
    leaves = {name: _strided(f"{path}.{name}", getattr(tensor, name)) for name in names}
    return Parts("torchao", leaves, type(tensor).__name__, {key: to_json(value) for key, value in attributes.items()})
