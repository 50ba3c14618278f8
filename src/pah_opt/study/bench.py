"""How one cell is computed, and the key it is kept under."""

from __future__ import annotations

import time
import warnings
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from pah_opt.environment import Environment
from pah_opt.errors import MeasurementError, UnsupportedHardwareError
from pah_opt.measure.environment import cpu_model
from pah_opt.pipeline import apply
from pah_opt.registry import default_registry, missing_here
from pah_opt.study.adapting import adapt_once, kept_model
from pah_opt.study.cells import Store, core_versions, key_of, step_versions, versions
from pah_opt.study.measuring import Judged, Measurement, measure_row, settings_of
from pah_opt.study.naive import run_naive
from pah_opt.study.results import RowResult
from pah_opt.study.schema import DENSE, Row, Study

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from pah_opt.progress import Progress
    from pah_opt.study.origin import Origin
    from pah_opt.study.results import AdaptationResult


@dataclass
class Bench:
    """Computes cells of a study.

    Args:
        study: what is asked.
        origin: model and images.
        store: where finished cells and models are.
        device: where models run.
        progress: shows progress.
    """

    study: Study
    origin: Origin
    store: Store
    device: str
    progress: Progress
    _loaded: tuple[str, nn.Module] | None = field(default=None, repr=False)

    def adaptation_key(self, name: str, seed: int) -> str:
        """Return the key of an adaptation; its name is no part of it."""
        settings = dict(self.study.adaptations[name])
        trainers = ("accelerate", "peft") if settings.get("mode") == "lora" else ("accelerate",)
        return self._key({"adapt": settings, "seed": seed, "trained_by": versions(trainers)})

    def row_key(self, adapted: AdaptationResult, row: Row | None) -> str:
        """Return the key of a row on an adapted model; names and sections are no part of it."""
        what: dict[str, Any] = {"measure": self.study.measure, "base": adapted.weights_sha256, "seed": adapted.seed}
        if row is not None and row.naive is not None:
            what |= {"naive": row.naive, "amount": row.amount}
        elif row is not None:
            steps = [step.model_dump(mode="json", by_alias=True) for step in self.study.steps(row)]
            what |= {"steps": steps, "calibration_images": self.study.calibration_images}
            what |= {"step_versions": step_versions(row.steps)}
        return self._key(what)

    def _key(self, what: Mapping[str, Any]) -> str:
        origin = self.origin.fingerprint
        return key_of({**what, "origin": origin, "versions": core_versions(), "machine": machine(self.device)})

    def adaptation(self, name: str, seed: int) -> dict[str, Any]:
        """Adapt the model one way, and keep it."""
        key = self.adaptation_key(name, seed)
        result = adapt_once(
            self.origin, name, dict(self.study.adaptations[name]), seed, folder=self.store.model_folder(key),
            checkpoint=self.store.checkpoint(key), progress=self.progress,
        )  # fmt: skip
        return result.model_dump(mode="json")

    def row(self, adapted: AdaptationResult, row: Row | None) -> dict[str, Any]:
        """Make and measure one row; the dense model itself without one."""
        made = self._dense_row(adapted) if row is None else self._made(adapted, row)
        measurement = made.measurement
        result = RowResult(
            name=DENSE if row is None else row.name,
            base=adapted.name,
            seed=adapted.seed,
            figures=measurement.figures.model_copy(update={"made_s": made.seconds}),
            collapsed=measurement.collapsed,
            linear_dtypes=measurement.linear_dtypes,
            notes=made.notes,
        )
        judged = {"judged": asdict(measurement.judged)} if row is None else {}
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return {
            "row": result.model_dump(mode="json"), "contended": measurement.contended, "measured_utc": now, **judged
        }  # fmt: skip

    def _dense_row(self, adapted: AdaptationResult) -> _Made:
        dense = self._dense(adapted)
        settings = settings_of(self.study.measure)
        return _Made(measure_row(dense, dense, self.origin.data.test, settings, progress=self.progress), None, ())

    def _made(self, adapted: AdaptationResult, row: Row) -> _Made:
        dense, judged = self._dense(adapted), self._judged(adapted)
        started = time.perf_counter()
        with warnings.catch_warnings(record=True) as caught:
            _listen(row)
            candidate, split, options = self._candidate(dense, row, adapted.seed)
            seconds = time.perf_counter() - started
            settings = settings_of(self.study.measure)
            measured = measure_row(
                candidate, dense, split, settings, baseline=judged, progress=self.progress, **options
            )  # fmt: skip
        _forget_compiled()
        return _Made(measured, seconds, tuple(dict.fromkeys(str(each.message) for each in caught)))

    def _candidate(self, dense: nn.Module, row: Row, seed: int) -> tuple[Any, Any, dict[str, Any]]:
        test = self.origin.data.test
        if row.naive is not None:
            made = run_naive(row, dense, self.origin.adapter, test, seed)
            return made.model, made.split, {"timed": made.timed, "known": made.known, "unknown": made.unknown}
        recipe = self.study.recipe(row, seed)
        if lacking := missing_here(recipe, default_registry(), Environment()):
            raise UnsupportedHardwareError("; ".join(map(str, lacking)))
        artifact = apply(
            dense, recipe, self.origin.data, on_collapse="warn", progress=self.progress,
            calibration_images=self.study.calibration_images, source=self.study.model, weights_origin="fine-tuned",
        )  # fmt: skip
        return artifact, test, {}

    def _dense(self, adapted: AdaptationResult) -> nn.Module:
        """Return the adapted model, kept in memory for the rows that follow one another on it."""
        key = self.adaptation_key(adapted.name, adapted.seed)
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = (key, kept_model(self.store.model_folder(key), self.device))
        return self._loaded[1]

    def _judged(self, adapted: AdaptationResult) -> Judged:
        found = self.store.get(self.row_key(adapted, None))
        if found is None:
            raise MeasurementError("the dense model could not be measured, so there is nothing to compare with")
        kept = found["judged"]
        return Judged(tuple(kept["labels"]), tuple(kept["predicted"]), kept["fingerprint"])


class _Made(NamedTuple):
    """A row that was made and measured."""

    measurement: Measurement
    seconds: float | None
    notes: tuple[str, ...]


def _listen(row: Row) -> None:
    """Let through what the library and a row's plugins warn of; naive tools warn of what the report says anyway."""
    warnings.simplefilter("ignore")
    if row.naive is not None:
        return
    known = default_registry().optimizers
    strategies = [known[step.use].optimizer for step in row.steps if step.use in known]
    packages = {"pah_opt", *(type(each).__module__.partition(".")[0] for each in strategies)}
    for category in (RuntimeWarning, UserWarning):
        warnings.filterwarnings("always", category=category, module=rf"({'|'.join(sorted(packages))})(\.|$)")


def machine(device: str) -> dict[str, Any]:
    """Return what timings depend on: the device and its kind (a Mac's GPU is named as its CPU), and the threads."""
    import torch

    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else cpu_model()
    return {"device": name, "kind": torch.device(device).type, "threads": torch.get_num_threads()}


def _forget_compiled() -> None:
    """Free what torch.compile kept for a model that is no longer needed."""
    import torch

    torch.compiler.reset()
