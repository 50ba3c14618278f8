"""Which types a device multiplies by instructions of its own; mixed precision where it does so with bfloat16.

Settings name :data:`Precision`, so importing this imports no torch.
"""

from __future__ import annotations

import copy
import platform
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    import torch
    from torch import nn

Precision = Literal["no", "bf16"]


def multiplies_bf16(device: torch.device) -> bool:
    """Tell whether a device has bfloat16 products; a CPU needs AVX-512 or AMX (or the same of its kind).

    On a CPU with AVX2 alone torch emulates them: a product as in ViT-S took 50 times as long as in float32.
    """
    import torch

    if device.type != "cpu":
        return True
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return bool(available and torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001


def multiplies_int8(device: torch.device) -> bool:
    """Tell whether a device has int8 products; an x86 CPU needs VNNI or AMX.

    On a CPU with AVX2 alone torch 2.13 multiplies int8 in a plain loop, right and 20 to 40 times slower than float32.
    """
    import torch

    if device.type != "cpu" or platform.machine() not in ("x86_64", "AMD64"):
        return True
    return bool(torch.cpu._is_vnni_supported())  # noqa: SLF001  # as torchao asks


def mixed(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """Run what follows in a precision.

    Args:
        precision: ``bf16`` for matrix products in bfloat16; where the device has none, they stay in float32, which is
            more exact and, there, many times faster.
        device: where the model is.
    """
    if precision == "no" or not multiplies_bf16(device):
        return nullcontext()
    import torch

    return torch.autocast(device.type, torch.bfloat16)


def as_float32(model: nn.Module) -> nn.Module:
    """Return a model in half precision as a copy in float32, and any other as it is."""
    import torch

    half = any(parameter.dtype in (torch.bfloat16, torch.float16) for parameter in model.parameters())
    return copy.deepcopy(model).float() if half else model


@contextmanager
def worked_on_in_float32(model: nn.Module) -> Iterator[nn.Module]:
    """Lend a model whose weights are changed with float32's precision; one in half precision gets them back rounded."""
    import torch

    work = as_float32(model)
    yield work
    if work is not model:
        with torch.no_grad():
            for own, changed in zip(model.parameters(), work.parameters(), strict=True):
                own.copy_(changed)
