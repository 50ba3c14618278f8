"""pah_opt.search: from a model, images and a budget to a front of recipes and one pick."""

from __future__ import annotations

import hashlib
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pah_opt.data import as_data, check_fit
from pah_opt.errors import RecipeError, SearchError
from pah_opt.measure.settings import MeasureSettings
from pah_opt.measure.trouble import forget_out_of_memory
from pah_opt.models import find_adapter
from pah_opt.pipeline import apply
from pah_opt.progress import Progress, default_progress
from pah_opt.registry import Registry, default_registry
from pah_opt.report import compare
from pah_opt.search.backend import import_optuna
from pah_opt.search.bound import BoundSpace
from pah_opt.search.budget import Budget
from pah_opt.search.child import Child
from pah_opt.search.cluster import check_cluster
from pah_opt.search.elsewhere import check_installed
from pah_opt.search.engines import Engine, Local
from pah_opt.search.extremes import Checked, check_limits
from pah_opt.search.inputs import check_enough, cut, device_name, model_digest
from pah_opt.search.judge import Judge
from pah_opt.search.looks import Looks
from pah_opt.search.loop import Loop
from pah_opt.search.proposing import Proposer, best_of
from pah_opt.search.ray_engine import RayEngine
from pah_opt.search.result import SearchResult
from pah_opt.search.settings import Settings
from pah_opt.search.space import Space, SpaceSource, as_space
from pah_opt.search.study import Study
from pah_opt.search.survey import Surveyor
from pah_opt.search.verdict import no_pick, unlucky
from pah_opt.splits import Data
from pah_opt.storage.lock import locked

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from torch import nn

    from pah_opt.recipe import Recipe
    from pah_opt.report import Report


def search(
    model: nn.Module,
    data: Any,
    budget: Budget | Mapping[str, Any] | None = None,
    *,
    space: SpaceSource = "small",
    out: str | PathLike[str] | None = None,
    registry: Registry | None = None,
    measure: MeasureSettings | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> SearchResult:
    """Find the best recipes within a budget.

    Accuracy is decided on validation images, cut from the training images; no step of a trial sees them. The pick is
    measured once on the test images, which nothing else looks at.

    Args:
        model: the dense model; left untouched.
        data: its images; training images are needed.
        budget: the limits and what to minimise: a Budget, its fields, or None for the space's own (or the defaults).
        space: which recipes: a Space, its data, the name of a preset, or the path or text of one in YAML or JSON.
        out: folder of results and of the storage; a search that is there goes on. None to keep nothing.
        registry: the strategies; every installed one by default.
        measure: how thoroughly the pick is measured; a look by default.
        progress: shows progress; by default bars on a terminal, nothing elsewhere.
        **settings: the fields of :class:`~pah_opt.search.settings.Settings`, such as ``trials=50`` or ``minutes=10``.

    Returns:
        Every trial, the front, and the pick with its report; also after ctrl-C.

    Raises:
        RecipeError: the space or the budget is wrong, or no recipe of the space can meet the limits.
        DataError: there are no training images, or the images do not fit.
        MeasurementError: a figure that the budget names cannot be measured here.
        SearchError: the folder holds another search, is in use or cannot be written, or the cluster cannot be reached.
        MissingBackendError: Optuna (or Ray) is not installed.
    """
    import_optuna()
    chosen = _settings(settings)
    if chosen.engine == "ray":
        check_cluster(chosen.address)
    read = as_space(space)
    limits = _budget(budget, read)
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory()) if out is None else out)
        held.enter_context(locked(folder, "search", SearchError))
        run = _Run(model, data, limits, read, folder, registry, progress or default_progress(), chosen)
        result = run.search()
        run.keep(result)  # what was found is kept, whatever becomes of the measuring that follows
        result = run.measured(result, measure)
        result.write(folder)
        run.written()
    return result


def _settings(given: Mapping[str, Any]) -> Settings:
    unknown = sorted(set(given) - set(vars(Settings())))
    if unknown:
        raise RecipeError(f"search has no setting {unknown[0]!r}; settings: {', '.join(vars(Settings()))}")
    chosen = Settings(**given)
    chosen.check()
    return chosen


def _budget(given: Budget | Mapping[str, Any] | None, space: Space) -> Budget:
    return given if isinstance(given, Budget) else Budget.of(given or {}, space.budget)


class _Run:
    """One run of one search."""

    def __init__(
        self, model: nn.Module, data: Any, budget: Budget, space: Space, folder: Path, registry: Registry | None,
        progress: Progress, settings: Settings,
    ) -> None:  # fmt: skip
        self.began = time.perf_counter()
        strategies = registry or default_registry()
        adapter = find_adapter(model, strategies.adapters)
        layout = adapter.layout(model)
        self.model, self.budget, self.folder = model.eval(), budget, folder
        self.progress, self.settings, self.registry = progress, settings, registry
        self.looks: Looks | None = None
        self.failure: Exception | None = None
        self.data = as_data(data)
        check_fit(self.data.test, layout, model=self.model)
        self.bound = BoundSpace.of(space, strategies, model, layout, settings.seed)
        if settings.elsewhere:
            check_installed(space, strategies, adapter)
        training, validation = cut(self.data, settings.validation_images, settings.seed)
        check_enough(validation, budget)
        self.judge = Judge(
            model, training, validation, budget, settings.calibration_images, settings.racing, settings.screening,
            registry,
        )  # fmt: skip

    def search(self) -> SearchResult:
        """Search; the pick is not measured yet."""
        self.study = study = Study(
            self.folder, self.bound, self.budget, self._fingerprint(), sampler=self.settings.sampler,
            seed=self.settings.seed, parallel=self.settings.engine == "ray",
        )  # fmt: skip
        self.progress.message("measuring the dense model")
        self.judge.dense = study.dense
        self.judge.prepare()
        study.keep_dense(self.judge.dense)
        records = study.records
        surveyor = Surveyor(self.bound, self.judge, study, self.settings, self.progress)
        starts = surveyor.first() if self.settings.starts else []
        checked = check_limits(self.bound, self.judge, self.budget, starts)
        if checked.doubt is not None:
            self.progress.message(checked.doubt)
        proposer = Proposer(
            self.bound, self.budget, self.settings.seed + len(records),
            [*starts, *checked.strongest] if self.settings.starts else [],
            surveyor.look if self.settings.starts else None, self.settings.neighbours, surveyor.cost,
        )  # fmt: skip
        spent = max((record.at_s for record in records), default=0.0) + time.perf_counter() - self.began
        loop = Loop(
            study, self.bound, self.budget, proposer, self._engine(), self.judge.dense, self.settings.trials,
            self.settings.limit_s, spent, self.progress,
            records=[record for record in records if record.state != "repeated"],
        )  # fmt: skip
        loop.run()
        self.failure = loop.failure
        return self._result(loop, study, checked)

    def keep(self, result: SearchResult) -> None:
        """Write what was found; then raise what ended the search, where that was an error."""
        try:
            result.write(self.folder)
        finally:
            if self.failure is not None:
                raise self.failure

    def _engine(self) -> Engine:
        limit = self.settings.trial_limit_s
        if self.settings.engine == "ray":
            gpus = 1.0 if next(self.model.parameters()).device.type == "cuda" else 0.0
            return RayEngine(self.judge, self.settings.address, gpus=gpus, limit_s=limit)
        if limit is None:
            return Local(self.judge)
        child = Child(self.judge, limit)
        return Local(child, child.close)

    def _fingerprint(self) -> dict[str, str]:
        # The parameters as well as the text: choices, bounds and places that it leaves to the strategies are theirs.
        space = f"{self.bound.space.content()} {self.bound.parameters}"
        data = f"{self.judge.validation.fingerprint} {len(self.judge.training)}"
        return {
            "space": hashlib.sha256(space.encode()).hexdigest(),
            "model": model_digest(self.model),
            "data": hashlib.sha256(data.encode()).hexdigest(),
            "validation_images": str(len(self.judge.validation)),
            "seed": str(self.settings.seed),
            "budget": self.budget.model_dump_json(),
            "device": device_name(next(self.model.parameters()).device),
            "calibration_images": str(self.settings.calibration_images),
        }

    def _result(self, loop: Loop, study: Study, checked: Checked) -> SearchResult:
        best = best_of(loop.records, self.budget)
        kept = [record for record in best if record.keeps(self.budget) and record.recipe is not None]
        pick = self.budget.gated(kept[0].made(), f"{self.bound.space.name}-pick") if kept else None
        return SearchResult(
            self.bound.space, self.budget, self.judge.dense, tuple(loop.records), tuple(best), pick, None,
            study.importances(), len(self.judge.validation), loop.elapsed_s, loop.interrupted, loop.exhausted,
            None if pick else no_pick(loop.records, self.budget, self.judge.dense, loop.end),
            (checked.doubt,) if checked.doubt and pick is None else (),
        )  # fmt: skip

    def measured(self, result: SearchResult, measure: MeasureSettings | None) -> SearchResult:
        """Measure the pick on the test images, unless an earlier run did; what goes wrong becomes a note."""
        if result.pick is None:
            return result
        self.looks = looks = Looks(self.study, self.folder, f"{result.pick.sha256} {self.data.test.fingerprint}")
        report, notes = looks.earlier(), list(result.notes)
        if report is None:
            try:
                report = self._measured(result.pick, measure)
            except Exception as error:  # noqa: BLE001  # a strategy may raise anything, and the search is over and kept
                forget_out_of_memory(error)
                said = f"the pick could not be measured on the test images: {type(error).__name__}: {error}"
                return replace(result, notes=(*notes, said))
            looks.keep(report)
        return replace(result, report=report, notes=(*notes, *looks.notes(), *unlucky(report, result)))

    def written(self) -> None:
        """Remember that the folder holds what was found, the pick's report too."""
        if self.looks is not None:
            self.looks.written()

    def _measured(self, pick: Recipe, measure: MeasureSettings | None) -> Report:
        """Make the pick again, and measure it on the test images."""
        self.progress.message("measuring the pick on the test images")
        data = Data(test=self.data.test, train=self.judge.training)
        artifact = apply(
            self.model, pick, data, on_collapse="ignore", calibration_images=self.settings.calibration_images,
            registry=self.registry, progress=self.progress,
        )  # fmt: skip
        settings = measure or MeasureSettings.quick(batch_sizes=(self.budget.batch_size,))
        models = {"dense": self.model, pick.name: artifact}
        return compare(models, self.data.test, settings=settings, registry=self.registry, progress=self.progress)
