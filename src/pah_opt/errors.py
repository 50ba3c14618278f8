"""Every error the library raises on purpose.

::

    PahOptError
    ├─ RecipeError               wrong as written; the model is untouched
    │  ├─ UnknownOptimizerError
    │  └─ IncompatibleStepsError
    ├─ DataError                 images or labels that cannot be used
    ├─ PluginError
    │  └─ DuplicateOptimizerError
    ├─ MissingBackendError       also an ImportError; names what to install
    ├─ UnsupportedHardwareError
    ├─ UnsupportedModelError     names the module path, its type, and what is supported
    ├─ StepFailedError           .index, .name; chained to its cause
    │  ├─ NoEffectError
    │  └─ AccuracyCollapseError
    ├─ GateFailedError
    ├─ ArtifactError             corrupt, truncated, wrong checksum, too new
    │  └─ ArtifactWriteError     it could not be written
    ├─ ExportError               what was made for another runtime answers differently
    │  └─ ExportRefusedError     .problems; nothing was started
    ├─ MeasurementError
    │  └─ ReportError            no report that can be read, or not what was asked of it
    └─ SearchError               its folder is another search's, in use or full; its cluster is out of reach

A message says what happened (with the user's own value), what is allowed, and what to do next.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class PahOptError(Exception):
    """Base of every error the library raises on purpose."""


@dataclass(frozen=True)
class Place:
    """Where in a recipe something stands; every part is optional.

    Args:
        file: path of the recipe file.
        line: one-based line in that file.
        step: zero-based index of the step.
        use: the Optimizer that the step names.
        field: dotted name of the field, such as ``with.sparsity``.
    """

    file: str | None = None
    line: int | None = None
    step: int | None = None
    use: str | None = None
    field: str | None = None

    def __str__(self) -> str:
        """Render as ``half.yaml:7: step 2 (torchao), with.scheme``."""
        line = None if self.line is None else f"{self.file}:{self.line}" if self.file else f"line {self.line}"
        origin = line or self.file
        step = None if self.step is None else f"step {self.step + 1}" + (f" ({self.use})" if self.use else "")
        inner = ", ".join(part for part in (step, self.field) if part)
        return ": ".join(part for part in (origin, inner) if part)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a recipe.

    Args:
        message: what is wrong, with the value as the user wrote it.
        place: where it stands.
        allowed: what would be accepted.
        nearest: the valid name closest to what was written.
        remedy: what to do next.
    """

    message: str
    place: Place = Place()
    allowed: str | None = None
    nearest: str | None = None
    remedy: str | None = None

    def __str__(self) -> str:
        """Render on one line: place, message, what is allowed, what to do."""
        parts = [f"{self.place}: {self.message}" if str(self.place) else self.message]
        parts += [f"allowed: {self.allowed}"] if self.allowed else []
        parts += [f"did you mean {self.nearest!r}?"] if self.nearest else []
        parts += [self.remedy] if self.remedy else []
        return "; ".join(parts)


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """Return the name in ``known`` that is spelled most like ``name``, or None if none is close.

    >>> nearest_name("magnitude-prunning", ["magnitude-pruning", "torchao"])
    'magnitude-pruning'
    """
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


class RecipeError(PahOptError):
    """A recipe is wrong as written; nothing was run and the model is untouched.

    Args:
        problems: everything that is wrong, in the order of the recipe.
        title: the first line of the message.
    """

    def __init__(self, problems: Sequence[Problem] | str, title: str = "the recipe cannot be run") -> None:
        self.problems = (Problem(problems),) if isinstance(problems, str) else tuple(problems)
        count = len(self.problems)
        lines = [f"{title} ({count} problem{'s' if count != 1 else ''}):"]
        super().__init__("\n".join(lines + [f"  - {problem}" for problem in self.problems]))


class UnknownOptimizerError(RecipeError):
    """A step names an Optimizer that no loaded plugin registers."""


class IncompatibleStepsError(RecipeError):
    """The steps cannot follow one another in the order given."""


class DataError(PahOptError):
    """Images or labels are missing, empty, malformed, or do not fit the model."""


class PluginError(PahOptError):
    """A plugin could not be imported or registered, or breaks the plugin contract."""


class DuplicateOptimizerError(PluginError):
    """Two plugins register the same name; the message names both distributions."""


class MissingBackendError(PahOptError, ImportError):
    """An optional library is absent or too old; the message names what to install."""


class UnsupportedHardwareError(PahOptError):
    """This machine cannot run the step; the message says which can, or what to use instead."""


class UnsupportedModelError(PahOptError):
    """No ModelAdapter knows this model, or the model is not in a state that can be worked on."""


class StepFailedError(PahOptError):
    """A step raised, or did not do what it promised; the caller's model is untouched.

    Args:
        index: zero-based index of the step.
        name: the Optimizer's name.
        message: what went wrong.
    """

    def __init__(self, index: int, name: str, message: str) -> None:
        self.index = index
        self.name = name
        super().__init__(f"step {index + 1} ({name}): {message}")


class NoEffectError(StepFailedError):
    """A step ran without an error, and without the effect that it promises."""


class AccuracyCollapseError(StepFailedError):
    """After this step the model is no better than chance."""


class GateFailedError(PahOptError):
    """A Report does not meet the limits set for it."""


class ArtifactError(PahOptError):
    """A saved artifact is corrupt, incomplete, unsafe or too new, or could not be written."""


class ArtifactWriteError(ArtifactError):
    """An artifact could not be written; what was there before is untouched."""


class ExportError(PahOptError):
    """An artifact could not be brought into another form, or answers differently there; nothing was left behind."""


class ExportRefusedError(ExportError):
    """An artifact and a target do not go together; nothing was started.

    Args:
        problems: everything that stands in the way.
        title: the first line of the message.
    """

    def __init__(self, problems: Sequence[Problem], title: str) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join([f"{title}:", *(f"  - {problem}" for problem in self.problems)]))


class MeasurementError(PahOptError):
    """A figure could not be measured, or would mean nothing."""


class ReportError(MeasurementError):
    """A report cannot be read, or cannot answer: it holds no such figure or model, or a limit is no limit."""


class SearchError(PahOptError):
    """A search cannot start or go on: its folder is another search's or in use, its cluster is out of reach."""
