"""Find out how a model is compiled, from what ``torch.compile`` left on its modules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CUDA_GRAPHS = "triton.cudagraphs"


def compile_mode(model: nn.Module) -> str:
    """Return ``eager``, or the mode of ``torch.compile`` for the model or its largest compiled parts."""
    modes = sorted({_mode(config) for config in _configs(model)})
    return "+".join(modes) if modes else "eager"


def uses_cuda_graphs(model: nn.Module) -> bool:
    """Tell whether compiled parts replay CUDA graphs."""
    return any(config.get(CUDA_GRAPHS) for config in _configs(model))


def _configs(model: nn.Module) -> Iterator[Mapping[str, Any]]:
    """Yield the compiler settings of every compiled module."""
    for module in model.modules():
        if (context := getattr(module, "dynamo_ctx", None)) is not None:  # what torch.compile(module) returns
            yield _config(context)
        if (call := getattr(module, "_compiled_call_impl", None)) is not None:  # what module.compile() sets
            yield from _found_in(call, depth=3)


def _found_in(thing: Any, depth: int) -> Iterator[Mapping[str, Any]]:
    """Look for torch's context in a compiled call: in what it closes over, or in the attributes of a wrapper."""
    if hasattr(thing, "compiler_config"):
        yield _config(thing)
    elif depth and not isinstance(thing, nn.Module):
        held = [cell.cell_contents for cell in getattr(thing, "__closure__", None) or ()]
        held += list(getattr(thing, "__dict__", {}).values())
        for inner in held:
            if callable(inner) or hasattr(inner, "compiler_config"):
                yield from _found_in(inner, depth - 1)


def _config(context: Any) -> Mapping[str, Any]:
    config: Mapping[str, Any] | None = getattr(context, "compiler_config", None)
    return config or {}


def _mode(config: Mapping[str, Any]) -> str:
    # The inverse of torch._inductor.list_mode_options.
    if config.get("max_autotune"):
        return "max-autotune" if config.get(CUDA_GRAPHS) else "max-autotune-no-cudagraphs"
    return "reduce-overhead" if config.get(CUDA_GRAPHS) else "default"
