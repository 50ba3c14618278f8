"""What state a model is in: the state tags it starts a recipe with, and what makes it unfit for one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pah_opt.models.zeros import sparse_linears
from pah_opt.optimizer import FRESH_TAGS

if TYPE_CHECKING:
    from collections.abc import Iterator

_QUANTIZED_MODULES = {"Linear8bitLt": "int8", "LinearNF4": "nf4", "LinearFP4": "fp4"}
_HALF = {torch.bfloat16: "dtype:bf16", torch.float16: "dtype:fp16"}


def state_tags(model: nn.Module) -> frozenset[str]:
    """Return the state tags of an arbitrary model, see :mod:`pah_opt.optimizer`.

    Quantized linear layers (of torchao, bitsandbytes or torch), half precision, zeros kept on purpose and a compiled
    forward pass are recognised, whoever made them.
    """
    stored = {stored_type(module) for module in model.modules()} - {None}
    tags = set(FRESH_TAGS)
    if stored:
        tags -= {"weights:float", "shapes:free"}
        tags |= {f"linear:{kind}" for kind in stored}
    if is_compiled(model):
        tags = (tags - {"graph:eager"}) | {"compiled"}
    if not stored and _has_values(model) and sparse_linears(model):
        tags.add("weights:sparse")
    return frozenset(tags | _dtype_tags(model))


def stored_type(module: nn.Module) -> str | None:
    """Return the type a quantized linear layer stores its weight in, such as ``int8``; None for any other module."""
    if type(module).__name__ == "Linear4bit":
        weight: Any = module.weight
        return str(getattr(weight, "quant_type", "nf4"))
    if type(module).__name__ in _QUANTIZED_MODULES:
        return _QUANTIZED_MODULES[type(module).__name__]
    weight = getattr(module, "weight", None)
    if callable(weight) and type(module).__module__.startswith("torch.ao"):
        return "int8"
    return _subclass_type(weight) if isinstance(weight, Tensor) and hasattr(weight, "__tensor_flatten__") else None


def _subclass_type(weight: Any) -> str:
    """Name the type a tensor subclass stores: as it declares, else by its name, else by the tensors inside."""
    kind = type(weight).__name__
    if "SemiStructured" in kind:
        return "2:4"
    if isinstance(target := getattr(weight, "target_dtype", None), torch.dtype):
        return str(target).removeprefix("torch.")
    if isinstance(bits := getattr(weight, "bit_width", None), int):
        return f"int{bits}"
    if match := re.search(r"(Int|Float|NF)(\d+)", kind):
        return match.group(1).lower().replace("float", "fp") + match.group(2)
    names, _ = weight.__tensor_flatten__()
    inner = {getattr(weight, name).dtype for name in names}
    return "int8" if torch.int8 in inner else "packed"


def _has_values(model: nn.Module) -> bool:
    return all(parameter.device.type != "meta" for parameter in model.parameters())


def _dtype_tags(model: nn.Module) -> frozenset[str]:
    kinds = {p.dtype for p in model.parameters() if p.is_floating_point() and p.ndim > 1}
    return frozenset(_HALF[kind] for kind in kinds if kind in _HALF)


def is_compiled(model: nn.Module) -> bool:
    """Tell whether a model, or a part of it, runs compiled code (``torch.compile(model)`` or ``model.compile()``)."""
    return any(_is_compiled(module) for module in model.modules())


def _is_compiled(module: nn.Module) -> bool:
    wrapped = type(module).__name__ == "OptimizedModule" or isinstance(module, torch.jit.ScriptModule)
    return wrapped or getattr(module, "_compiled_call_impl", None) is not None


def model_problems(model: Any) -> list[str]:
    """Return what must be put right before a recipe can work on a model; empty when it is fit.

    The whole model may be on the ``meta`` device (a plan needs no weights); half of it may not.
    """
    if not isinstance(model, nn.Module):
        return [f"it is a {type(model).__name__}, not a torch.nn.Module; load it first (pah_opt.models.load_model)"]
    checks = (_compiled_problem, _mask_problems, _tie_problems, _device_problems, _value_problems)
    return [problem for check in checks for problem in check(model)]


def _compiled_problem(model: nn.Module) -> Iterator[str]:
    if is_compiled(model):
        yield (
            "it is compiled (or scripted), so its modules cannot be changed; pass the model as it was before compiling "
            "(model._orig_mod of a torch.compile result, or a deep copy after model.compile()) and compile last, "
            "with the compile step"
        )


def _mask_problems(model: nn.Module) -> Iterator[str]:
    masked = [path for path, module in model.named_modules() if _has_mask(module)]
    if masked:
        yield (
            f"{len(masked)} modules still carry pruning masks of torch.nn.utils.prune ({_some(masked)}); fold them "
            "with torch.nn.utils.prune.remove(module, name)"
        )


def _has_mask(module: nn.Module) -> bool:
    own = {name for name, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))}
    return any(f"{name.removesuffix('_orig')}_mask" in own for name in own if name.endswith("_orig"))


def _tie_problems(model: nn.Module) -> Iterator[str]:
    """Find parameters with several names: a change made for one place would change the other, or untie the two."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    tied = [f"{found[0]} is also {found[1]}" for found in names.values() if len(found) > 1]
    if tied:
        yield (
            f"{len(tied)} parameters are tied ({_some(tied)}); give each place its own first: copy.deepcopy of a "
            "shared module, nn.Parameter(parameter.detach().clone()) of a single parameter"
        )


def _device_problems(model: nn.Module) -> Iterator[str]:
    devices: dict[str, list[str]] = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        devices.setdefault(str(tensor.device), []).append(name)
    if len(devices) < 2:
        return
    placed = "; ".join(f"{len(names)} on {device} ({_some(names)})" for device, names in devices.items())
    if "meta" in devices:
        yield f"part of it has no values yet: {placed}; load all of its weights, or none for a plan"
    else:
        yield f"its parameters are on several devices: {placed}; move the model to one with model.to(device)"


def _value_problems(model: nn.Module) -> Iterator[str]:
    broken = [name for name, parameter in model.named_parameters() if not _is_finite(parameter)]
    if broken:
        yield f"{len(broken)} parameters hold NaN or infinity ({_some(broken)}); reload the weights or train again"


@torch.no_grad()
def _is_finite(parameter: Tensor) -> bool:
    plain = parameter.is_floating_point() and not hasattr(parameter, "__tensor_flatten__")
    if not plain or parameter.device.type == "meta":
        return True
    # A sum is not finite when any value is not, costs no memory, and only a suspect needs a second look.
    return bool(torch.isfinite(parameter.sum())) or bool(torch.isfinite(parameter).all())


def _some(names: list[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
