"""Reports made by hand, so that every figure in a rendering is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pah_opt.measure.model_report import BlockFigures, Env, ModelReport
from pah_opt.measure.schema import (
    Accuracy,
    Energy,
    Latency,
    Memory,
    ModelSize,
    Provenance,
    Ratio,
    Throughput,
    Timing,
    Utilization,
    VsBaseline,
    Workload,
)
from pah_opt.report import Report

WHY = "not measured in this test"
MakeModel = Callable[..., ModelReport]
MakeReport = Callable[..., Report]


def timing(batch: int, p50: float, rate: float, **groups: Any) -> Timing:
    """One batch size: latency in ms and throughput in images/s."""
    made = {
        "workload": Workload.having(WHY, batch_size=batch, compile_mode="eager", dtype="float32"),
        "latency": Latency.having(WHY, p50_ms=p50, wall_p50_ms=p50, method="wall", samples_ms=(p50, 1.1 * p50)),
        "throughput": Throughput.having(WHY, images_per_s=rate), "energy": Energy.having(WHY),
        "utilization": Utilization.having(WHY), "ratio": Ratio.having(WHY),
    }  # fmt: skip
    return Timing(**{**made, **groups})


def blocks(count: int = 2, *, heads: int = 12, width: int = 3072, dtype: str = "fp32", zeros: float = 0.0) -> Any:
    return tuple(
        BlockFigures(
            path=f"vit.layers.{number}", num_heads=heads, head_dim=64, mlp_width=width, dtypes={dtype: 6},
            sparsity_pct=zeros,
        )
        for number in range(count)
    )  # fmt: skip


def a_model(name: str = "dense", *, baseline: str | None = None, **changes: Any) -> ModelReport:
    """A model report; keyword arguments replace whole groups."""
    versus: dict[str, Any] = {"baseline_id": baseline or name}
    groups: dict[str, Any] = {
        "type": "ViTForImageClassification",
        "provenance": Provenance.having(WHY, weights_origin="fine-tuned", split="cifar10:test", n_images=2000,
                                        dataset_revision="abc"),
        "timings": (timing(1, 20.0, 50.0), timing(32, 500.0, 64.0)),
        "memory": Memory.having(WHY, artifact_bytes=343_000_000, weights_bytes=344_000_000),
        "accuracy": Accuracy.having(WHY, top1=0.97, nll=0.1, ece=0.01),
        "model": ModelSize.having(WHY, params=86_000_000, macs=17_600_000_000, sparsity_pct=0.0,
                                  linear_dtypes={"fp32": 73}),
        "vs_baseline": VsBaseline.having(WHY, **versus), "blocks": blocks(),
    }  # fmt: skip
    return ModelReport(id=name, **{**groups, **changes})


def against(speedup: float, throughput: float | None = None, **known: Any) -> VsBaseline:
    return VsBaseline.having(
        WHY, baseline_id="dense", speedup_p50_x=speedup, speedup_ci95_x=(speedup * 0.98, speedup * 1.02),
        throughput_x=throughput or speedup, **known,
    )  # fmt: skip


def env(**changes: Any) -> Env:
    known = {"device_name": "AMD EPYC", "cpu_model": "AMD EPYC", "threads": 2, "torch": "2.13.0", "contended": False}
    return Env.having(WHY, **{**known, **changes})


def a_report(*models: ModelReport, **changes: Any) -> Report:
    models = models or (
        a_model(),
        a_model("int8", baseline="dense", vs_baseline=against(2.0, size_x=3.9, params_x=1.0, macs_x=1.0),
                accuracy=Accuracy.having(WHY, top1=0.968, top1_delta_pp=-0.2, top1_ci95_pp=(-0.5, 0.1),
                                         flips_to_wrong=7, flips_to_right=3, mcnemar_p=0.34,
                                         agreement_with_baseline=0.99),
                memory=Memory.having(WHY, artifact_bytes=88_000_000, weights_bytes=89_000_000),
                timings=(timing(1, 10.0, 100.0), timing(32, 250.0, 128.0)),
                blocks=blocks(dtype="int8")),
    )  # fmt: skip
    return Report(**{"env": env(), "baseline_id": models[0].id, "models": models, **changes})


@pytest.fixture(scope="session")
def make_model() -> MakeModel:
    return a_model


@pytest.fixture(scope="session")
def make_report() -> MakeReport:
    return a_report


@pytest.fixture(scope="session")
def make_timing() -> Callable[..., Timing]:
    return timing


@pytest.fixture(scope="session")
def make_blocks() -> Callable[..., Any]:
    return blocks


@pytest.fixture(scope="session")
def versus() -> Callable[..., VsBaseline]:
    return against


@pytest.fixture(scope="session")
def make_env() -> Callable[..., Env]:
    return env


@pytest.fixture
def report() -> Report:
    return a_report()
