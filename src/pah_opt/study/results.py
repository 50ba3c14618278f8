"""What came out of a study: plain data, written to ``study.json``; every table and sentence is rendered from it."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from pah_opt.study.schema import DENSE, Row, Study

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Pair = tuple[float, float]


class Data(BaseModel):
    """Base of all results: frozen, unknown keys refused, finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Figures(Data):
    """What was measured of one model; None where a figure cannot be had or means nothing."""

    top1: float | None = None
    """Share of test images classified correctly, 0 to 1."""
    top1_drop_pp: float | None = None
    """Top-1 lost against the dense model on the same images, percentage points."""
    mcnemar_p: float | None = None
    """How likely so large a difference is by chance (McNemar's test)."""
    file_bytes: float | None = None
    """Bytes of the saved file."""
    file_without_masks_bytes: float | None = None
    """``masked-pruning``: bytes after the masks were made permanent."""
    size_x: float | None = None
    """Dense file over this file."""
    params: float | None = None
    sparsity_pct: float | None = None
    """Share of zeros among all parameters, percent."""
    macs: float | None = None
    """Multiply-accumulates of one image."""
    latency_ms: float | None = None
    """Median time of the smallest batch."""
    latency_batch: float | None = None
    dense_latency_ms: float | None = None
    """The dense model's, measured in turns with this one."""
    speedup_x: float | None = None
    """Dense latency over this latency, in turns on the same machine."""
    speedup_low_x: float | None = None
    """Lower end of the 95 % interval of that ratio; None with too few rounds for one."""
    speedup_high_x: float | None = None
    """Upper end."""
    images_per_s: float | None = None
    """Throughput at the largest batch."""
    throughput_batch: float | None = None
    dense_images_per_s: float | None = None
    """The dense model's, measured in turns with this one."""
    throughput_x: float | None = None
    j_per_image: float | None = None
    energy_x: float | None = None
    made_s: float | None = None
    """Seconds it took to make."""


FIGURES: tuple[str, ...] = tuple(Figures.model_fields)
"""Names that limits may use."""


class AdaptationResult(Data):
    """One adaptation with one seed."""

    name: str
    seed: int
    mode: str = ""
    top1: float | None = None
    validation_top1: float | None = None
    """On images cut from the training images; what the base is chosen by."""
    seconds: float | None = None
    params: int | None = None
    trained_params: int | None = None
    weights_bytes: int | None = None
    losses: tuple[float, ...] = ()
    """Loss over training, evenly thinned."""
    train_accuracy: tuple[float, ...] = ()
    """Share of training images classified correctly in each epoch, as seen while training, 0 to 1."""
    validation_accuracy: tuple[float, ...] = ()
    """The same of the validation images after each epoch; empty without any."""
    curves: str | None = None
    """Path of the picture of both, within the study's folder; None where it could not be drawn."""
    weights_sha256: str | None = None
    stopped: str | None = None
    """Why training ended before its time; None when it did not."""
    error: str | None = None
    """Why it failed."""


class RowResult(Data):
    """One row on one base with one seed."""

    name: str
    base: str
    seed: int
    figures: Figures = Figures()
    collapsed: bool = False
    """Its accuracy cannot be told from guessing."""
    linear_dtypes: dict[str, int] = Field(default_factory=dict)
    """Linear layers by the type their weight is stored in."""
    notes: tuple[str, ...] = ()
    """What was warned of while it was made."""
    error: str | None = None
    """Why it failed."""
    unavailable: str | None = None
    """Why it cannot run on this machine: hardware or a library is missing, which is no failure."""


class Conditions(Data):
    """Where and how it was measured."""

    model: str
    data: str
    train_images: int
    test_images: int
    class_names: tuple[str, ...]
    device: str
    threads: int
    versions: dict[str, str]
    measured_utc: str
    contended: bool = False
    """Whether other processes used the machine meanwhile."""
    notes: tuple[str, ...] = ()


class StudyResult(Data):
    """A whole study: what was asked, and what came of it."""

    study: Study
    conditions: Conditions
    adaptations: tuple[AdaptationResult, ...]
    base: str | None
    """The adaptation that was chosen to go on with."""
    rows: tuple[RowResult, ...]
    computed: int = 0
    """Cells that this run computed; the others were there."""
    complete: bool = True
    """False when it was interrupted, or rows were left out."""

    def to_data(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return self.model_dump(mode="json", by_alias=True)

    @property
    def failures(self) -> dict[str, str]:
        """Why cells failed, by their names."""
        found = {f"{each.name}, seed {each.seed}": each.error for each in self.adaptations}
        found |= {f"{each.name} on {each.base}, seed {each.seed}": each.error for each in self.rows}
        return {name: error for name, error in found.items() if error is not None}

    @property
    def unavailable(self) -> dict[str, str]:
        """Why rows cannot run on this machine, by their names."""
        return {each.name: each.unavailable for each in self.rows if each.unavailable is not None}

    def lines(self, base: str | None = None) -> tuple[Line, ...]:
        """Return one line for each row that ran on a base (the chosen one by default), the dense model first."""
        base = base or self.base or ""
        known = {row.name: row for row in self.study.rows()}
        names = [DENSE, *known]
        grouped = {name: [r for r in self.rows if r.name == name and r.base == base] for name in names}
        seeds = len(self.study.seeds)
        lines = [Line.of(known.get(name), found, seeds) for name, found in grouped.items() if found]
        return tuple(line if line.row is not None else line.as_seen_beside(lines) for line in lines)

    def line(self, name: str, base: str | None = None) -> Line | None:
        """Return the line of one row, or None where it did not run."""
        return next((line for line in self.lines(base) if line.name == name), None)


class Line(Data):
    """One row over all seeds: mean figures."""

    name: str
    row: Row | None
    """None for the dense model."""
    figures: Figures
    top1_spread_pp: float | None
    """Highest less lowest top-1 over seeds, percentage points; None with one seed."""
    collapsed: bool
    linear_dtypes: dict[str, int]
    notes: tuple[str, ...]
    error: str | None
    unavailable: str | None = None
    """Why it cannot run on this machine."""
    seeds_missing: int = 0
    """Seeds that are no part of its means: it failed with them, or was left out."""

    @classmethod
    def of(cls, row: Row | None, results: Sequence[RowResult], seeds: int = 1) -> Line:
        """Take the mean over seeds; of speeds and ratios the geometric one.

        Args:
            row: what was asked for; None for the dense model.
            results: of the seeds that ran or failed.
            seeds: how many there are in the study.
        """
        ran = [each for each in results if each.error is None and each.unavailable is None]
        tops = [each.figures.top1 for each in ran if each.figures.top1 is not None]
        return cls(
            name=results[0].name,
            row=row,
            figures=Figures(**{name: _mean(name, [getattr(each.figures, name) for each in ran]) for name in FIGURES}),
            top1_spread_pp=100.0 * (max(tops) - min(tops)) if len(tops) > 1 else None,
            collapsed=any(each.collapsed for each in ran),
            linear_dtypes=ran[0].linear_dtypes if ran else {},
            notes=tuple(dict.fromkeys(note for each in ran for note in each.notes)),
            error=None if ran else next((each.error for each in results if each.error is not None), None),
            unavailable=None if ran else results[0].unavailable,
            seeds_missing=seeds - len(ran) if ran else 0,
        )

    def as_seen_beside(self, lines: Sequence[Line]) -> Line:
        """Return the dense model's line with the median of its speeds beside every row: machines drift over hours."""
        changes: dict[str, float] = {}
        for own, beside, batch in (
            ("latency_ms", "dense_latency_ms", "latency_batch"),
            ("images_per_s", "dense_images_per_s", "throughput_batch"),
        ):
            alike = [line for line in lines if getattr(line.figures, batch) == getattr(self.figures, batch)]
            seen = [value for line in alike if (value := getattr(line.figures, beside)) is not None]
            changes |= {own: statistics.median(seen)} if seen else {}
        return self.model_copy(update={"figures": self.figures.model_copy(update=changes)})

    @property
    def real_speedup(self) -> float | None:
        """The speed-up, or 1 where its interval is unknown or covers 1: a difference that noise may explain is none."""
        low, high = self.figures.speedup_low_x, self.figures.speedup_high_x
        if self.figures.speedup_x is None:
            return None
        return 1.0 if low is None or high is None or low <= 1.0 <= high else self.figures.speedup_x

    @property
    def ran(self) -> bool:
        """Whether it has figures."""
        return self.error is None and self.unavailable is None

    @property
    def is_naive(self) -> bool:
        """Whether it shows how not to do it."""
        return self.row is not None and self.row.version == "V1"


def _mean(name: str, values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    if name == "mcnemar_p":
        return min(1.0, min(known) * len(known))  # Bonferroni's: it holds however alike the seeds are
    if name.endswith("_x") and min(known) > 0:
        return math.exp(sum(map(math.log, known)) / len(known))
    return sum(known) / len(known)
