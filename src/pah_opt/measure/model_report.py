"""The report of one model, and of the machine it was measured on."""

from __future__ import annotations

from pydantic import Field, JsonValue

from pah_opt.measure.schema import (
    Accuracy,
    Data,
    Group,
    Memory,
    ModelSize,
    Provenance,
    Timing,
    VsBaseline,
)


class BlockFigures(Data):
    """One transformer block."""

    path: str
    num_heads: int
    head_dim: int
    mlp_width: int
    dtypes: dict[str, int]
    """Linear layers of the block by storage type."""
    sparsity_pct: float | None
    """Share of zeros in its linear weights; null without values."""


class StepFigures(Data):
    """One step of the recipe that made the model, as recorded when it ran."""

    use: str
    config: dict[str, JsonValue] = Field(default_factory=dict)
    achieved: dict[str, JsonValue] = Field(default_factory=dict)
    before: dict[str, JsonValue] = Field(default_factory=dict)
    after: dict[str, JsonValue] = Field(default_factory=dict)
    seconds: float | None = None


class ExtraFigure(Data):
    """A figure that a plugin adds."""

    value: float | None
    reason: str | None
    summary: str
    better: str


class ModelReport(Data):
    """Everything measured of one model."""

    id: str = Field(min_length=1)
    type: str
    """Class of the model."""
    provenance: Provenance
    timings: tuple[Timing, ...]
    memory: Memory
    accuracy: Accuracy
    model: ModelSize
    vs_baseline: VsBaseline
    blocks: tuple[BlockFigures, ...] = ()
    steps: tuple[StepFigures, ...] = ()
    extra: dict[str, ExtraFigure] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def latency_timing(self) -> Timing | None:
        """The timing at the smallest batch, where latency matters."""
        return min(self.timings, key=_batch, default=None)

    @property
    def throughput_timing(self) -> Timing | None:
        """The timing at the largest batch, where throughput matters."""
        return max(self.timings, key=_batch, default=None)


def _batch(timing: Timing) -> int:
    return timing.workload.batch_size or 0


class Env(Group):
    """The machine and the software."""

    device_name: str | None
    device_uuid: str | None
    device_count: int | None
    mig: bool | None
    driver: str | None
    cuda: str | None
    cpu_model: str | None
    threads: int | None
    torch: str | None
    transformers: str | None
    pah_opt: str | None
    plugins: dict[str, str] | None
    sm_clock_mhz_mean: float | None
    throttle_reasons: tuple[str, ...] | None
    other_gpu_processes: int | None
    cpu_count: int | None
    """CPUs this process may use."""
    other_cpu_load: float | None
    """Mean number of CPUs that other processes kept busy meanwhile."""
    contended: bool | None
    """Whether other processes had a share of the device large enough to be seen in timings."""
