"""How thoroughly to measure: one frozen object, with presets for a quick look and for figures to publish."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pah_opt.errors import MeasurementError

Batch = int | Literal["best"]
Group = Literal["accuracy", "latency", "throughput", "memory", "energy", "utilization", "extra"]
ALL_GROUPS: frozenset[Group] = frozenset(
    ("accuracy", "latency", "throughput", "memory", "energy", "utilization", "extra")
)


class MeasureSettings(BaseModel):
    """What is measured and for how long. The defaults give figures to publish, :meth:`quick` a look in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    groups: frozenset[Group] = ALL_GROUPS
    """What to measure; parameters, bytes and MACs are always counted."""
    batch_sizes: tuple[Batch, ...] = Field(default=(1, 64), min_length=1)
    """Images in a forward pass; ``best`` searches the batch with the highest throughput for each model."""
    largest_batch: int = Field(default=1024, ge=1)
    """Where the search for the best batch ends."""
    longest_pass_s: float | None = Field(default=None, gt=0)
    """Halve larger batches for every model until a pass of the slowest takes about this long; by default never."""
    warmup_iters: int = Field(default=10, ge=1)
    """Forward passes before timing, at least."""
    warmup_s: float = Field(default=1.0, ge=0)
    """Seconds of warm-up, at least."""
    warmup_limit_s: float = Field(default=30.0, gt=0)
    """Seconds of warm-up (compiling apart), at most; a warm-up that has not settled by then is noted."""
    block_ms: float = Field(default=100.0, gt=0)
    """Timed passes of one model before the next one's turn last about this long."""
    min_rounds: int = Field(default=10, ge=3)
    """Rounds in which all models take turns, at least."""
    max_rounds: int = Field(default=60, ge=3)
    """Rounds, at most."""
    interval_width: float = Field(default=0.02, gt=0)
    """Rounds end when the interval of every speed-up is narrower than this share of it."""
    latency_limit_s: float = Field(default=30.0, gt=0)
    """Seconds of timed passes for one model at one batch size; after it rounds end, three at least."""
    throughput_s: float = Field(default=10.0, gt=0)
    """Seconds back to back for throughput, in slices that take turns between models."""
    throughput_slices: int = Field(default=8, ge=1)
    """Turns into which ``throughput_s`` is cut; an interval needs 8."""
    energy_s: float = Field(default=10.0, gt=0)
    """Seconds of the energy loop."""
    idle_s: float = Field(default=2.0, ge=0)
    """Seconds in which idle power is measured before it."""
    matrix_rate_s: float = Field(default=1.0, gt=0)
    """Seconds in which the device's rate of matrix products is measured, for each type that models compute in."""
    accuracy_batch: int = Field(default=64, ge=1)
    """Images in a forward pass when accuracy is measured."""
    max_images: int | None = Field(default=None, ge=1)
    """Measure accuracy on this many test images, spread evenly; all of them by default."""
    seed: int = 0
    """Seeds inputs and the order of turns."""

    @classmethod
    def quick(cls, **changes: Any) -> MeasureSettings:
        """Settings for a look: a small model takes well under a second, a ViT-B on two cores about a minute."""
        look: dict[str, Any] = {
            "batch_sizes": (1, 32), "longest_pass_s": 0.5, "warmup_iters": 3, "warmup_s": 0.05, "warmup_limit_s": 2.0,
            "block_ms": 10.0, "min_rounds": 8, "max_rounds": 16, "interval_width": 0.05, "latency_limit_s": 2.0,
            "throughput_s": 0.24, "energy_s": 1.0, "idle_s": 0.2, "matrix_rate_s": 0.1,
        }  # fmt: skip
        return cls.of(**{**look, **changes})

    @classmethod
    def of(cls, **values: Any) -> MeasureSettings:
        """Make settings, with mistakes named in words.

        Raises:
            MeasurementError: a name or value is wrong.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, item['loc']))} = {item.get('input')!r}: {item['msg']}" for item in error.errors()
            )
            raise MeasurementError(f"these measuring settings cannot be used: {problems}") from error
