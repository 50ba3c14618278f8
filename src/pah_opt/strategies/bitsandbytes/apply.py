"""Choose linear layers and swap them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pah_opt.errors import nearest_name
from pah_opt.models.selection import GROUPS, all_linears, select_linears, unmatched_patterns
from pah_opt.models.surgery import replace_module

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor, nn

    from pah_opt.layout import Layout
    from pah_opt.strategies.bitsandbytes.config import BitsandbytesConfig


def choose(model: nn.Module, layout: Layout, config: BitsandbytesConfig) -> tuple[list[str], dict[str, str]]:
    """Return the paths of layers to quantize, and the reason for each other linear layer to stay in float."""
    chosen = list(select_linears(model, layout, include=config.include, skip=config.skip))
    left = dict.fromkeys(all_linears(model, layout), "left out by include and skip")
    return chosen, {path: reason for path, reason in left.items() if path not in chosen}


def problems(model: nn.Module, layout: Layout, config: BitsandbytesConfig) -> list[str]:
    """Return what is wrong with a config for this very model."""
    linears = all_linears(model, layout)
    found = [
        _unmatched(field, pattern, list(linears))
        for field, patterns in (("include", config.include), ("skip", config.skip))
        for pattern in unmatched_patterns(model, layout, patterns)
    ]
    quantized = [path for path, layer in linears.items() if not _is_plain(layer.weight)]
    if quantized:
        found.append(
            f"{len(quantized)} linear layers are quantized already ({quantized[0]}); start from the float model"
        )
    elif not found and not choose(model, layout, config)[0]:
        found.append(f"no linear layer is left to quantize: skip {list(config.skip)} leaves out all of include")
    return found


def _unmatched(field: str, pattern: str, known: list[str]) -> str:
    near = nearest_name(pattern, [*GROUPS, *known])
    hint = f"; did you mean {near!r}?" if near else ""
    return (
        f"with.{field}: {pattern!r} matches no linear layer; allowed are glob patterns over paths such as "
        f"{known[0]!r}, and {', '.join(GROUPS)}{hint}"
    )


def _is_plain(weight: Tensor) -> bool:
    return weight.is_floating_point() and weight.element_size() > 1 and not hasattr(weight, "__tensor_flatten__")


def swap(model: nn.Module, paths: Iterable[str], make: Callable[[nn.Linear], nn.Module]) -> None:
    """Replace the layers at ``paths`` in place."""
    for path in paths:
        layer = model.get_submodule(path)
        replace_module(model, path, make(layer))  # type: ignore[arg-type]  # chosen among linear layers


def quantized_paths(model: nn.Module) -> list[str]:
    """Return the paths of layers of bitsandbytes, in the order of the model."""
    return [path for path, module in model.named_modules() if type(module).__name__ in ("Linear8bitLt", "Linear4bit")]
