"""The Report: every model of one run side by side, as one JSON document; everything else is rendered from it."""

from __future__ import annotations

import uuid
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, JsonValue, ValidationError, model_validator

from pah_opt.errors import ReportError, nearest_name
from pah_opt.measure.model_report import Env, ModelReport
from pah_opt.measure.schema import Data
from pah_opt.report.files import REPORT

if TYPE_CHECKING:
    from os import PathLike

SCHEMA_VERSION = "1.0"
"""Major: a reader of an older major version cannot read it. Minor: fields were added."""


class Run(Data):
    """Which run this was."""

    schema_version: str = SCHEMA_VERSION
    run_id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    timestamp_utc: str = Field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))


class Curve(Data):
    """A curve to plot, such as a loss over steps of training."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    x_label: str = "step"
    y_label: str = "loss"

    @model_validator(mode="after")
    def _as_long(self) -> Curve:
        if len(self.x) != len(self.y):
            raise ValueError(f"a curve needs as many x as y; there are {len(self.x)} and {len(self.y)}")
        return self


class Report(Data):
    """Models measured side by side.

    Args:
        run: which run, when, and which version of this schema.
        env: the machine and the software.
        baseline_id: the model that the others are compared with.
        models: one report for each model, the baseline first.
        settings: how thoroughly it was measured.
        complete: False when the run was interrupted; what was measured until then is here.
        curves: curves to plot beside the figures, by title.
        notes: what a reader must know about the whole run.
    """

    run: Run = Field(default_factory=Run)
    env: Env
    baseline_id: str
    models: tuple[ModelReport, ...] = Field(min_length=1)
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    complete: bool = True
    curves: dict[str, Curve] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _names_are_unique(self) -> Report:
        names = [model.id for model in self.models]
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two models have the name {doubled[0]!r}")
        if self.baseline_id not in names:
            raise ValueError(f"the baseline {self.baseline_id!r} is none of the models: {', '.join(names)}")
        return self

    @property
    def baseline(self) -> ModelReport:
        """The model that the others are compared with."""
        return self.model(self.baseline_id)

    @property
    def candidates(self) -> tuple[ModelReport, ...]:
        """Every model but the baseline."""
        return tuple(model for model in self.models if model.id != self.baseline_id)

    def model(self, name: str) -> ModelReport:
        """Return the report of one model.

        Raises:
            ReportError: there is none of that name; names the nearest.
        """
        for model in self.models:
            if model.id == name:
                return model
        known = [model.id for model in self.models]
        nearest = nearest_name(name, known)
        hint = f"did you mean {nearest!r}?" if nearest else f"models: {', '.join(known)}"
        raise ReportError(f"the report has no model {name!r}; {hint}")

    def with_curves(self, **curves: Curve) -> Report:
        """Return the same report with more curves to plot."""
        return self.model_copy(update={"curves": {**self.curves, **curves}})

    def without_gates(self) -> Report:
        """Return the same report with no gate results."""
        models = tuple(
            model.model_copy(update={"vs_baseline": model.vs_baseline.model_copy(update={"gates": ()})})
            for model in self.models
        )
        return self.model_copy(update={"models": models})

    def to_data(self) -> dict[str, Any]:
        """Return the report as JSON data."""
        return self.model_dump(mode="json")

    def to_json(self) -> str:
        """Return the report as JSON that reads back equal."""
        return self.model_dump_json(indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, source: str = "the report") -> Report:
        """Read a report.

        Raises:
            ReportError: it is no report, or of a newer major version; names ``source`` and what is wrong.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ReportError(_what_is_wrong(text, source, error)) from error

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Report:
        """Read a report from a file, or from a folder that holds it as ``report.json``.

        Raises:
            ReportError: the file is missing or is no report.
        """
        file = Path(path)
        try:
            text = (file / REPORT if file.is_dir() else file).read_bytes()
        except OSError as error:
            raise ReportError(f"the report {path} cannot be read: {error}") from error
        return cls.from_json(text, str(path))

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the report as JSON, whole or not at all.

        Raises:
            MeasurementError: it could not be written.
        """
        from pah_opt.report.files import write

        return write(path, self.to_json())

    def to_markdown(self) -> str:
        """Return the report as Markdown."""
        from pah_opt.report.markdown import to_markdown

        return to_markdown(self)

    def to_csv(self) -> str:
        """Return one row of figures for each model and batch size."""
        from pah_opt.report.spreadsheet import to_csv

        return to_csv(self)

    def to_html(self) -> str:
        """Return one self-contained page: no network, light and dark, phone and desktop."""
        from pah_opt.report.html import to_html

        return to_html(self)

    def to_junit(self) -> str:
        """Return the gates as JUnit XML, for CI."""
        from pah_opt.report.junit import to_junit

        return to_junit(self)

    def to_text(self, width: int = 80) -> str:
        """Return a plain table for a terminal ``width`` columns wide."""
        from pah_opt.report.terminal import to_text

        return to_text(self, width)

    def __str__(self) -> str:
        """Render as a plain table."""
        return self.to_text()


def _what_is_wrong(text: str | bytes, source: str, error: ValidationError) -> str:
    import json

    try:
        version = json.loads(text)["run"]["schema_version"]
    except (ValueError, KeyError, TypeError, RecursionError):  # the last: brackets nested too deep
        version = None
    if isinstance(version, str) and version.partition(".")[0] != SCHEMA_VERSION.partition(".")[0]:
        return (
            f"{source} has schema version {version}; this version of pah_opt reads {SCHEMA_VERSION}: "
            "read it with the version that wrote it, or measure again"
        )
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"])) or "the document"
    count = error.error_count()
    return f"{source} is no report ({count} problem{'s' if count != 1 else ''}): {place}: {first['msg']}"
