"""Memory, matrix rate, environment, provenance, blocks, plugins' metrics, compile modes."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import pah_opt
from pah_opt.errors import ArtifactError
from pah_opt.measure import environment, memory, provenance
from pah_opt.measure.blocks import block_map
from pah_opt.measure.candidate import Candidate
from pah_opt.measure.compiled import compile_mode, uses_cuda_graphs
from pah_opt.measure.environment import CpuWatch, cpu_model, describe
from pah_opt.measure.extra import extra_figures
from pah_opt.measure.memory import measure_memory
from pah_opt.measure.nvml import Gpu, Reading
from pah_opt.measure.sampling import Samples
from pah_opt.measure.tensors import tensor_bytes
from pah_opt.measure.utilization import matrix_rate, utilization
from pah_opt.metric import Figure
from pah_opt.registry import default_registry
from pah_opt.testing import tiny_data, tiny_vit

CPU = torch.device("cpu")
NO_GPU: Reading[Gpu] = Reading(None, "the model is on the cpu")


class TestMemory:
    def test_on_the_cpu_device_figures_are_null_with_the_reason(self, candidate: Candidate) -> None:
        found = measure_memory(candidate.model, candidate.call(1), CPU, NO_GPU)
        assert found.weights_bytes == tensor_bytes(candidate.model)
        assert (found.peak_allocated_bytes, found.process_vram_bytes) == (None, None)
        assert found.reasons["peak_allocated_bytes"] == "the model is not on a CUDA device"
        assert found.artifact_bytes is not None
        assert 0 < found.artifact_bytes <= 1.1 * tensor_bytes(candidate.model)

    def test_host_peak_sees_what_a_pass_needs(self, candidate: Candidate) -> None:
        def needs_64_mb() -> None:
            torch.ones(16 * 2**20)

        quiet = measure_memory(candidate.model, lambda: None, CPU, NO_GPU).host_rss_peak_bytes
        hungry = measure_memory(candidate.model, needs_64_mb, CPU, NO_GPU).host_rss_peak_bytes
        assert quiet is not None
        assert hungry is not None
        assert hungry - quiet > 50 * 2**20

    def test_where_the_peak_cannot_be_reset_the_whole_process_is_reported(
        self, candidate: Candidate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refused(*_: Any, **__: Any) -> int:
            raise PermissionError

        monkeypatch.setattr(Path, "write_text", refused)
        assert memory._host_peak(lambda: None).value is not None

    def test_a_model_that_cannot_be_saved_has_a_reason(
        self, candidate: Candidate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import pah_opt.storage.size

        def cannot(model: nn.Module) -> int:
            raise ArtifactError("a Foo tensor cannot be stored")

        monkeypatch.setattr(pah_opt.storage.size, "stored_bytes", cannot)
        found = measure_memory(candidate.model, candidate.call(1), CPU, NO_GPU)
        assert found.artifact_bytes is None
        assert found.reasons["artifact_bytes"] == "the model cannot be saved: a Foo tensor cannot be stored"

    def test_cuda_peaks_leave_other_models_out(
        self, candidate: Candidate, recorded_nvml: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """1,000 bytes are there already, of this model and of others; the pass adds 300."""
        answers = {
            "memory_allocated": 1000, "memory_reserved": 2000,
            "max_memory_allocated": 1300, "max_memory_reserved": 2600,
        }  # fmt: skip
        for name, value in answers.items():
            monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
        for name in ("synchronize", "reset_peak_memory_stats"):
            monkeypatch.setattr(torch.cuda, name, lambda device: None)
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
        found = measure_memory(
            candidate.model, candidate.call(1), torch.device("cuda"), Reading(Gpu(recorded_nvml(), "GPU-0"))
        )
        weights = tensor_bytes(candidate.model)
        assert (found.peak_allocated_bytes, found.peak_reserved_bytes) == (weights + 300, weights + 600)
        assert found.process_vram_bytes == 3_221_225_472


class TestUtilization:
    def test_the_matrix_rate_is_plausible(self) -> None:
        rate = matrix_rate(CPU, torch.float32, seconds=0.05, size=256)
        assert 1e8 < rate < 1e14

    def test_the_rate_is_operations_over_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from pah_opt.measure.timer import WallTimer

        monkeypatch.setattr(WallTimer, "wall_ms", lambda self, call, iterations=1: (2.0,) * iterations)
        assert matrix_rate(CPU, torch.float32, seconds=0.001, size=100) == pytest.approx(2 * 100**3 / 2e-3)

    @pytest.mark.parametrize(("probe_ms", "size"), [(1.0, 1536), (15.0, 1536), (100.0, 768), (300.0, 384)])
    def test_products_of_an_emulated_type_are_made_smaller(
        self, probe_ms: float, size: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from pah_opt.measure import utilization as module
        from pah_opt.measure.timer import WallTimer

        monkeypatch.setattr(
            WallTimer, "wall_ms", lambda self, call, iterations=1: (999.0, *(probe_ms,) * (iterations - 1))
        )
        monkeypatch.setattr(module, "_product", lambda size, device, dtype: None)
        assert module._quick_enough(1536, CPU, torch.bfloat16) == size

    def test_mfu_is_the_models_share_of_that_rate(self) -> None:
        found = utilization(35_000_000_000, 100.0, (7e12, torch.bfloat16), Reading(None, "on the cpu"))
        assert found.mfu_pct == pytest.approx(50.0)
        assert (found.matrix_tflops, found.matrix_dtype) == (7.0, "bfloat16")
        assert found.reasons["gpu_pct_mean"] == "on the cpu"

    def test_more_than_the_rate_is_no_share_of_it(self) -> None:
        found = utilization(35_000_000_000, 210.0, (7e12, torch.float32), Reading(None, "on the cpu"))
        assert found.mfu_pct is None
        assert "105 % of the rate of torch.float32 products" in found.reasons["mfu_pct"]

    def test_without_throughput_there_is_no_mfu(self) -> None:
        found = utilization(35, None, (7e12, torch.bfloat16), Reading(None, "on the cpu"))
        assert found.mfu_pct is None
        assert "needs the throughput" in found.reasons["mfu_pct"]

    def test_samples_are_averaged(self) -> None:
        samples = Samples(moments=[0.0, 0.1, 0.2], gpu_pct=[90, 100], mem_pct=[40, 60], count=3)
        found = utilization(None, None, None, Reading(samples))
        assert (found.gpu_pct_mean, found.mem_pct_mean, found.samples) == (95.0, 50.0, 3)
        assert found.period_ms == pytest.approx(100.0)


class TestEnvironment:
    def test_the_cpu_is_described(self) -> None:
        found = describe(CPU, NO_GPU, plugins={"torchao": "0.1"})
        assert found.cpu_model == cpu_model() == found.device_name
        assert found.threads == torch.get_num_threads()
        assert found.torch == torch.__version__
        assert found.reasons["driver"] == "the model is on the cpu"
        assert found.contended is None

    def test_own_work_is_no_contention(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seconds = iter((10.0, 11.5))
        own = iter((3.0, 4.2))
        clock = iter((100.0, 101.0))
        monkeypatch.setattr(environment, "_busy_cpu_s", lambda: next(seconds))
        monkeypatch.setattr(environment, "_own_cpu_s", lambda: next(own))
        monkeypatch.setattr(environment.time, "perf_counter", lambda: next(clock))
        assert CpuWatch().other_load().value == pytest.approx(0.3)

    @pytest.mark.parametrize(("load", "contended"), [(0.0, False), (1.0, True)])
    def test_contention_is_marked(self, load: float, contended: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        watch = SimpleNamespace(other_load=lambda: Reading(load))
        monkeypatch.setattr(environment, "cpu_count", lambda: 2)
        found = describe(CPU, NO_GPU, plugins={}, watch=watch)  # type: ignore[arg-type]
        assert (found.other_cpu_load, found.contended) == (load, contended)

    def test_without_proc_there_is_a_reason(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(environment, "_busy_cpu_s", lambda: None)
        assert CpuWatch().other_load() == Reading(None, "this system has no /proc/stat")


class TestProvenance:
    def test_weights_are_hashed_by_value_name_and_type(self, model: nn.Module) -> None:
        base = provenance.weights_sha256(model)
        assert provenance.weights_sha256(copy.deepcopy(model)) == base
        changed = copy.deepcopy(model)
        with torch.no_grad():
            changed.classifier.bias[0] += 1
        assert provenance.weights_sha256(changed) != base
        assert provenance.weights_sha256(copy.deepcopy(model).bfloat16()) != base

    def test_quantized_weights_are_hashed(self, model: nn.Module) -> None:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        quantize_(model, Int8WeightOnlyConfig(version=2))
        assert len(provenance.weights_sha256(model)) == 64

    def test_an_artifacts_origin_wins_over_what_the_caller_says(self, candidate: Candidate) -> None:
        assert provenance.origin_of(candidate, "pretrained") == "pretrained"
        candidate.artifact = SimpleNamespace(weights_origin="random")
        assert provenance.origin_of(candidate, "pretrained") == "random"
        candidate.artifact = SimpleNamespace(weights_origin="unknown")
        assert provenance.origin_of(candidate, "pretrained") == "pretrained"

    def test_outside_a_repository_there_is_a_reason(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(tmp_path)
        provenance.git_commit.cache_clear()
        assert provenance.git_commit().reason == "the working directory is in no git repository"
        monkeypatch.setattr(provenance.shutil, "which", lambda name: None)
        provenance.git_commit.cache_clear()
        assert provenance.git_commit().reason == "git is not installed"
        provenance.git_commit.cache_clear()


class TestBlocks:
    def test_every_block_is_described(self, candidate: Candidate) -> None:
        first, second = block_map(candidate.model, candidate.layout)
        assert (first.num_heads, first.head_dim, first.mlp_width) == (4, 16, 128)
        assert first.dtypes == {"fp32": 6}
        assert first.path.endswith("0")
        assert second.path.endswith("1")

    def test_zeros_are_counted_block_by_block(self, candidate: Candidate) -> None:
        assert candidate.layout is not None
        with torch.no_grad():
            candidate.model.get_submodule(candidate.layout.blocks[1].mlp.fc1).weight.zero_()
        first, second = block_map(candidate.model, candidate.layout)
        assert first.sparsity_pct == 0.0
        assert second.sparsity_pct == pytest.approx(100 * 64 * 128 / (4 * 64 * 64 + 2 * 64 * 128))

    def test_storage_types_are_counted(self, candidate: Candidate) -> None:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        quantize_(candidate.model.vit.layers[0], Int8WeightOnlyConfig(version=2))
        assert [block.dtypes for block in block_map(candidate.model, candidate.layout)] == [{"int8": 6}, {"fp32": 6}]

    def test_a_model_without_blocks_has_no_map(self, model: nn.Module) -> None:
        assert block_map(model, None) == ()


class AMetric:
    """A plugin's metric that answers, or fails, as told."""

    name, summary, better = "robust_pct", "robustness", "higher"

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def measure(self, model: Any, adapter: Any, test: Any) -> Figure:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "value", "reason"),
    [
        (Figure(71.5), 71.5, None),
        (Figure(None, "no images"), None, "no images"),
        (Figure(None), None, "the metric gave no value and no reason"),
        (Figure(float("nan")), None, "the metric gave nan"),
        (ZeroDivisionError("kaput"), None, "ZeroDivisionError: kaput"),
        ("seven", None, "ValueError"),
    ],
)
def test_a_metric_of_a_plugin_gives_a_figure_or_a_reason(
    answer: Any, value: float | None, reason: str | None, candidate: Candidate
) -> None:
    found = extra_figures({"robust_pct": AMetric(answer)}, candidate, None)["robust_pct"]  # type: ignore[dict-item]
    assert found.value == value
    assert (found.reason is None) == (reason is None)
    assert reason is None or reason in (found.reason or "")


def test_a_metric_gets_images_of_each_models_own_size() -> None:
    """DINOv2 takes any size without a word: a smaller model would be judged on images that it never gets."""
    seen: list[int] = []

    class Width:
        name, summary, better = "width_px", "Width of the images it got.", "lower"

        def measure(self, model: Any, adapter: Any, test: Any) -> Figure:
            seen.append(next(test.batches(1)).pixel_values.shape[-1])
            return Figure(0.0)

    made = pah_opt.apply(tiny_vit(), pah_opt.Recipe(steps=[pah_opt.Step.of("input-size", size=16)]))
    for each in (tiny_vit(), made):
        metrics: Any = {"width_px": Width()}
        extra_figures(metrics, Candidate.of("m", each, default_registry().adapters), tiny_data().test)
    assert seen == [32, 16]


@pytest.mark.parametrize("mode", ["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"])
def test_compile_modes_are_recognised(mode: str, model: nn.Module) -> None:
    compiled = torch.compile(model, mode=mode)
    assert compile_mode(compiled) == mode
    assert uses_cuda_graphs(compiled) == (mode in ("reduce-overhead", "max-autotune"))
    in_place = copy.deepcopy(model)
    in_place.vit.layers[0].compile(mode=mode)
    assert compile_mode(in_place) == mode


def test_an_eager_model_is_said_to_be(model: nn.Module) -> None:
    assert compile_mode(model) == "eager"
    assert not uses_cuda_graphs(model)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["default", "max-autotune-no-cudagraphs"])
def test_what_the_compile_step_makes_is_recognised(mode: str, model: nn.Module) -> None:
    step = pah_opt.Step.of("compile", mode=mode)
    artifact = pah_opt.apply(model, pah_opt.Recipe(steps=(step,)))
    assert compile_mode(artifact.model) == mode
    assert compile_mode(model) == "eager"
