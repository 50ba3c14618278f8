"""Run a study: adaptations first, then every row on the chosen one; what is finished already is not run again."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pah_opt.errors import (
    ArtifactError,
    MissingBackendError,
    PahOptError,
    RecipeError,
    UnsupportedHardwareError,
)
from pah_opt.progress import Progress, default_progress
from pah_opt.storage.lock import locked
from pah_opt.study.cells import Store, library_versions
from pah_opt.study.choice import chosen_base
from pah_opt.study.reading import read_study
from pah_opt.study.results import AdaptationResult, Conditions, RowResult, StudyResult
from pah_opt.study.schema import DENSE, Row, Study

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from os import PathLike

    from pah_opt.study.bench import Bench
    from pah_opt.study.messages import Lang

    Patterns = Sequence[str] | str | None

T = tuple[Any, ...]


class Planned(NamedTuple):
    """A cell that a study has; ``what`` says in words what it does."""

    kind: str
    name: str
    seed: int
    what: str


def planned_cells(study: Study, only: Patterns = None) -> list[Planned]:
    """Return every cell of a study, without loading anything; rows once, whatever adaptation they will run on.

    Raises:
        RecipeError: ``only`` matches no row.
    """
    _check_only(study, only)
    found = [
        Planned("adaptation", name, seed, ", ".join(f"{key} {value}" for key, value in settings.items()))
        for name, settings in study.adaptations.items()
        for seed in study.seeds
    ]
    return found + [
        Planned("row", row.name, seed, row.naive or ", ".join(step.use for step in row.steps))
        for row in study.rows()
        for seed in study.seeds
        if _asked(row, only)
    ]


def run_study(
    source: Study | Mapping[str, Any] | str | PathLike[str],
    out: str | PathLike[str] = "out/study",
    *,
    only: Patterns = None,
    lang: Lang = "en",
    device: str = "cpu",
    progress: Progress | None = None,
    **changes: Any,
) -> StudyResult:
    """Run what is missing of a study, and write its report.

    Args:
        source: a Study, its data, the path or text of a file, or the name of a study that comes with the library.
        out: folder of the finished cells and the report; a study that was interrupted goes on from there.
        only: run only rows whose name matches this pattern (or one of several), such as ``sparse-*``; finished ones are
            reported too.
        lang: ``fr`` for a report in French beside the English one.
        device: where models run, such as ``cuda``.
        progress: shows progress; by default bars on a terminal, nothing elsewhere.
        **changes: fields of the study to replace, such as ``model="./my-vit"`` or ``test_limit=500``.

    Returns:
        Everything that came out; cells that failed are in :attr:`StudyResult.failures`, rows that this machine cannot
        run in :attr:`StudyResult.unavailable`.

    Raises:
        RecipeError: the study is wrong as written, or ``only`` matches no row; nothing was run.
        DataError: the images cannot be used.
        UnsupportedModelError: the model cannot be loaded.
        ArtifactError: a result cannot be written, or another study is at work in that folder.
        PahOptError: every adaptation failed; the error of the last.
    """
    from pah_opt.study.bench import Bench
    from pah_opt.study.origin import Origin
    from pah_opt.study.writing import write_study

    study = read_study(source, **changes)
    _check_only(study, only)
    progress = progress or default_progress()
    with locked(Path(out), "study", ArtifactError):
        run = _Run(Bench(study, Origin.load(study, device), Store(Path(out)), device, progress), only)
        try:
            run.everything()
        finally:
            write_study(run.result(), out, lang)
    return run.result()


def _patterns(only: Patterns) -> Sequence[str]:
    return [only] if isinstance(only, str) else only or ["*"]


def _asked(row: Row | None, only: Patterns) -> bool:
    return row is None or any(fnmatchcase(row.name, pattern) for pattern in _patterns(only))


def _check_only(study: Study, only: Patterns) -> None:
    for pattern in _patterns(only) if only else ():
        if not any(_asked(row, pattern) for row in study.rows()):
            names = ", ".join(row.name for row in study.rows())
            raise RecipeError(f"no row's name matches {pattern!r}; rows: {names}")


@dataclass
class _Run:
    """One run of a study, and what it found so far."""

    bench: Bench
    only: Patterns
    adaptations: list[AdaptationResult] = field(default_factory=list)
    rows: list[RowResult] = field(default_factory=list)
    base: str | None = None
    computed: int = 0
    contended: bool = False
    measured_utc: str = ""
    finished: bool = False
    left_out: bool = False

    def everything(self) -> None:
        study = self.bench.study
        variants = [(name, seed) for name in study.adaptations for seed in study.seeds]
        for name, seed in self._tracked(variants, "adaptations"):
            self._adapt(name, seed)
        self.base = chosen_base(study, self.adaptations)
        if self.base is None:
            raise PahOptError(f"every adaptation failed; the last one: {self.adaptations[-1].error}")
        names = list(study.adaptations) if study.bases == "all" else [self.base]
        ready = [each for each in self.adaptations if each.name in names and each.error is None]
        for adapted, row in self._tracked([(each, row) for each in ready for row in (None, *study.rows())], "rows"):
            self._measure(adapted, row)
        self.finished = True

    def _tracked(self, cells: Sequence[T], what: str) -> Iterator[T]:
        """Yield cells under a bar that tells the time left; say so in words before each that is computed."""
        started, before = time.perf_counter(), self.computed
        progress = self.bench.progress
        for number, cell in enumerate(progress.track(cells, what, total=len(cells))):
            done = self.computed - before
            left = (time.perf_counter() - started) / done * (len(cells) - number) if done else None
            words = "" if left is None else f", about {max(1.0, left / 60):.0f} min left"
            progress.message(f"{what}: {number + 1} of {len(cells)}{words}")
            yield cell

    def _adapt(self, name: str, seed: int) -> None:
        key = self.bench.adaptation_key(name, seed)
        found = self.bench.store.get(key) if self.bench.store.model_folder(key).is_dir() else None
        try:
            found = found or self._computed(key, lambda: self.bench.adaptation(name, seed))
            # The variant may have been renamed since.
            self.adaptations.append(AdaptationResult.model_validate({**found, "name": name}))
        except _CellError as error:
            self.adaptations.append(AdaptationResult(name=name, seed=seed, error=str(error)))

    def _measure(self, adapted: AdaptationResult, row: Row | None) -> None:
        """Add one row's result: from the store, or computed where it is asked for."""
        key = self.bench.row_key(adapted, row)
        found = self.bench.store.get(key)
        if found is None and not _asked(row, self.only):
            self.left_out = True
            return
        place = {"name": DENSE if row is None else row.name, "base": adapted.name}
        try:
            found = found or self._computed(key, lambda: self.bench.row(adapted, row))
            self.contended |= bool(found["contended"])
            self.measured_utc = max(self.measured_utc, found.get("measured_utc", ""))  # cells of old have none
            self.rows.append(RowResult.model_validate({**found["row"], **place}))
        except _CellError as error:
            why = "unavailable" if error.unavailable else "error"
            self.rows.append(RowResult(**place, seed=adapted.seed, **{why: str(error)}))

    def _computed(self, key: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Compute a cell and keep it; a failure is kept in the report only, and tried again by the next run."""
        self.computed += 1
        try:
            result = work()
        except (MissingBackendError, UnsupportedHardwareError) as error:
            raise _CellError(str(error), unavailable=True) from error
        except PahOptError as error:
            raise _CellError(str(error)) from error
        except Exception as error:  # a naive tool may raise anything, and the other cells must still run
            raise _CellError(f"{type(error).__name__}: {error}") from error
        self.bench.store.put(key, result)
        return result

    def result(self) -> StudyResult:
        """Return what was found so far."""
        from pah_opt.study.bench import machine

        origin, study = self.bench.origin, self.bench.study
        here = machine(self.bench.device)
        conditions = Conditions(
            model=study.model,
            data=study.data,
            train_images=len(origin.data.train or ()),
            test_images=len(origin.data.test),
            class_names=origin.data.test.class_names,
            device=here["device"],
            threads=here["threads"],
            versions=library_versions(),
            measured_utc=self.measured_utc or datetime.now(timezone.utc).isoformat(timespec="seconds"),
            contended=self.contended,
            notes=origin.notes,
        )
        return StudyResult(
            study=study, conditions=conditions, adaptations=tuple(self.adaptations), base=self.base,
            rows=tuple(self.rows), computed=self.computed, complete=self.finished and not self.left_out,
        )  # fmt: skip


class _CellError(Exception):
    """A cell failed, in words; ``unavailable`` where this machine lacks what it needs."""

    def __init__(self, words: str, *, unavailable: bool = False) -> None:
        super().__init__(words)
        self.unavailable = unavailable
