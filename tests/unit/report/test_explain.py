# Ratios and intervals are written with real signs.
# ruff: noqa: RUF001

from __future__ import annotations

from typing import Any

import pytest

from pah_opt.measure.model_report import StepFigures
from pah_opt.measure.schema import Accuracy, Latency, ModelSize, Workload
from pah_opt.report.explain import block_changes, explain

WHY = "not measured in this test"


def size(**known: Any) -> ModelSize:
    return ModelSize.having(WHY, **{"sparsity_pct": 0.0, "linear_dtypes": {"fp32": 73}, **known})


@pytest.fixture
def words(make_report: Any, make_model: Any) -> Any:
    """What is said of one model beside the dense one."""

    def said(**changes: Any) -> str:
        changes = {"accuracy": Accuracy.having(WHY), **changes}
        return " ".join(explain(make_report(make_model(), make_model("x", baseline="dense", **changes)))["x"])

    return said


def test_zeros_that_do_not_make_it_faster_are_explained(words: Any, versus: Any) -> None:
    said = words(model=size(sparsity_pct=71.4), vs_baseline=versus(1.0, size_x=2.2))
    assert "71 % of its parameters are zero, and dense kernels multiply zeros like any other number" in said
    assert "2.20× smaller" in said
    assert "structured-pruning" in said


@pytest.mark.parametrize("types", [{"2:4": 73}])
def test_zeros_with_kernels_for_them_are_not(types: dict[str, int], words: Any, versus: Any) -> None:
    assert "dense kernels" not in words(model=size(sparsity_pct=50, linear_dtypes=types), vs_baseline=versus(1.0))


def test_what_is_faster_needs_no_excuse(words: Any, versus: Any) -> None:
    assert words(model=size(sparsity_pct=71.4), vs_baseline=versus(1.9)) == ""
    assert words(model=size(linear_dtypes={"int8": 72}), vs_baseline=versus(2.2)) == ""


def test_uncompiled_int8_is_explained(words: Any, versus: Any) -> None:
    said = words(model=size(linear_dtypes={"int8": 72}), vs_baseline=versus(0.7))
    assert "int8 layers run eagerly" in said
    assert "compile step" in said


def test_where_int8_products_are_slow_compiling_is_not_advised(words: Any, versus: Any) -> None:
    step = StepFigures(use="torchao", achieved={"slow_products": "this CPU has no fast int8 products"})
    said = words(model=size(linear_dtypes={"int8": 72}), vs_baseline=versus(0.1), steps=(step,))
    assert "this CPU has no fast int8 products" in said
    assert "eagerly" not in said


def test_compiled_int8_is_not(words: Any, versus: Any, make_timing: Any) -> None:
    compiled = make_timing(1, 20, 50, workload=Workload.having(WHY, batch_size=1, compile_mode="default"))
    said = words(model=size(linear_dtypes={"int8": 72}), vs_baseline=versus(0.7), timings=(compiled,))
    assert "eagerly" not in said


@pytest.mark.parametrize("kind", ["nf4", "int4"])
def test_weights_that_are_unpacked_before_use_are_explained(kind: str, words: Any, versus: Any) -> None:
    said = words(model=size(linear_dtypes={kind: 72, "fp32": 1}), vs_baseline=versus(0.8))
    assert f"Only the weights are {kind}" in said


def test_weight_only_int8_is_told_from_dynamic_by_its_step(words: Any, versus: Any) -> None:
    step = StepFigures(use="torchao", config={"scheme": "int8-weight-only"})
    said = words(model=size(linear_dtypes={"int8": 72}), vs_baseline=versus(0.8), steps=(step,))
    assert "Only the weights are int8" in said
    assert "eagerly" not in said


def test_a_small_batch_that_gains_less_than_a_large_one_is_launch_bound(
    words: Any, versus: Any, make_timing: Any
) -> None:
    latency = Latency.having(WHY, p50_ms=1.0, wall_p50_ms=4.0, method="cuda_event")
    said = words(
        vs_baseline=versus(1.02, 1.9), timings=(make_timing(1, 0, 0, latency=latency), make_timing(64, 90, 700))
    )
    assert "At batch 1 the time goes into starting operations" in said
    assert "wall 4.00 ms, on the device 1.00 ms" in said
    assert "larger batches gain 1.90×. For small batches try CUDA graphs" in said


def test_on_a_cpu_cuda_graphs_are_not_advised(words: Any, versus: Any) -> None:
    said = words(vs_baseline=versus(1.02, 1.9))
    assert "larger batches gain 1.90×. For small batches try a compile step." in said
    assert "CUDA" not in said


def test_large_batches_that_are_slower_too_gain_nothing(words: Any, versus: Any) -> None:
    said = words(vs_baseline=versus(0.2, 0.32))
    assert "much of the time goes into starting operations: 0.20×; larger batches lose less, 0.32×." in said
    assert "gain" not in said


def test_what_is_compiled_on_a_cpu_is_not_told_to_compile(words: Any, versus: Any, make_timing: Any) -> None:
    compiled = Workload.having(WHY, batch_size=1, compile_mode="default")
    said = words(vs_baseline=versus(0.9, 1.5), timings=(make_timing(1, 20, 50, workload=compiled),))
    assert "larger batches gain 1.50×" in said
    assert "try" not in said


def test_misaligned_widths_are_explained(words: Any, versus: Any, make_blocks: Any) -> None:
    said = words(blocks=make_blocks(width=1531), vs_baseline=versus(0.9))
    assert "Widths such as 1531 are not multiples of 8" in said
    assert "Widths" not in words(blocks=make_blocks(width=1536), vs_baseline=versus(0.9))


def test_fewer_macs_than_speed_is_explained(words: Any, versus: Any) -> None:
    assert "2.00× fewer MACs and is 1.30× as fast" in words(vs_baseline=versus(1.3, macs_x=2.0))
    assert "MACs" not in words(vs_baseline=versus(1.9, macs_x=2.0))


def test_half_precision_without_instructions_is_explained(words: Any, versus: Any, make_timing: Any) -> None:
    half = make_timing(1, 30, 30, workload=Workload.having(WHY, batch_size=1, dtype="bfloat16", compile_mode="eager"))
    assert "CPUs without bfloat16 instructions" in words(vs_baseline=versus(0.5), timings=(half,))


def test_a_difference_in_the_noise_is_said_to_be(words: Any, versus: Any) -> None:
    assert "Latency cannot be told from the baseline's: 1.01× (0.99–1.03) covers 1." in words(vs_baseline=versus(1.01))


@pytest.mark.parametrize(("p", "verdict"), [(0.34, "no more than chance explains"), (0.001, "more than chance")])
def test_a_difference_in_accuracy_is_weighed(p: float, verdict: str, words: Any) -> None:
    accuracy = Accuracy.having(
        WHY, top1_delta_pp=-0.2, mcnemar_p=p, flips_to_wrong=7, flips_to_right=3, agreement_with_baseline=0.99
    )
    assert f"7 images became wrong and 3 right: {verdict}" in words(accuracy=accuracy)


def test_identical_answers_are_said_to_be(words: Any) -> None:
    accuracy = Accuracy.having(WHY, top1_delta_pp=0.0, mcnemar_p=1.0, agreement_with_baseline=1.0)
    assert words(accuracy=accuracy) == "It gives the baseline's answer for every image."


def test_layers_that_were_left_alone_are_named_with_the_reason(words: Any) -> None:
    skipped = {f"layer{n}": "sensitive" for n in range(7)}
    said = words(steps=(StepFigures(use="torchao", achieved={"skipped": skipped}),))
    assert "Step 1 (torchao) left alone layer0: sensitive; " in said
    assert said.endswith("and 2 more.")
    quantized = words(steps=(StepFigures(use="torchao", achieved={"left_in_float": {"classifier": "skip"}}),))
    assert "Step 1 (torchao) left alone classifier: skip." in quantized
    listed = words(steps=(StepFigures(use="torchao", achieved={"skipped": ["classifier"]}),))
    assert "left alone classifier." in listed


def test_what_steps_tell_about_themselves_is_passed_on(words: Any) -> None:
    said = words(steps=(StepFigures(use="compile", achieved={"compiled": False, "reason": "no compiler"}),))
    assert said == "Step 1 (compile): no compiler."


def test_blocks_are_shown_before_and_after(make_model: Any, make_blocks: Any) -> None:
    before = make_model(blocks=make_blocks(2))
    after = make_model("x", blocks=make_blocks(1, heads=9, width=1536, dtype="int8", zeros=50.0))
    assert block_changes(after, before) == [
        ("vit.layers.0", "12×64 → 9×64", "3072 → 1536", "fp32 → int8", "0.0 % → 50.0 %"),
        ("vit.layers.1", "12×64 → none", "3072 → none", "fp32 → none", "0.0 % → none"),
    ]  # fmt: skip


def test_nothing_is_said_of_the_baseline(report: Any) -> None:
    assert list(explain(report)) == ["int8"]
