"""Choose linear layers and swap them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pah_opt.errors import nearest_name
from pah_opt.models.calibration import enough_images, has_enough_images
from pah_opt.models.gptq import round_in_order
from pah_opt.models.selection import GROUPS, all_linears, select_linears, unmatched_patterns
from pah_opt.models.surgery import replace_module
from pah_opt.strategies.bitsandbytes.modules import LayerKind, quantized, repaired, takes_repair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor, nn

    from pah_opt.layout import Layout
    from pah_opt.optimizer import Context
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


def quantize(model: nn.Module, paths: Iterable[str], config: BitsandbytesConfig, context: Context) -> None:
    """Quantize the layers at ``paths`` in place, and record how they were rounded.

    Raises:
        DataError: calibration images are missing, too few, or do not fit.
    """
    kind = LayerKind.of(config)
    layers = {path: _linear(model, path) for path in paths}
    repairs = not context.planning and _repairs(config, context)
    repairable = {path: layer for path, layer in layers.items() if repairs and takes_repair(layer, kind)}
    nearest = [path for path in layers if path not in repairable]
    if repairable:
        split = enough_images(context.calibration, config.images, "rounding gptq")
        context.record("calibration_images", len(split))

        def round_layer(path: str, layer: nn.Linear, second_moment: Tensor) -> None:
            replace_module(model, path, repaired(layer, kind, second_moment))

        round_in_order(model, repairable, split, context, round_layer, batch_size=config.batch_size)
    swap(model, nearest, lambda layer: quantized(layer, kind))
    if not context.planning and config.scheme != "int8":
        context.record("rounding", {"gptq": len(repairable), "nearest": len(nearest)})


def _repairs(config: BitsandbytesConfig, context: Context) -> bool:
    if config.rounding is not None:
        return config.rounding == "gptq"
    return has_enough_images(context.calibration)


def _linear(model: nn.Module, path: str) -> nn.Linear:
    layer: Any = model.get_submodule(path)  # chosen among linear layers
    return layer  # type: ignore[no-any-return]


def swap(model: nn.Module, paths: Iterable[str], make: Callable[[nn.Linear], nn.Module]) -> None:
    """Replace the layers at ``paths`` in place."""
    for path in paths:
        replace_module(model, path, make(_linear(model, path)))


def quantized_paths(model: nn.Module) -> list[str]:
    """Return the paths of layers of bitsandbytes, in the order of the model."""
    return [path for path, module in model.named_modules() if type(module).__name__ in ("Linear8bitLt", "Linear4bit")]
