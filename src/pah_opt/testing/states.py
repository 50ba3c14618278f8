"""What must be the same of a model before and after, and what must not be left on it."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks",
    "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
)  # fmt: skip

_GLOBAL_HOOKS = tuple(f"_global{kind}" for kind in _HOOKS[:4])


def frozen_state(model: nn.Module) -> dict[str, Any]:
    """Return copies of everything that a strategy must leave alone on the model of its caller."""
    config = getattr(model, "config", None)
    return {
        "tensors": {name: tensor.detach().clone() for name, tensor in tensors_of(model)},
        "requires_grad": {name: parameter.requires_grad for name, parameter in model.named_parameters()},
        "mode": {name: module.training for name, module in model.named_modules()},
        "types": {name: type(module) for name, module in model.named_modules()},
        "config": None if config is None else config.to_dict(),
        "hooks": dict(hooks_of(model)),
        "methods": methods_of(model),
    }


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return what differs between two frozen states, such as ``["tensors (vit.cls_token)"]``."""
    found = []
    for part, old in before.items():
        new = after[part]
        if isinstance(old, dict) and isinstance(new, dict):
            found += [f"{part} ({name})" for name in dict.fromkeys((*old, *new)) if not _same(old, new, name)]
        elif old != new:
            found.append(part)
    return found


def _same(old: Mapping[Any, Any], new: Mapping[Any, Any], name: Any) -> bool:
    if name not in old or name not in new:
        return False
    first, second = old[name], new[name]
    return torch.equal(first, second) if isinstance(first, Tensor) else bool(first == second)


def tensors_of(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield every parameter and buffer by name."""
    yield from model.named_parameters()
    yield from model.named_buffers()


def different_tensors(one: nn.Module, other: nn.Module) -> list[str]:
    """Return names of tensors that are not equal bit for bit in two models."""
    first, second = dict(tensors_of(one)), dict(tensors_of(other))
    return [n for n in dict.fromkeys((*first, *second)) if n not in first or n not in second
            or not _equal(first[n], second[n])]  # fmt: skip


def _equal(one: Tensor, other: Tensor) -> bool:
    if hasattr(one, "__tensor_flatten__"):
        names, _ = one.__tensor_flatten__()
        return type(one) is type(other) and all(_equal(getattr(one, n), getattr(other, n)) for n in names)
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)


def hooks_of(model: nn.Module) -> Iterator[tuple[str, int]]:
    """Yield ``path.kind`` and the number of hooks, for every module that has some."""
    for path, module in model.named_modules():
        for kind in _HOOKS:
            if hooks := getattr(module, kind, None):
                yield f"{path}.{kind}".lstrip("."), len(hooks)


def methods_of(model: nn.Module) -> dict[str, Any]:
    """Return what the classes of its modules define: replaced there, it is replaced for every other model too."""
    classes = dict.fromkeys(cls for module in model.modules() for cls in type(module).__mro__[:-1])
    return {
        f"{cls.__qualname__}.{name}": defined
        for cls in classes for name, defined in vars(cls).items() if callable(defined)
    }  # fmt: skip


def process_state() -> dict[str, object]:
    """Return the settings of torch that hold for the whole process: a strategy must leave them as they were."""
    module = torch.nn.modules.module
    return {
        "torch.is_grad_enabled()": torch.is_grad_enabled(),
        "torch.get_default_dtype()": torch.get_default_dtype(),
        "torch.get_default_device()": torch.get_default_device(),
        "torch.get_num_threads()": torch.get_num_threads(),
        "torch.get_float32_matmul_precision()": torch.get_float32_matmul_precision(),
        "torch.are_deterministic_algorithms_enabled()": torch.are_deterministic_algorithms_enabled(),
        "torch.backends.cudnn.benchmark": torch.backends.cudnn.benchmark,
        **{f"hooks in torch.nn.modules.module.{name}": len(getattr(module, name)) for name in _GLOBAL_HOOKS},
    }


def tensor_bytes_alive() -> int:
    """Return the memory of all tensors in Python, once what nobody can reach is gone, nor torch keeps of compiling."""
    torch.compiler.reset()
    gc.collect()
    storages = dict(_memory(each) for each in gc.get_objects() if issubclass(type(each), Tensor))
    return sum(storages.values())


def _memory(tensor: Tensor) -> tuple[int, int]:
    """Return address and bytes of a tensor's memory; none for shapes alone, of which torch's exporters keep some."""
    try:
        storage = tensor.untyped_storage()
        return (0, 0) if storage.device.type == "meta" else (storage.data_ptr(), storage.nbytes())
    except (NotImplementedError, RuntimeError):
        return 0, 0


def leftovers(model: nn.Module, before: nn.Module) -> list[str]:
    """Return gradients, pruning masks, and hooks that the model before did not have."""
    had = dict(hooks_of(before))
    found = [
        f"{count - had.get(name, 0)} hooks in {name}" for name, count in hooks_of(model) if count > had.get(name, 0)
    ]
    found += [f"a gradient of {name}" for name, parameter in model.named_parameters() if parameter.grad is not None]
    return found + [f"a pruning mask {name}" for name, _ in model.named_buffers() if name.endswith("_mask")]
