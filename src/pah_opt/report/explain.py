"""In words: what was changed, what was left alone, and why something did not get faster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pah_opt.report.numbers import TIMES, times

if TYPE_CHECKING:
    from pah_opt.measure.model_report import BlockFigures, ModelReport
    from pah_opt.measure.schema import Latency
    from pah_opt.report.schema import Report

FASTER = 1.1
"""From this speed-up on nothing needs explaining."""
FLOATS = frozenset({"fp64", "fp32", "fp16", "bf16"})
FOUR_BIT = frozenset({"nf4", "fp4", "int4"})
LEFT_ALONE = ("skipped", "left_in_float", "left_dense")
"""Under which names steps record layers that they did not touch, with the reason."""
SLOW_PRODUCTS = "slow_products"
"""Under which name steps record that the machine multiplies their type slowly."""
TOLD = ("kernels_reason", "reason", "note", SLOW_PRODUCTS)
"""Under which names steps record why something did not happen, or what a reader should know."""
Rule = Callable[["ModelReport", "ModelReport"], Iterator[str]]


def explain(report: Report) -> dict[str, tuple[str, ...]]:
    """Say of each model but the baseline what a reader of its figures would wonder about."""
    return {
        model.id: tuple(sentence for rule in RULES for sentence in rule(model, report.baseline))
        for model in report.candidates
    }


def _speedup(model: ModelReport) -> float | None:
    """Return the better of the speed-ups in latency and throughput."""
    known = (model.vs_baseline.speedup_p50_x, model.vs_baseline.throughput_x)
    return max((value for value in known if value is not None), default=None)


def _is_no_faster(model: ModelReport) -> bool:
    speedup = _speedup(model)
    return speedup is not None and speedup < FASTER


def _noise(model: ModelReport, _baseline: ModelReport) -> Iterator[str]:
    interval = model.vs_baseline.speedup_ci95_x
    if interval is not None and interval[0] <= 1.0 <= interval[1]:
        yield (
            f"Latency cannot be told from the baseline's: {times(model.vs_baseline.speedup_p50_x, interval)} covers 1."
        )


def _zeros(model: ModelReport, baseline: ModelReport) -> Iterator[str]:
    own, before = model.model.sparsity_pct, baseline.model.sparsity_pct
    types = model.model.linear_dtypes or {}
    if own is None or before is None or own < before + 5 or "2:4" in types or not _is_no_faster(model):
        return
    size = model.vs_baseline.size_x
    smaller = f" They make the file {times(size)} smaller." if size is not None and size > 1.05 else ""
    yield (
        f"{own:.0f} % of its parameters are zero, and dense kernels multiply zeros like any other number.{smaller} For "
        "speed remove whole heads and channels (structured-pruning), or use the 2:4 format on a GPU that has it."
    )


def _uncompiled_int8(model: ModelReport, _baseline: ModelReport) -> Iterator[str]:
    types = model.model.linear_dtypes or {}
    if any(SLOW_PRODUCTS in step.achieved for step in model.steps):
        return  # fused or not, they stay slow
    if "int8" in types and _is_no_faster(model) and _mode(model) == "eager" and not _weight_only(model):
        yield (
            "Its int8 layers run eagerly: quantizing activations, multiplying and scaling are separate passes over "
            "memory. A compile step after quantization fuses them."
        )


def _weight_only(model: ModelReport) -> bool:
    return any("weight-only" in str(value) for step in model.steps for value in step.config.values())


def _weights_only(model: ModelReport, _baseline: ModelReport) -> Iterator[str]:
    types = set(model.model.linear_dtypes or {}) - FLOATS
    if types and _is_no_faster(model) and (_weight_only(model) or types & FOUR_BIT):
        yield (
            f"Only the weights are {'/'.join(sorted(types))}: they are turned back into floats before they are "
            "multiplied. That saves memory, not arithmetic; for speed quantize activations too (int8-dynamic)."
        )


def _launch_bound(model: ModelReport, _baseline: ModelReport) -> Iterator[str]:
    latency, throughput = model.vs_baseline.speedup_p50_x, model.vs_baseline.throughput_x
    timing = model.latency_timing
    if timing is None or latency is None or throughput is None or latency >= FASTER or throughput < 1.15 * latency:
        return
    batch, proof = timing.workload.batch_size, _launch_proof(timing.latency)
    if throughput > 1.0:
        said = f"the time goes into starting operations, not into arithmetic{proof}; larger batches gain"
    else:
        said = f"much of the time goes into starting operations{proof}: {times(latency)}; larger batches lose less,"
    yield f"At batch {batch} {said} {times(throughput)}.{_launch_advice(model, timing.latency)}"


def _launch_proof(latency: Latency) -> str:
    wall, device = latency.wall_p50_ms, latency.p50_ms
    if latency.method != "cuda_event" or wall is None or device is None:
        return ""
    return f" (wall {wall:.2f} ms, on the device {device:.2f} ms)"


def _launch_advice(model: ModelReport, latency: Latency) -> str:
    """Name what starts operations for less: CUDA graphs where there is CUDA, compiling where that was not done."""
    graphs = ["CUDA graphs (compile with mode reduce-overhead)"] if latency.method == "cuda_event" else []
    helpful = graphs + (["a compile step"] if _mode(model) == "eager" else [])
    return f" For small batches try {' or '.join(helpful)}." if helpful else ""


def _misaligned(model: ModelReport, _baseline: ModelReport) -> Iterator[str]:
    widths = sorted({width for block in model.blocks for width in _widths(block) if width % 8})
    if widths and _is_no_faster(model):
        yield (
            f"Widths such as {widths[0]} are not multiples of 8, where matrix kernels fall back to slow paths; prune "
            "with align: 8, or 64 for a GPU."
        )


def _widths(block: BlockFigures) -> tuple[int, int]:
    return block.mlp_width, block.num_heads * block.head_dim


def _less_than_macs(model: ModelReport, _baseline: ModelReport) -> Iterator[str]:
    macs, speedup = model.vs_baseline.macs_x, _speedup(model)
    if macs is not None and speedup is not None and macs > 1.2 and speedup < 0.75 * macs:
        yield (
            f"It has {times(macs)} fewer MACs and is {times(speedup)} as fast: the rest of the time is not in matrix "
            "products (norms, softmax, memory traffic), or its narrower layers fill the device less."
        )


def _half_precision(model: ModelReport, baseline: ModelReport) -> Iterator[str]:
    timing, base = model.latency_timing, baseline.latency_timing
    if timing is None or base is None or timing.latency.method != "wall" or not _is_no_faster(model):
        return
    own, before = timing.workload.dtype, base.workload.dtype
    if own != before and own in ("bfloat16", "float16"):
        yield f"CPUs without {own} instructions convert to float32 and back around every product."


def _accuracy(model: ModelReport, _baseline: ModelReport) -> Iterator[str]:
    accuracy = model.accuracy
    if accuracy.mcnemar_p is None or accuracy.top1_delta_pp is None:
        return
    if accuracy.agreement_with_baseline == 1.0:
        yield "It gives the baseline's answer for every image."
        return
    flips = f"{accuracy.flips_to_wrong} images became wrong and {accuracy.flips_to_right} right"
    verdict = "more than chance" if accuracy.mcnemar_p < 0.05 else "no more than chance explains"
    yield f"Against the baseline {flips}: {verdict} (McNemar p = {accuracy.mcnemar_p:.2g})."


def _left_alone(model: ModelReport, _baseline: ModelReport) -> Iterator[str]:
    for number, step in enumerate(model.steps, start=1):
        for name in LEFT_ALONE:
            if named := _named(step.achieved.get(name)):
                yield f"Step {number} ({step.use}) left alone {named}."


def _named(left: object) -> str:
    """Name at most five layers, each with its reason where there is one."""
    if isinstance(left, dict):
        items = [f"{path}: {why}" for path, why in left.items()]
    else:
        items = list(map(str, left)) if isinstance(left, (list, tuple)) else []
    more = f"; and {len(items) - 5} more" if len(items) > 5 else ""
    return "; ".join(items[:5]) + more


def _told_by_steps(model: ModelReport, _baseline: ModelReport) -> Iterator[str]:
    for number, step in enumerate(model.steps, start=1):
        for told in told_by(step.achieved):
            yield f"Step {number} ({step.use}): {told}."


def told_by(achieved: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a step told its user, among what it recorded."""
    for name in TOLD:
        if isinstance(text := achieved.get(name), str) and text:
            yield text


def _mode(model: ModelReport) -> str | None:
    timing = model.latency_timing
    return None if timing is None else timing.workload.compile_mode


RULES: tuple[Rule, ...] = (
    _accuracy, _zeros, _uncompiled_int8, _weights_only, _half_precision, _launch_bound, _misaligned, _less_than_macs,
    _noise, _left_alone, _told_by_steps,
)  # fmt: skip
"""What is looked for, in the order in which it is told."""


def block_changes(model: ModelReport, baseline: ModelReport) -> list[tuple[str, str, str, str, str]]:
    """Return a row for each block: name, heads, MLP width, storage types, zeros; each ``before → after``."""
    before = {block.path: block for block in baseline.blocks}
    after = {block.path: block for block in model.blocks}
    paths = dict.fromkeys((*before, *after))
    return [_change(path, before.get(path), after.get(path)) for path in paths]


def _change(path: str, before: BlockFigures | None, after: BlockFigures | None) -> tuple[str, str, str, str, str]:
    sides = (before, after)
    return (
        path,
        _arrow(*("none" if side is None else f"{side.num_heads}{TIMES}{side.head_dim}" for side in sides)),
        _arrow(*("none" if side is None else str(side.mlp_width) for side in sides)),
        _arrow(*("none" if side is None else "/".join(side.dtypes) for side in sides)),
        _arrow(
            *("none" if side is None or side.sparsity_pct is None else f"{side.sparsity_pct:.1f} %" for side in sides)
        ),
    )


def _arrow(before: str, after: str) -> str:
    return before if before == after else f"{before} → {after}"
