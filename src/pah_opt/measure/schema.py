"""What is reported of one model: groups of figures, validated, JSON all the way down.

Every field is always there. A figure that cannot be had is ``null``, never 0, and ``reasons`` of its group says why;
a null without a reason, or a reason for a figure that is there, is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from typing_extensions import Self

Pair = tuple[float, float]


class Data(BaseModel):
    """Base of everything in a report: frozen, unknown keys refused, NaN and infinity refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Group(Data):
    """A group of figures, each of them a value or null with a reason."""

    reasons: dict[str, str] = Field(default_factory=dict)
    """Why a figure of this group is null, by its name."""

    @classmethod
    def figures(cls) -> tuple[str, ...]:
        """Return the names of the figures in this group: the fields without a default."""
        return tuple(name for name, field in cls.model_fields.items() if field.is_required())

    @classmethod
    def having(cls, reason: str | None = None, reasons: dict[str, str] | None = None, **known: Any) -> Self:
        """Make a group from what is known; every other figure is null for its own reason or for ``reason``."""
        reasons = dict(reasons or {})
        values = {name: known.pop(name, None) for name in cls.figures()}
        if reason is not None:
            missing = (name for name, value in values.items() if value is None)
            reasons = {**dict.fromkeys(missing, reason), **reasons}
        reasons = {name: text for name, text in reasons.items() if values.get(name) is None}
        return cls(**values, **known, reasons=reasons)

    @model_validator(mode="after")
    def _null_has_a_reason(self) -> Group:
        missing = {name for name in type(self).figures() if getattr(self, name) is None}
        if unexplained := sorted(missing - set(self.reasons)):
            raise ValueError(f"{', '.join(unexplained)} null without a reason in 'reasons'")
        if idle := sorted(set(self.reasons) - missing):
            raise ValueError(f"'reasons' explains {', '.join(idle)}, which is not null")
        return self


class Provenance(Group):
    """Where the model and the images come from."""

    recipe_sha256: str | None
    """Hash of the recipe that made the model."""
    weights_sha256: str | None
    """Hash of all tensors of the model."""
    weights_origin: str | None
    """``pretrained``, ``fine-tuned`` or ``random``."""
    dataset_revision: str | None
    """Fingerprint of the images, their order, labels and preprocessing."""
    split: str | None
    """Where the images come from."""
    n_images: int | None
    """How many images accuracy was measured on."""
    seed: int | None
    """The recipe's seed."""
    git_commit: str | None
    """Commit of the working directory's repository."""


class Workload(Group):
    """What was run for the timings beside it."""

    batch_size: int | None
    input_shape: tuple[int, ...] | None
    """Shape of one input, batch first."""
    dtype: str | None
    """Type of the pixels that go in."""
    compile_mode: str | None
    """``eager``, or the mode of ``torch.compile``."""
    cuda_graphs: bool | None
    tf32: bool | None
    """Whether fp32 matrix products may run in TF32."""
    warmup_iters: int | None
    """Forward passes before timing, the first one included."""
    iters: int | None
    """Timed forward passes in a round."""
    rounds: int | None
    """Rounds in which this model and its baseline took turns."""


class Latency(Group):
    """How long one forward pass takes."""

    mean_ms: float | None
    std_ms: float | None
    min_ms: float | None
    p50_ms: float | None
    p90_ms: float | None
    """From 100 samples on."""
    p95_ms: float | None
    """From 200 samples on."""
    p99_ms: float | None
    """From 1,000 samples on."""
    max_ms: float | None
    iqr_ms: float | None
    n: int | None
    method: str | None
    """``cuda_event`` (device time) or ``wall``."""
    wall_p50_ms: float | None
    """Median wall time with a synchronise after each pass: host overhead included."""
    compile_s: float | None
    """Time the first call spent compiling."""
    first_call_ms: float | None
    samples_ms: tuple[float, ...] | None
    """At most 500 of the samples, evenly thinned, for plots."""


class Throughput(Group):
    """Images a second, back to back."""

    images_per_s: float | None
    duration_s: float | None
    images: int | None


class Memory(Group):
    """What the model needs."""

    weights_bytes: int | None
    """All tensors of the model in memory: parameters, buffers, quantization scales."""
    peak_allocated_bytes: int | None
    """CUDA: most bytes in tensors during a forward pass, this model's weights included."""
    peak_reserved_bytes: int | None
    """CUDA: most bytes that torch's allocator held during a forward pass."""
    process_vram_bytes: int | None
    """CUDA: what the driver says this process uses, context and all."""
    host_rss_peak_bytes: int | None
    """Most resident memory of the whole process during a forward pass."""
    artifact_bytes: int | None
    """What a saved file of the tensors holds."""


class Energy(Group):
    """What a forward pass costs in energy."""

    gpu_energy_j: float | None
    j_per_image: float | None
    images_per_j: float | None
    mean_power_w: float | None
    idle_power_w: float | None
    """Measured before; not subtracted."""
    duration_s: float | None
    source: str | None
    """``nvml_total_energy`` or ``nvml_power_integrated``."""
    window_ok: bool | None
    """Whether the window was long enough for the counter."""


class Utilization(Group):
    """How busy the device was."""

    gpu_pct_mean: float | None
    mem_pct_mean: float | None
    samples: int | None
    period_ms: float | None
    mfu_pct: float | None
    """FLOP/s of the model over the matrix rate of the device, measured in the same run."""
    matrix_tflops: float | None
    """That matrix rate, in TFLOP/s."""
    matrix_dtype: str | None
    """The type it was measured in."""


class Ratio(Group):
    """A model against its baseline at one batch size, from rounds in which they took turns."""

    speedup_p50_x: float | None
    """Baseline's latency over this model's: median over rounds."""
    speedup_ci95_x: Pair | None
    """Interval of that median."""
    throughput_x: float | None
    """This model's images a second over the baseline's: median over rounds."""
    throughput_ci95_x: Pair | None
    energy_x: float | None
    """Baseline's joules an image over this model's."""


class Timing(Data):
    """Everything measured at one batch size."""

    workload: Workload
    latency: Latency
    throughput: Throughput
    energy: Energy
    utilization: Utilization
    ratio: Ratio
    notes: tuple[str, ...] = ()
    """What a reader must know: steps down after running out of memory, warm-up that never settled."""


class Accuracy(Group):
    """How often the model is right, on images it was never trained on."""

    top1: float | None
    """Share of images classified correctly, 0 to 1."""
    top5: float | None
    top1_delta_pp: float | None
    """Against the baseline, in percentage points; negative is a loss."""
    top1_ci95_pp: Pair | None
    """95 % score interval of that difference, from the images on which the two differ; never [0, 0]."""
    flips_to_wrong: int | None
    flips_to_right: int | None
    mcnemar_p: float | None
    agreement_with_baseline: float | None
    nll: float | None
    ece: float | None


class ModelSize(Group):
    """What the model is made of."""

    params: int | None
    params_nonzero: int | None
    sparsity_pct: float | None
    macs: int | None
    """For one image."""
    flops: int | None
    flops_method: str | None
    linear_dtypes: dict[str, int] | None
    """Linear layers by the type their weight is stored in."""


class GateResult(Data):
    """One limit and what became of it."""

    metric: str
    limit: str
    """Such as ``<= 1.0``."""
    value: float | None
    passed: bool | None
    """None where it was not checked: a limit against a baseline, of a model that was measured without one."""
    message: str

    @property
    def verdict(self) -> Literal["passed", "failed", "not checked"]:
        """What became of it, in words."""
        return "not checked" if self.passed is None else "passed" if self.passed else "failed"

    @property
    def shown(self) -> str:
        """The verdict for plain text, where a failure has no colour to stand out by."""
        return "FAILED" if self.verdict == "failed" else self.verdict


class VsBaseline(Group):
    """The model against the baseline in one line: latency at the smallest batch, throughput at the largest."""

    baseline_id: str | None
    speedup_p50_x: float | None
    speedup_ci95_x: Pair | None
    throughput_x: float | None
    size_x: float | None
    """Baseline's file over this model's."""
    energy_x: float | None
    params_x: float | None
    macs_x: float | None
    gates: tuple[GateResult, ...] = ()
