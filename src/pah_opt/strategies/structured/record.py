"""What structured pruning reports about itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pah_opt.strategies.structured.config import FROM_DATA

if TYPE_CHECKING:
    from pah_opt.optimizer import Context
    from pah_opt.strategies.structured.allocation import Allocator
    from pah_opt.strategies.structured.config import StructuredConfig
    from pah_opt.strategies.structured.plan import Method
    from pah_opt.strategies.structured.sizes import Kind, Shapes


def write(
    context: Context, config: StructuredConfig, method: Method, *, allocator: Allocator, shapes: Shapes, cut_by: str
) -> None:
    """Record widths, requested and achieved shares, and how units were judged, repaired and cut."""
    context.record("heads", [shape.heads for shape in shapes])
    context.record("head_dims", [shape.head_dim for shape in shapes])
    context.record("mlp_widths", [shape.mlp for shape in shapes])
    context.record("requested", config.target.given if config.target else config.proportions)
    for kind, given in config.per_block.items():
        if given:
            context.record(f"{kind}_per_block", given)
    context.record("removed", {kind: _removed(kind, allocator, shapes) for kind in ("heads", "head_dims", "mlp")})
    whole, left = allocator.sizes.totals(allocator.dense), allocator.sizes.totals(shapes)
    context.record("kept", {figure: round(left[figure] / whole[figure], 4) for figure in whole})
    context.record("align", allocator.widths.align)
    context.record("importance", method.importance)
    context.record("repair", method.repair)
    context.record("cut_by", cut_by)
    note = _note(config, method)
    if note and not context.planning:
        context.record("note", note)


def _removed(kind: Kind, allocator: Allocator, shapes: Shapes) -> float:
    before = sum(shape.count(kind) for shape in allocator.dense)
    return round(1 - sum(shape.count(kind) for shape in shapes) / before, 4)


def _note(config: StructuredConfig, method: Method) -> str | None:
    if "auto" in (config.importance, config.repair) and method.repair == "none" and method.importance not in FROM_DATA:
        return "there were no calibration images: chosen by weights alone and not repaired; accuracy will need training"
    return None
