"""Find out how a model is compiled, from what ``torch.compile`` left on its modules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

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
        context = getattr(module, "dynamo_ctx", None)  # what torch.compile(module) returns
        if context is not None:
            yield _config(context)
        if (call := getattr(module, "_compiled_call_impl", None)) is not None:  # what module.compile() sets
            yield from (_config(cell.cell_contents) for cell in call.__closure__ or () if _is_context(cell))


def _is_context(cell: Any) -> bool:
    return hasattr(cell.cell_contents, "compiler_config")


def _config(context: Any) -> Mapping[str, Any]:
    config: Mapping[str, Any] | None = getattr(context, "compiler_config", None)
    return config or {}


def _mode(config: Mapping[str, Any]) -> str:
    # The inverse of torch._inductor.list_mode_options.
    if config.get("max_autotune"):
        return "max-autotune" if config.get(CUDA_GRAPHS) else "max-autotune-no-cudagraphs"
    return "reduce-overhead" if config.get(CUDA_GRAPHS) else "default"
