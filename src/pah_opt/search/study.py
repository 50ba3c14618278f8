"""The trials in Optuna's storage: asked for, told, kept after every crash, and never mixed with another search's."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from pah_opt.errors import MissingBackendError, SearchError
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


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Drop what Optuna logs and warns of (experimental options that are used on purpose) inside the block."""
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"optuna\..*")
            warnings.filterwarnings("ignore", message=r".*experimental.*")
            yield
    finally:
        logger.setLevel(level)


def import_optuna() -> Any:
    """Return the module.

    Raises:
        MissingBackendError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise MissingBackendError(
            "searching runs on Optuna, which is not installed; pip install 'pah-opt[search]'"
        ) from error
    return optuna


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
        self.bound, self.budget = bound, budget
        self._optuna = import_optuna()
        with quiet_optuna():
            try:
                storage = self._optuna.storages.RDBStorage(f"sqlite:///{folder / STORAGE}")
                # The same seed again after a resume would propose the same again.
                offset = _trials_in(storage)
                self.study = self._optuna.create_study(
                    study_name=STUDY, storage=storage, load_if_exists=True, directions=["minimize", "minimize"],
                    sampler=self._sampler(sampler, seed + offset, parallel=parallel),
                )  # fmt: skip
            except Exception as error:  # SQLAlchemy's and Optuna's own, for a file that is none of theirs
                raise SearchError(
                    f"{folder / STORAGE} cannot be read as a search: {error}; give another folder"
                ) from error
            self._check(folder, fingerprint)
            self._drop_unfinished()

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
        if stored is None or not self.study.get_trials(deepcopy=False):
            # A search that ended before its first trial (limits that nothing meets) binds the folder to nothing.
            started = {"fingerprint": dict(fingerprint), "dense": {}, "measured": [], "reported": "", "scanned": False}
            for name, value in started.items():
                self.study.set_user_attr(name, value)
        elif stored != dict(fingerprint):
            other = [name for name, value in fingerprint.items() if stored.get(name) != value]
            raise SearchError(
                f"{folder} holds another search: its {' and '.join(other)} differ{'s' if len(other) == 1 else ''}; "
                "give this search another folder, or the old one what it had"
            )

    def _drop_unfinished(self) -> None:
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state == self._optuna.trial.TrialState.RUNNING:
                self.study.tell(trial.number, state=self._optuna.trial.TrialState.FAIL)

    @property
    def dense(self) -> dict[str, float | None]:
        """Figures of the dense model, to which those of the records are relative; empty until they are kept."""
        return dict(self.study.user_attrs.get("dense", {}))

    def keep_dense(self, figures: Mapping[str, float | None]) -> None:
        """Keep the figures of the dense model for runs that go on from here."""
        self.study.set_user_attr("dense", dict(figures))

    @property
    def measured(self) -> list[str]:
        """Which picks were measured on the test images, in that order."""
        return list(self.study.user_attrs.get("measured", []))

    def keep_measured(self, key: str) -> None:
        """Keep that a pick was measured on the test images; once each."""
        self.study.set_user_attr("measured", list(dict.fromkeys([*self.measured, key])))

    @property
    def reported(self) -> str:
        """Which pick the report in the folder belongs to; empty where that is not known."""
        return str(self.study.user_attrs.get("reported", ""))

    def keep_reported(self, key: str) -> None:
        """Keep which pick the report in the folder belongs to."""
        self.study.set_user_attr("reported", key)

    @property
    def scanned(self) -> bool:
        """Whether per-layer choices were scanned."""
        return bool(self.study.user_attrs.get("scanned", False))

    def keep_scanned(self) -> None:
        """Keep that per-layer choices were scanned: it takes a while, and a search that goes on has had it."""
        self.study.set_user_attr("scanned", True)

    @property
    def records(self) -> list[Record]:
        """Every finished trial, in the order in which they were started."""
        trials = self.study.get_trials(deepcopy=False)
        return [Record.from_data(trial.user_attrs["record"]) for trial in trials if "record" in trial.user_attrs]

    def ask(self, values: Values | None = None) -> tuple[Any, Values]:
        """Start a trial.

        Args:
            values: what to try; by default what the sampler proposes.

        Returns:
            Optuna's trial, and what was chosen.
        """
        with quiet_optuna():
            if values is not None:
                self.study.enqueue_trial(values)
            trial = self.study.ask()
            return trial, self.bound.choose(lambda each: _suggest(trial, each))

    def tell(self, trial: Any, record: Record, dense: Mapping[str, float | None]) -> None:
        """End a trial. Its record is in the storage before its state is, so that a crash between them loses nothing."""
        figure = self.budget.figure
        cost = record.figures.get(figure, record.predicted.get(figure))
        drop = record.figures.get("top1_drop_pp")
        known = record.state in ("done", "stopped", "repeated") and cost is not None and drop is not None
        excess = sum(self.budget.excess(record.figures).values()) if known else FAILED_EXCESS
        worst = 100.0 * (dense.get("top1") or 1.0)
        with quiet_optuna():
            trial.set_user_attr("excess", [excess if excess > 0 else -1.0])
            trial.set_user_attr("record", record.to_data())
            values = [_first(cost, dense.get(figure), 0.0), drop if known else worst]
            self.study.tell(trial, values)

    def drop(self, trial: Any) -> None:
        """Forget a trial that was interrupted."""
        with quiet_optuna():
            self.study.tell(trial, state=self._optuna.trial.TrialState.FAIL)

    def importances(self) -> dict[str, dict[str, float]]:
        """Return how much each parameter matters for each of the two figures, shares of 1; empty for too few trials."""
        found: dict[str, dict[str, float]] = {}
        for index, name in enumerate((self.budget.figure, "top1_drop_pp")):
            found |= self._importance(index, name)
        return found

    def _importance(self, index: int, name: str) -> dict[str, dict[str, float]]:
        importance = self._optuna.importance
        try:
            with quiet_optuna():
                found = importance.get_param_importances(
                    self.study, evaluator=importance.PedAnovaImportanceEvaluator(), target=lambda t: t.values[index]
                )
        except (ValueError, RuntimeError):  # what Optuna raises for too few trials or a constant figure
            return {}
        return {name: dict(found)}


def _trials_in(storage: Any) -> int:
    studies = storage.get_all_studies()
    return sum(len(storage.get_all_trials(each._study_id, deepcopy=False)) for each in studies)  # noqa: SLF001


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
