"""The trials in Optuna's storage: asked for, told, kept after every crash, and never mixed with another search's."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from pah_opt.errors import SearchError
from pah_opt.search.backend import import_optuna, quiet_optuna
from pah_opt.search.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pah_opt.search.bound import BoundSpace, Values
    from pah_opt.search.budget import Budget
    from pah_opt.search.parameters import Parameter, Value

Sampler = Literal["tpe", "nsga2", "random"]
STORAGE = "search.db"
STUDY = "search"
FAILED_EXCESS = 10.0
"""How far beyond its limits a recipe that could not be judged counts for the sampler."""
POPULATION = 20


class Study:
    """Trials of one search in one folder.

    Args:
        folder: where the storage is.
        bound: the space.
        budget: the limits.
        fingerprint: what the search is of: digests of space, model, data and budget.
        sampler: what proposes.
        seed: of the sampler.
        parallel: several trials run at a time; those that run count as poor ones meanwhile, so that proposals spread.

    Raises:
        MissingBackendError: Optuna is not installed.
        SearchError: the folder holds another search, or the storage cannot be read.
    """

    def __init__(
        self, folder: Path, bound: BoundSpace, budget: Budget, fingerprint: Mapping[str, str],
        *, sampler: Sampler = "tpe", seed: int = 0, parallel: bool = False,
    ) -> None:  # fmt: skip
        self.bound, self.budget, self._path = bound, budget, folder / STORAGE
        self._optuna = import_optuna()
        with self._storing():
            try:
                storage = self._optuna.storages.RDBStorage(f"sqlite:///{self._path}")
                # The same seed again after a resume would propose the same again.
                offset = self._trials_in(storage)
                self.study = self._optuna.create_study(
                    study_name=STUDY, storage=storage, load_if_exists=True, directions=["minimize", "minimize"],
                    sampler=self._sampler(sampler, seed + offset, parallel=parallel),
                )  # fmt: skip
            except Exception as error:  # SQLAlchemy's and Optuna's own, for a file that is none of theirs
                raise SearchError(
                    f"{self._path} cannot be read as a search: {_cause(error)}; give another folder"
                ) from error
            self._check(folder, fingerprint)
            self._drop_unfinished()

    @contextmanager
    def _storing(self) -> Iterator[None]:
        """Use the storage without Optuna's chatter, and say in words where it fails (a full disk)."""
        try:
            with quiet_optuna():
                yield
        except _storage_errors() as error:
            raise SearchError(
                f"{self._path} cannot be written: {_cause(error)}; free space, then run the same command"
            ) from error

    def _trials_in(self, storage: Any) -> int:
        """Count the trials that are there, once a search that ended before its first trial did is forgotten.

        Such a one binds the folder to nothing; and one study of Optuna takes no other choices for its parameters.
        """
        count = 0
        for study in storage.get_all_studies():
            trials = storage.get_all_trials(study._study_id, deepcopy=False)  # noqa: SLF001  # no other way to name it
            if "fingerprint" in study.user_attrs and not any("record" in trial.user_attrs for trial in trials):
                storage.delete_study(study._study_id)  # noqa: SLF001
            else:
                count += len(trials)
        return count

    def _sampler(self, name: Sampler, seed: int, *, parallel: bool) -> Any:
        samplers = self._optuna.samplers
        if name == "nsga2":
            return samplers.NSGAIISampler(seed=seed, population_size=POPULATION, constraints_func=_excess)
        if name == "random":
            return samplers.RandomSampler(seed=seed)
        return samplers.TPESampler(
            seed=seed,
            multivariate=True,
            group=True,
            constraints_func=_excess,
            n_startup_trials=8,
            constant_liar=parallel,
        )

    def _check(self, folder: Path, fingerprint: Mapping[str, str]) -> None:
        stored = self.study.user_attrs.get("fingerprint")
        if stored is None:
            started = {"fingerprint": dict(fingerprint), "dense": {}, "measured": [], "reported": "", "scanned": False}
            for name, value in started.items():
                self.study.set_user_attr(name, value)
        elif stored != dict(fingerprint):
            other = [name for name, value in fingerprint.items() if stored.get(name) != value]
            hint = " (with the versions of its plugins, their parameters may change too)" if "space" in other else ""
            raise SearchError(
                f"{folder} holds another search: its {' and '.join(other)} differ{'s' if len(other) == 1 else ''}{hint}"
                "; give this search another folder, or the old one what it had"
            )

    def _drop_unfinished(self) -> None:
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state == self._optuna.trial.TrialState.RUNNING:
                self.study.tell(trial.number, state=self._optuna.trial.TrialState.FAIL)

    @property
    def dense(self) -> dict[str, float | None]:
        """Figures of the dense model, to which those of the records are relative; empty until they are kept."""
        return dict(self._kept("dense", {}))

    def keep_dense(self, figures: Mapping[str, float | None]) -> None:
        """Keep the figures of the dense model for runs that go on from here."""
        self._keep("dense", dict(figures))

    @property
    def measured(self) -> list[str]:
        """Which picks were measured on the test images, in that order."""
        return list(self._kept("measured", []))

    def keep_measured(self, key: str) -> None:
        """Keep that a pick was measured on the test images; once each."""
        self._keep("measured", list(dict.fromkeys([*self.measured, key])))

    @property
    def reported(self) -> str:
        """Which pick the report in the folder belongs to; empty where that is not known."""
        return str(self._kept("reported", ""))

    def keep_reported(self, key: str) -> None:
        """Keep which pick the report in the folder belongs to."""
        self._keep("reported", key)

    @property
    def scanned(self) -> bool:
        """Whether per-layer choices were scanned."""
        return bool(self._kept("scanned", False))

    def keep_scanned(self) -> None:
        """Keep that per-layer choices were scanned: it takes a while, and a search that goes on has had it."""
        self._keep("scanned", True)

    def _kept(self, name: str, otherwise: Any) -> Any:
        with self._storing():
            return self.study.user_attrs.get(name, otherwise)

    def _keep(self, name: str, value: Any) -> None:
        with self._storing():
            self.study.set_user_attr(name, value)

    @property
    def records(self) -> list[Record]:
        """Every finished trial, in the order in which they were started."""
        with self._storing():
            trials = self.study.get_trials(deepcopy=False)
        return [Record.from_data(trial.user_attrs["record"]) for trial in trials if "record" in trial.user_attrs]

    def ask(self, values: Values | None = None) -> tuple[Any, Values]:
        """Start a trial.

        Args:
            values: what to try; by default what the sampler proposes.

        Returns:
            Optuna's trial, and what was chosen.

        Raises:
            SearchError: the storage cannot be written; so do all that write to it.
        """
        with self._storing():
            if values is not None:
                self.study.enqueue_trial(values)
            trial = self.study.ask()
            return trial, self.bound.choose(lambda each: _suggest(trial, each))

    def tell(self, trial: Any, record: Record, dense: Mapping[str, float | None]) -> None:
        """End a trial. Its record is in the storage before its state is, so that a crash between them loses nothing."""
        figure = self.budget.figure
        cost = record.figures.get(figure, record.predicted.get(figure))
        drop, excess = self._loss(record, cost, dense)
        with self._storing():
            trial.set_user_attr("excess", [excess if excess > 0 else -1.0])
            trial.set_user_attr("record", record.to_data())
            self.study.tell(trial, [_first(cost, dense.get(figure), 0.0), drop])

    def _loss(self, record: Record, cost: float | None, dense: Mapping[str, float | None]) -> tuple[float, float]:
        """Return the drop of a trial as the sampler is told it, and by how much limits are missed."""
        drop = record.figures.get("top1_drop_pp")
        if record.state == "outdone":  # the best that it could be, which what outdoes it still beats
            return 0.0, 0.0
        if record.state in ("done", "stopped", "repeated") and cost is not None and drop is not None:
            return drop, sum(self.budget.excess(record.figures).values())
        return 100.0 * (dense.get("top1") or 1.0), FAILED_EXCESS

    def drop(self, trial: Any) -> None:
        """Forget a trial that was interrupted."""
        with self._storing():
            self.study.tell(trial, state=self._optuna.trial.TrialState.FAIL)

    def importances(self) -> dict[str, dict[str, float]]:
        """Return how much each parameter matters for each of the two figures, shares of 1; empty for too few trials."""
        found: dict[str, dict[str, float]] = {}
        for index, name in enumerate((self.budget.figure, "top1_drop_pp")):
            found |= self._importance(index, name)
        return found

    def _importance(self, index: int, name: str) -> dict[str, dict[str, float]]:
        importance = self._optuna.importance
        # Too few trials, a constant figure, or a storage that fails: what the trials showed is known without it.
        expected: tuple[type[Exception], ...] = (ValueError, RuntimeError, *_storage_errors())
        try:
            with quiet_optuna():
                found = importance.get_param_importances(
                    self.study, evaluator=importance.PedAnovaImportanceEvaluator(), target=lambda t: t.values[index]
                )
        except expected:
            return {}
        return {name: dict(found)}


def _storage_errors() -> tuple[type[Exception], ...]:
    """Return what Optuna raises where its storage fails: an error of its own, or now and then SQLAlchemy's."""
    from sqlalchemy.exc import SQLAlchemyError

    return (import_optuna().exceptions.StorageInternalError, SQLAlchemyError)


def _cause(error: Exception) -> str:
    """Return what the database itself says, in one line: Optuna's own words are of a commit, without a reason."""
    inner = error.__cause__ or error
    return (str(getattr(inner, "orig", None) or inner).splitlines() or [type(inner).__name__])[0]


def _excess(trial: Any) -> list[float]:
    found: list[float] = trial.user_attrs.get("excess", [FAILED_EXCESS])
    return found


def _suggest(trial: Any, each: Parameter) -> Value:
    found: Value
    if each.kind == "choice":
        found = trial.suggest_categorical(each.name, list(each.labels))
    elif each.kind == "int":
        found = trial.suggest_int(each.name, int(each.low), int(each.high), log=each.log, step=int(each.every or 1))
    else:
        found = trial.suggest_float(each.name, each.low, each.high, log=each.log, step=each.every)
    return found


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)
