"""Judge one recipe: predicted first, then made, weighed, timed, and looked at on growing parts of the images."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pah_opt.errors import MeasurementError, RecipeError
from pah_opt.measure.accuracy import predict
from pah_opt.measure.model import model_figures
from pah_opt.measure.nvml import open_gpu
from pah_opt.measure.settings import MeasureSettings
from pah_opt.measure.trouble import forget_out_of_memory
from pah_opt.models import find_adapter
from pah_opt.pipeline import apply, plan
from pah_opt.progress import Progress
from pah_opt.registry import Registry, default_registry
from pah_opt.report import compare
from pah_opt.report.figures import figure
from pah_opt.search.clock import paired_speed
from pah_opt.search.forecast import forecast, learn
from pah_opt.search.latency_table import LatencyTable
from pah_opt.search.looking import Looker
from pah_opt.splits import Data
from pah_opt.storage import stored_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from pah_opt.artifact import Artifact
    from pah_opt.layout import ModelAdapter
    from pah_opt.pipeline import Plan
    from pah_opt.recipe import Recipe
    from pah_opt.search.budget import Budget
    from pah_opt.search.racing import Rivals
    from pah_opt.search.records import Record, State
    from pah_opt.splits import Split

SLACK = 1.02
"""How far below its plan a file can be: what is stored densely may still have a smaller lossless encoding."""
DOUBTED_LATENCY = 1.5
"""A predicted latency counts as over a limit only from this multiple of it on: it is a prediction."""
DOUBT = {"artifact_bytes": SLACK, "latency_p50_ms": DOUBTED_LATENCY}
"""How far below its prediction a figure can be; others are exact."""

Figures = dict[str, "float | None"]


class _Ended(Exception):  # noqa: N818  # no error: a trial that ends early
    def __init__(self, state: State, reason: str) -> None:
        self.state: State = state
        super().__init__(reason)


@dataclass
class Judge:
    """Judges recipes on one dense model.

    It can be sent to another process, which then loads those installed plugins itself that the search chose.

    Args:
        model: the dense model, in ``eval`` mode.
        training: images that steps may calibrate and train on.
        validation: images that decide, in an order of which any first part is balanced; no step sees them.
        budget: the limits.
        calibration_images: how many images calibrating steps observe.
        racing: stop hopeless trials on part of the images, or by their plan where nothing can come of them.
        screening: predict before anything runs, and leave out what is over a limit.
        registry: the strategies; None for every installed one.
        dense: figures of the dense model: those of an earlier run, or what :meth:`prepare` measures.
        table: timings that predict latencies.
    """

    model: nn.Module
    training: Split
    validation: Split
    budget: Budget
    calibration_images: int = 128
    racing: bool = True
    screening: bool = True
    registry: Registry | None = None
    dense: Figures = field(default_factory=dict)
    table: LatencyTable | None = None
    looker: Looker | None = None
    _predicted: dict[tuple[str, int], dict[str, float] | RecipeError] = field(default_factory=dict, init=False)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the registry behind: another process loads the installed plugins itself; and what plans said."""
        return {**vars(self), "registry": None, "_predicted": {}}

    @property
    def strategies(self) -> Registry:
        """The registry."""
        return self.registry or default_registry()

    @property
    def adapter(self) -> ModelAdapter:
        """The adapter of the dense model."""
        return find_adapter(self.model, self.strategies.adapters)

    def prepare(self) -> Looker:
        """Measure the dense model, once; figures in ``dense`` stay, since earlier records are relative to them.

        Raises:
            MeasurementError: a figure that the budget needs cannot be measured here.
        """
        if self.looker is None:
            self._check_energy()
            answers = predict(self.model, self.adapter, self.validation)
            if not self.dense:
                self.dense = {"top1": answers.top1, "top1_drop_pp": 0.0} | self._weighed() | self._costs(self.model)
            self._calibrate()
            self.looker = Looker(self.validation, answers, self.budget.top1_drop_pp, self.racing)
        return self.looker

    def _check_energy(self) -> None:
        if self.budget.needs_energy:
            gpu = open_gpu(next(self.model.parameters()).device)
            if gpu.value is None:
                raise MeasurementError(
                    f"the budget names energy, which cannot be measured here ({gpu.reason}); minimise latency or macs "
                    "instead, or search on a machine with an NVIDIA GPU"
                )

    def _calibrate(self) -> None:
        latency = self.dense.get("latency_p50_ms")
        if self.screening and latency is not None:
            self.table = LatencyTable(self.budget.batch_size, next(self.model.parameters()).device)
            self.table.calibrate(self.model, self.adapter, latency)

    def __call__(self, recipe: Recipe, rivals: Rivals, record: Record) -> Record:
        """Judge a recipe.

        Args:
            recipe: what to try.
            rivals: what earlier trials showed.
            record: what is known of this trial so far.

        Returns:
            The record with its figures, whatever happened; only ctrl-C gets through.
        """
        looker = self.prepare()
        started = time.perf_counter()
        found: dict[str, Any] = {"state": "done"}
        try:
            self._judge(recipe, rivals, looker, found)
        except _Ended as end:
            found |= {"state": end.state, "reason": str(end)}
        except RecipeError as error:
            found |= {"state": "refused", "reason": str(error)}
        except Exception as error:  # noqa: BLE001  # a strategy may raise anything, and the search goes on
            found |= _failure(error)
        return replace(record, seconds=time.perf_counter() - started, **found)

    def _judge(self, recipe: Recipe, rivals: Rivals, looker: Looker, found: dict[str, Any]) -> None:
        def screen(planned: Plan) -> None:
            found["predicted"] = predicted = self._forecast(planned)
            self._check_plan(predicted)
            cost = self._least(predicted).get(self.budget.figure)
            pointless = rivals.pointless(cost) if self.racing and cost is not None else None
            if pointless is not None:
                raise _Ended("outdone", pointless)

        artifact = apply(
            self.model, recipe, Data(test=self.validation, train=self.training), on_collapse="ignore",
            calibration_images=self.calibration_images, registry=self.registry, progress=Progress(),
            on_plan=screen if self.screening else None,
        )  # fmt: skip
        counted = artifact.steps[-1].after
        figures: Figures = {"params": counted["params"], "macs": counted["macs"]}
        figures["artifact_bytes"] = stored_bytes(artifact.model)
        found["figures"] = figures
        self._check(figures, "is")
        figures |= self._costs(artifact)
        self._check(figures, "is")
        if self.table is not None:
            learn(self.table, artifact.model, self.adapter)
        looked = looker.look(artifact.model, self.adapter, figures.get(self.budget.figure), rivals)
        figures |= {"top1": looked.top1, "top1_drop_pp": looked.drop_pp, "top1_drop_error_pp": looked.error_pp}
        found["rungs"] = looked.rungs
        if looked.hopeless:
            raise _Ended("stopped", looked.hopeless)

    def predict(self, recipe: Recipe) -> dict[str, float]:
        """Return what is known of a recipe's figures without running it.

        Raises:
            RecipeError: it cannot be run on this model.
        """
        # The table learns the layers of each model that was made, and with them predictions change.
        key = (repr(recipe.to_data()["steps"]), 0 if self.table is None else self.table.learnt)
        if key not in self._predicted:
            self._predicted[key] = self._planned(recipe)
        known = self._predicted[key]
        if isinstance(known, RecipeError):
            raise known.with_traceback(None)
        return known

    def _planned(self, recipe: Recipe) -> dict[str, float] | RecipeError:
        try:
            return self._forecast(plan(self.model, recipe, registry=self.registry))
        except RecipeError as error:
            return error

    def _forecast(self, planned: Plan) -> dict[str, float]:
        return forecast(planned, self.strategies, self.table, self.adapter)

    def _check_plan(self, predicted: Mapping[str, float]) -> None:
        self._check(self._least(predicted), "is planned to be")

    def _least(self, predicted: Mapping[str, float]) -> dict[str, float]:
        """Return the least that figures can be, by their predictions."""
        return {name: value / DOUBT.get(name, 1.0) for name, value in predicted.items()}

    def _check(self, figures: Mapping[str, float | None], verb: str) -> None:
        for name, over in self.budget.excess(figures).items():
            raise _Ended("over", f"{name} {verb} {figures[name]:,.6g}, {100 * over:.1f} % beyond its limit")

    def _weighed(self) -> Figures:
        layout = self.adapter.layout(self.model)
        shape = (1, layout.in_channels, *layout.image_size)
        counted = model_figures(self.model, adapter=self.adapter, example_shape=shape)
        return {"params": counted.params, "macs": counted.macs, "artifact_bytes": stored_bytes(self.model)}

    def _costs(self, model: nn.Module | Artifact) -> Figures:
        found: Figures = {}
        if self.budget.needs_latency:
            speed = paired_speed(self.model, model, self.strategies.adapters, self.budget.batch_size)
            # The dense model's time at the start, and ratios after that: a drift of the machine favours no trial. Its
            # ratio to itself is 1: what is measured of it is noise, which every latency of the search would hold.
            reference = self.dense.get("latency_p50_ms") or speed.dense_ms
            ratio = 1.0 if model is self.model else speed.ratio
            found |= {"latency_p50_ms": reference / ratio, "speedup_p50_x": ratio}
        if self.budget.needs_energy:
            found["j_per_image"] = self._energy(model)
        return found

    def _energy(self, model: nn.Module | Artifact) -> float | None:
        settings = MeasureSettings.quick(groups={"energy"}, batch_sizes=(self.budget.batch_size,))
        report = compare({"model": model}, settings=settings, registry=self.strategies, progress=Progress())
        return figure("j_per_image").find(report.baseline).value


def _failure(error: Exception) -> dict[str, Any]:
    state = "out-of-memory" if forget_out_of_memory(error) else "failed"
    return {"state": state, "reason": f"{type(error).__name__}: {error}"}
