"""The whole way: models in, a report out."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

import pah_opt
from pah_opt.data import TensorSplit
from pah_opt.errors import DataError, MeasurementError
from pah_opt.measure import session
from pah_opt.measure.settings import MeasureSettings
from pah_opt.metric import Figure
from pah_opt.recipe import Gate, Recipe, Step
from pah_opt.registry import default_registry
from pah_opt.report import Report, compare, require_gates
from pah_opt.report.baselines import strong_baselines
from pah_opt.report.comparison import measure_model

FAST = MeasureSettings.quick(
    batch_sizes=(1, 4), longest_pass_s=None, warmup_s=0.0, warmup_iters=2, block_ms=1.0, max_rounds=8, throughput_s=0.03
)  # no step down to a smaller batch: a busy machine must not change what these tests find


def only(*groups: Any) -> MeasureSettings:
    return FAST.model_copy(update={"groups": frozenset(groups)})


def vit(**changes: Any) -> nn.Module:
    torch.manual_seed(0)
    shape = {
        "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128, "num_hidden_layers": 2, "image_size": 16,
        "patch_size": 8, "num_labels": 10,
    }  # fmt: skip
    return ViTForImageClassification(ViTConfig(**{**shape, **changes})).eval()


@pytest.fixture(scope="module")
def dense() -> nn.Module:
    return vit()


@pytest.fixture(scope="module")
def images(dense: nn.Module) -> TensorSplit:
    pixels = torch.randn(24, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        labels = dense(pixels).logits.argmax(dim=1)
    return TensorSplit(pixels, labels, tuple("abcdefghij"), "made up")


@pytest.fixture(scope="module")
def zeros(dense: nn.Module) -> nn.Module:
    twin = copy.deepcopy(dense)
    with torch.no_grad():
        twin.vit.layers[0].mlp.fc1.weight.zero_()
    return twin


@pytest.fixture(scope="module")
def full(dense: nn.Module, zeros: nn.Module, images: TensorSplit) -> Report:
    return compare({"dense": dense, "zeros": zeros}, images, settings=FAST, weights_origin="fine-tuned")


def test_every_model_is_measured_at_every_batch(full: Report) -> None:
    assert [model.id for model in full.models] == ["dense", "zeros"]
    for model in full.models:
        assert [timing.workload.batch_size for timing in model.timings] == [1, 4]
        for timing in model.timings:
            assert timing.latency.p50_ms is not None
            assert timing.latency.p50_ms > 0
            assert timing.throughput.images_per_s is not None
            assert timing.latency.method == "wall"
            assert timing.energy.gpu_energy_j is None


def test_accuracy_is_paired_with_the_baseline(full: Report) -> None:
    dense, zeros = full.models
    assert dense.accuracy.top1 == 1.0
    assert dense.accuracy.reasons["top1_delta_pp"] == "this is the baseline"
    assert zeros.accuracy.flips_to_right == 0
    assert zeros.accuracy.top1_delta_pp == pytest.approx(-100 * zeros.accuracy.flips_to_wrong / 24)


def test_sizes_and_ratios_are_there(full: Report) -> None:
    dense, zeros = full.models
    assert dense.model.params == zeros.model.params
    assert zeros.model.sparsity_pct > dense.model.sparsity_pct + 5
    assert zeros.vs_baseline.macs_x == 1.0
    assert zeros.vs_baseline.size_x > 1.05
    assert zeros.vs_baseline.speedup_p50_x is not None
    assert dense.vs_baseline.speedup_p50_x is None


def test_the_rest_of_the_report_is_filled(full: Report, images: TensorSplit) -> None:
    dense = full.baseline
    assert full.complete
    assert full.env.cpu_model
    assert full.settings["batch_sizes"] == [1, 4]
    assert dense.provenance.dataset_revision == images.fingerprint
    assert (dense.provenance.n_images, dense.provenance.weights_origin) == (24, "fine-tuned")
    assert len(dense.blocks) == 2
    assert dense.timings[1].utilization.mfu_pct is not None
    assert dense.memory.host_rss_peak_bytes is not None


def test_it_reads_back_equal_and_renders(full: Report) -> None:
    assert Report.from_json(full.to_json()) == full
    for text in (full.to_text(), full.to_markdown(), full.to_html(), full.to_csv()):
        assert "zeros" in text


def test_models_are_left_as_they_were(dense: nn.Module) -> None:
    model = copy.deepcopy(dense).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    compare({"x": model}, settings=MeasureSettings.quick(groups={"latency"}, batch_sizes=(1,), warmup_s=0))
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_random_weights_have_no_accuracy_and_the_report_says_why(dense: nn.Module, images: TensorSplit) -> None:
    report = compare({"x": dense}, images, settings=only("accuracy"), weights_origin="random")
    assert report.baseline.accuracy.top1 is None
    assert report.baseline.accuracy.reasons["top1"] == "the weights are random, so accuracy would mean nothing"
    assert "random" in report.to_text()


def test_a_model_at_chance_is_said_to_be(dense: nn.Module, images: TensorSplit) -> None:
    wrong = TensorSplit(images.pixel_values, (images.labels + 1) % 10, images.class_names, "out of step")
    report = compare({"x": dense}, wrong, settings=only("accuracy"), weights_origin="fine-tuned")
    assert report.baseline.accuracy.top1 == 0.0
    assert session.AT_CHANCE in report.baseline.notes
    right = compare({"x": dense}, images, settings=only("accuracy"), weights_origin="fine-tuned")
    assert right.baseline.accuracy.top1 == 1.0
    assert session.AT_CHANCE not in right.baseline.notes


def test_what_is_not_asked_for_is_null_and_says_so(dense: nn.Module, images: TensorSplit) -> None:
    report = compare({"x": dense}, images, settings=only("memory"))
    assert report.baseline.timings == ()
    assert report.baseline.accuracy.reasons["top1"] == "not asked for"
    assert report.baseline.memory.weights_bytes is not None


def test_another_baseline_can_be_chosen(dense: nn.Module, zeros: nn.Module, images: TensorSplit) -> None:
    report = compare({"dense": dense, "zeros": zeros}, images, settings=only("accuracy"), baseline="zeros")
    assert [model.id for model in report.models] == ["zeros", "dense"]
    with pytest.raises(MeasurementError, match="no model 'x' to compare with; models: dense, zeros"):
        compare({"dense": dense, "zeros": zeros}, images, settings=FAST, baseline="x")


def test_gates_of_an_artifacts_recipe_are_checked(dense: nn.Module, images: TensorSplit) -> None:
    recipe = Recipe(steps=(Step.of("x"),), gates={"top1_drop_pp": Gate(max=1.0), "size_x": Gate(min=2.0)})
    artifact = SimpleNamespace(model=copy.deepcopy(dense), recipe=recipe, adapter="hf-vit", steps=())
    report = compare({"dense": dense, "same": artifact}, images, settings=only("accuracy", "memory"))
    passed = {gate.metric: gate.passed for gate in report.model("same").vs_baseline.gates}
    assert passed == {"top1_drop_pp": True, "size_x": False}
    assert report.model("same").provenance.recipe_sha256 == recipe.sha256


def test_a_model_without_a_baseline_is_not_held_to_limits_against_one(dense: nn.Module, images: TensorSplit) -> None:
    recipe = Recipe(steps=(Step.of("x"),), gates={"top1_drop_pp": Gate(max=1.0), "top1": Gate(min=0.5)})
    artifact = SimpleNamespace(model=copy.deepcopy(dense), recipe=recipe, adapter="hf-vit", steps=())
    report = measure_model(artifact, images, settings=only("accuracy"))
    gates = {gate.metric: gate for gate in report.baseline.vs_baseline.gates}
    assert {name: gate.passed for name, gate in gates.items()} == {"top1_drop_pp": None, "top1": True}
    assert (
        gates["top1_drop_pp"].message
        == "model: top1_drop_pp is against a baseline, and there is none; the limit is <= 1"
    )
    require_gates(report)


@pytest.mark.parametrize("models", [[1], 1, "dense"])
def test_models_without_names_are_refused(models: Any) -> None:
    with pytest.raises(MeasurementError, match=rf"must come with their names.*got a {type(models).__name__}"):
        compare(models)


def test_the_record_of_an_artifact_is_copied(dense: nn.Module) -> None:
    step = SimpleNamespace(
        use="magnitude-pruning", config={"sparsity": 0.5}, achieved={"sparsity": 0.5}, before={"params": 9},
        after={"params": 9, "macs": 3}, seconds=1.5,
    )  # fmt: skip
    artifact = SimpleNamespace(model=dense, recipe=None, adapter="hf-vit", steps=(step,))
    (copied,) = compare({"x": artifact}, settings=only("memory")).baseline.steps
    assert (copied.use, copied.config, copied.seconds) == ("magnitude-pruning", {"sparsity": 0.5}, 1.5)


def test_images_for_another_head_are_refused(dense: nn.Module) -> None:
    other = TensorSplit(torch.zeros(2, 3, 16, 16), torch.tensor([0, 1]), ("cat", "dog"), "pets")
    with pytest.raises(DataError, match="head has 10 classes, pets has 2"):
        compare({"x": dense}, other, settings=only("accuracy"))


def test_labels_out_of_step_are_refused_before_anything_is_measured(images: TensorSplit) -> None:
    named = vit(id2label=dict(enumerate("abcdefghij")))
    compare({"x": named}, images, settings=only("accuracy"))
    shifted = TensorSplit(torch.zeros(2, 3, 16, 16), torch.tensor([0, 1]), tuple("bcdefghija"), "shifted")
    with pytest.raises(DataError, match="class 'b' is 0 in shifted and 1 in the model's config"):
        compare({"x": named}, shifted, settings=only("latency"))
    with pytest.raises(DataError, match="out of step"):
        compare({"plain": vit(), "x": torch.compile(named)}, shifted, settings=only("latency"))


def test_tensors_without_class_names_take_the_heads(dense: nn.Module, images: TensorSplit) -> None:
    """Also where the last class happens to have no image."""
    pixels, labels = images.pixel_values, images.labels
    keep = labels != labels.max()
    report = compare({"x": dense}, (pixels[keep], labels[keep]), settings=only("accuracy"))
    assert report.baseline.accuracy.top1 == 1.0


def test_one_image_is_measured(dense: nn.Module, images: TensorSplit) -> None:
    twin = copy.deepcopy(dense)
    report = compare({"x": dense, "y": twin}, images.subset([0]), settings=only("accuracy"))
    assert report.model("y").accuracy.top1_ci95_pp == pytest.approx((-79.3, 79.3), abs=0.1)


def test_a_part_of_the_images_is_spread_over_all(dense: nn.Module, images: TensorSplit) -> None:
    report = compare({"x": dense}, images, settings=only("accuracy").model_copy(update={"max_images": 6}))
    assert report.baseline.provenance.n_images == 6


def test_models_of_different_input_sizes_are_paired(images: TensorSplit, dense: nn.Module) -> None:
    smaller = vit(image_size=8)
    report = compare({"dense": dense, "smaller": smaller}, images, settings=only("accuracy"))
    assert report.model("smaller").accuracy.mcnemar_p is not None


def test_ctrl_c_keeps_what_was_measured(dense: nn.Module, images: TensorSplit, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "time_models", interrupted)
    report = compare({"x": dense}, images, settings=FAST)
    assert not report.complete
    assert report.baseline.accuracy.top1 == 1.0
    assert report.baseline.memory.reasons["weights_bytes"] == "interrupted before it was measured"
    assert "the run was interrupted" in " ".join(report.to_text().split())


def test_memory_that_runs_out_for_accuracy_steps_down_and_says_so(
    dense: nn.Module, images: TensorSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = session.predict

    def small_only(*args: Any, batch_size: int, **options: Any) -> Any:
        if batch_size > 16:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*args, batch_size=batch_size, **options)

    monkeypatch.setattr(session, "predict", small_only)
    report = compare({"x": dense}, images, settings=only("accuracy"))
    assert report.baseline.accuracy.top1 == 1.0
    assert "accuracy was measured at batch 16: memory ran out at 32" in report.baseline.notes


def test_plugins_metrics_are_in_the_report(dense: nn.Module) -> None:
    class Metric:
        name, summary, better = "answer_pct", "the answer", "higher"

        def measure(self, model: Any, adapter: Any, test: Any) -> Figure:
            return Figure(42.0)

    registry = default_registry()
    from dataclasses import replace

    with_metric = replace(registry, metrics={"answer_pct": Metric()})
    report = compare({"x": dense}, settings=only("extra"), registry=with_metric)
    assert report.baseline.extra["answer_pct"].value == 42.0


def test_the_package_itself_measures_one_model(dense: nn.Module) -> None:
    report = pah_opt.measure(dense, name="mine", settings=only("memory"))
    assert [model.id for model in report.models] == ["mine"]


def test_each_model_is_held_against_the_matrix_rate_of_its_own_type(dense: nn.Module) -> None:
    models = {"fp32": dense, "bf16": copy.deepcopy(dense).bfloat16()}
    report = compare(models, settings=only("throughput", "utilization"))
    found = {model.id: model.timings[0].utilization.matrix_dtype for model in report.models}
    assert found == {"fp32": "float32", "bf16": "bfloat16"}


def test_a_batch_that_takes_too_long_is_halved_for_everyone_and_that_is_said(dense: nn.Module) -> None:
    slow = only("latency").model_copy(update={"batch_sizes": (1, 64), "longest_pass_s": 1e-5})
    report = compare({"x": dense, "y": copy.deepcopy(dense)}, settings=slow)
    for model in report.models:
        assert [timing.workload.batch_size for timing in model.timings] == [1]
        assert any(note.startswith("measured at batch 1 instead of 64") for note in model.timings[0].notes)


def test_no_models_are_refused() -> None:
    with pytest.raises(MeasurementError, match="there are no models to measure"):
        compare({})


def test_strong_baselines_are_bf16_and_compiled(dense: nn.Module) -> None:
    found = strong_baselines(dense)
    assert list(found) == ["dense bf16", "dense bf16 compiled"]
    assert {parameter.dtype for parameter in found["dense bf16"].parameters()} == {torch.bfloat16}
    assert next(dense.parameters()).dtype == torch.float32
