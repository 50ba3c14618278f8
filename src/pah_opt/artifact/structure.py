"""A model's modules and shapes as data, and an empty model made of them again."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch

from pah_opt.errors import ArtifactError, MissingBackendError, PahOptError, UnsupportedHardwareError, nearest_name
from pah_opt.models.quiet import quiet_imports
from pah_opt.registry import using_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import nn

    from pah_opt.artifact.record import StepRecord
    from pah_opt.layout import ModelAdapter
    from pah_opt.registry import Registry

MAX_SIZE = 2**24
"""No number in a structure is larger: a hidden width, a number of classes, pixels."""
MAX_BLOCKS = 512
_BLOCKS = re.compile(r"(\w+_)?(layers|depths?|blocks)")
"""Names of arguments that count blocks: no paths of parameters, such as ``vit.layers.0.mlp.fc1.weight``."""
ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention", None)
"""Implementations of attention that a file may ask for. transformers downloads and runs kernels for other names."""


def without_compilation(model: nn.Module) -> nn.Module:
    """Return the module inside a compiled one."""
    inner: nn.Module = getattr(model, "_orig_mod", model)
    return inner


def adapter_named(name: str, registry: Registry) -> ModelAdapter:
    """Return the ModelAdapter of that name.

    Raises:
        ArtifactError: no loaded plugin brings it.
    """
    adapters = {adapter.name: adapter for adapter in registry.adapters}
    if name not in adapters:
        near = nearest_name(name, adapters)
        hint = f"did you mean {near!r}?" if near else f"there are {', '.join(adapters) or 'none'}"
        raise ArtifactError(f"the artifact needs the ModelAdapter {name!r}, which no loaded plugin brings; {hint}")
    return adapters[name]


def describe_structure(model: nn.Module, adapter: ModelAdapter) -> dict[str, Any]:
    """Return what :func:`rebuild` makes an empty model of.

    Raises:
        ArtifactError: the adapter cannot describe the model.
    """
    try:
        return adapter.structure(model)
    except Exception as error:  # an adapter may be a plugin's, which may raise anything
        raise ArtifactError(f"the model cannot be described for rebuilding: {error}") from error


def rebuild(
    structure: dict[str, Any], adapter: ModelAdapter, steps: Sequence[StepRecord], registry: Registry
) -> nn.Module:
    """Make the empty model on the ``meta`` device, as every step left its structure.

    Args:
        structure: from :func:`describe_structure`.
        adapter: the adapter that described it.
        steps: the steps in order; each restores what it changed besides shapes.
        registry: where the steps' Optimizers are found.

    Raises:
        ArtifactError: the structure is malformed, asks for unreasonable sizes, or a step cannot be restored.
        MissingBackendError: a library that the model needs is not installed.
    """
    _check_structure(structure)
    with quiet_imports(), torch.device("meta"), using_registry(registry):
        model = _guarded("the model cannot be rebuilt", lambda: adapter.rebuild(structure))
        for step in steps:
            model = _restored(model, step, registry)
    return model


def finish(model: nn.Module, steps: Sequence[StepRecord], registry: Registry) -> nn.Module:
    """Let every step do what had to wait for the tensors, such as compiling.

    Raises:
        ArtifactError: a step cannot be finished.
        MissingBackendError: a library that the model needs is not installed.
    """
    with quiet_imports(), using_registry(registry):
        for step in steps:
            if step.use in registry.optimizers:
                model = _finished(model, step, registry)
    return model


def _restored(model: nn.Module, step: StepRecord, registry: Registry) -> nn.Module:
    if step.use not in registry.optimizers:
        if not step.state:  # it left nothing behind but shapes and tensors
            return model
        raise ArtifactError(
            f"the artifact was made with {step.use!r}, which no loaded plugin brings and which is needed to rebuild "
            "it; install that plugin (pah-opt plugins shows those left out)"
        )
    optimizer = registry.get(step.use).optimizer
    return _guarded(f"what {step.use!r} did cannot be restored", lambda: optimizer.restore(model, dict(step.state)))


def _finished(model: nn.Module, step: StepRecord, registry: Registry) -> nn.Module:
    optimizer = registry.get(step.use).optimizer
    return _guarded(f"what {step.use!r} did cannot be finished", lambda: optimizer.finish(model, dict(step.state)))


def _guarded(what: str, make: Callable[[], nn.Module]) -> nn.Module:
    """Call an adapter or a strategy with data from a file; whatever it raises becomes an ArtifactError."""
    try:
        return make()
    except (ArtifactError, MissingBackendError, UnsupportedHardwareError):
        raise
    except PahOptError as error:
        raise ArtifactError(f"{what}: {error}") from error
    except Exception as error:  # data from a file can make any constructor raise anything
        raise ArtifactError(f"{what} ({type(error).__name__}: {error})") from error


def _check_structure(structure: Mapping[str, Any]) -> None:
    for key, value in _items(structure):
        if isinstance(value, int) and value > (MAX_BLOCKS if _counts_blocks(key) else MAX_SIZE):
            raise ArtifactError(f"the structure asks for {key} = {value}, which no Vision Transformer has")
        if key.endswith("attn_implementation") and value not in ATTENTION:
            raise ArtifactError(f"the structure asks for {key} = {value!r}; allowed are {ATTENTION[:-1]}")


def _counts_blocks(key: str) -> bool:
    return _BLOCKS.fullmatch(key) is not None


def _items(data: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value in nested data with the name it stands under."""
    if isinstance(data, dict):
        for name, value in data.items():
            yield from _items(value, name)
    elif isinstance(data, list):
        for value in data:
            yield from _items(value, key)
    else:
        yield key, data
