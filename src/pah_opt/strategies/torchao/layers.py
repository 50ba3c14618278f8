"""Which linear layer gets which scheme, and why some stay in float."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch

from pah_opt.adapt.problems import training_problems
from pah_opt.errors import nearest_name
from pah_opt.models.selection import GROUPS, all_linears, select_linears, unmatched_patterns
from pah_opt.strategies.torchao.config import FACTS, FLOAT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from pah_opt.layout import Layout
    from pah_opt.optimizer import Context
    from pah_opt.strategies.torchao.config import Scheme, TorchaoConfig


@dataclass(frozen=True)
class Assignment:
    """What happens to each linear layer inside the blocks and to the classifiers.

    Args:
        schemes: scheme by module path, for layers that are quantized.
        left: reason by module path, for layers that stay in float.
    """

    schemes: dict[str, Scheme]
    left: dict[str, str]

    def using(self, *schemes: Scheme) -> list[str]:
        """Return the paths of layers that get one of ``schemes``, in the order of the model."""
        return [path for path, scheme in self.schemes.items() if scheme in schemes]


def assign(model: nn.Module, layout: Layout, config: TorchaoConfig) -> Assignment:
    """Decide what each layer gets; looks at names, shapes and types only."""
    chosen = select_linears(model, layout, include=config.include, skip=config.skip)
    overrides = _overrides(model, layout, config)
    schemes: dict[str, Scheme] = {}
    left: dict[str, str] = {}
    for path, layer in all_linears(model, layout).items():
        scheme = overrides.get(path, config.scheme)
        reason = "left out by include and skip" if path not in chosen else _misfit(layer, scheme, config)
        if reason is not None:
            left[path] = reason
        elif scheme != FLOAT:
            schemes[path] = cast("Scheme", scheme)
    return Assignment(schemes, left)


def _overrides(model: nn.Module, layout: Layout, config: TorchaoConfig) -> dict[str, Scheme | str]:
    return {
        path: scheme
        for pattern, scheme in config.per_layer.items()
        for path in select_linears(model, layout, include=(pattern,))
    }


def _misfit(layer: nn.Linear, scheme: Scheme | str, config: TorchaoConfig) -> str | None:
    """Return why a layer cannot have a scheme, or None."""
    if scheme == FLOAT:
        return "left out by per_layer"
    out, into = layer.weight.shape
    if scheme == "int4-weight-only":
        fits = into % config.group_size == 0
        return None if fits else f"its {into} inputs are no multiple of group_size {config.group_size}"
    facts = FACTS[scheme]  # type: ignore[index]  # not float, as just checked
    if out % facts.multiple == 0 and into % facts.multiple == 0:
        return None
    return f"its widths {into} and {out} are not both multiples of {facts.multiple}: {facts.why}"


def problems(model: nn.Module, config: TorchaoConfig, context: Context) -> list[str]:
    """Return what is wrong with a config for this very model."""
    layout = context.adapter.layout(model)
    return list(_pattern_problems(model, layout, config)) or list(_state_problems(model, layout, config, context))


def _pattern_problems(model: nn.Module, layout: Layout, config: TorchaoConfig) -> Iterator[str]:
    fields = {"include": config.include, "skip": config.skip, "per_layer": tuple(config.per_layer)}
    known = list(all_linears(model, layout))
    for field, patterns in fields.items():
        for pattern in unmatched_patterns(model, layout, patterns):
            near = nearest_name(pattern, [*GROUPS, *known])
            hint = f"; did you mean {near!r}?" if near else ""
            yield (
                f"with.{field}: {pattern!r} matches no linear layer; allowed are glob patterns over paths such as "
                f"{known[0]!r}, and {', '.join(GROUPS)}{hint}"
            )


def _state_problems(model: nn.Module, layout: Layout, config: TorchaoConfig, context: Context) -> Iterator[str]:
    linears = all_linears(model, layout)
    quantized = [path for path, layer in linears.items() if not is_plain(layer.weight)]
    if quantized:
        yield f"{len(quantized)} linear layers are quantized already ({quantized[0]}); start from the float model"
        return
    assignment = assign(model, layout, config)
    if not assignment.schemes:
        yield "no linear layer is left to quantize: " + _why(assignment.left)
    if assignment.using("int8-qat"):
        yield from training_problems(model, config.training, context.adapter, context.reference)
    wrong = [p for p in assignment.using("fp8-dynamic") if linears[p].weight.dtype is not torch.bfloat16]
    if wrong:
        # torch._scaled_mm with a scale for each row gives bfloat16 only.
        yield (
            f"fp8-dynamic multiplies into bfloat16, and {wrong[0]} is {str(linears[wrong[0]].weight.dtype)[6:]}; "
            "put a cast step with dtype bf16 before this one"
        )


def _why(left: dict[str, str]) -> str:
    reasons = dict.fromkeys(left.values())
    return "; ".join(f"{reason} ({next(p for p, r in left.items() if r == reason)})" for reason in reasons) or "none"


def is_plain(weight: Tensor) -> bool:
    """Tell whether a weight is an ordinary floating-point tensor."""
    return weight.is_floating_point() and weight.element_size() > 1 and not hasattr(weight, "__tensor_flatten__")
