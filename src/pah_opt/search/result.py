"""What a search found: every trial, the front, one pick, and the folder they are written to."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pah_opt.errors import RecipeError
from pah_opt.recipe import Recipe
from pah_opt.recipe.files import to_yaml
from pah_opt.report.files import write
from pah_opt.report.folder import remove_report, write_report

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from pah_opt.report import Report
    from pah_opt.search.budget import Budget
    from pah_opt.search.records import Record
    from pah_opt.search.space import Space

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Args:
        space: what was searched.
        budget: the limits.
        dense: figures of the dense model on the validation images.
        records: every trial, in the order in which they ended.
        front: judged trials that keep the limits and that none beats, cheapest first; where none keeps them, the
            front of all that were judged.
        pick: the cheapest recipe that keeps the limits on the validation images, with the limits as its gates; None
            where there is none.
        report: the dense model and the pick, measured once on the test images, with intervals and gates; None without
            a pick, and where it could not be measured, which ``notes`` say.
        importances: how much each parameter matters, shares of 1, by figure.
        validation_images: how many images decided.
        seconds: of search, earlier runs included.
        interrupted: whether ctrl-C ended it.
        exhausted: whether every recipe of the space was tried.
        why_no_pick: why there is no pick, and the nearest trial; the dense model itself may be the best.
        notes: what a reader must know: why the pick has no report, or that it is not the first that test images saw.
    """

    space: Space
    budget: Budget
    dense: Mapping[str, float | None]
    records: tuple[Record, ...]
    front: tuple[Record, ...]
    pick: Recipe | None
    report: Report | None
    importances: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    validation_images: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    exhausted: bool = False
    why_no_pick: str | None = None
    notes: tuple[str, ...] = ()

    def recipes(self) -> tuple[Recipe, ...]:
        """Return the recipes of the front, cheapest first, with the limits as their gates; the dense model is none."""
        return tuple(self.budget.gated(record.made()) for record in self.front if record.recipe is not None)

    def to_data(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {
            "schema_version": SCHEMA_VERSION,
            "space": self.space.to_data(),
            "budget": self.budget.model_dump(mode="json"),
            "dense": dict(self.dense),
            "front": [record.number for record in self.front],
            "pick": None if self.pick is None else self.pick.to_data(),
            "why_no_pick": self.why_no_pick,
            "notes": list(self.notes),
            "importances": {name: dict(found) for name, found in self.importances.items()},
            "validation_images": self.validation_images,
            "seconds": self.seconds,
            "interrupted": self.interrupted,
            "exhausted": self.exhausted,
            "records": [record.to_data() for record in self.records],
        }

    def write(self, folder: str | PathLike[str]) -> Path:
        """Write ``search.json``, ``search.html``, ``front/*.yaml``, ``pick.yaml`` and the pick's report.

        What an earlier run of the same search wrote and is no longer so is removed: recipes that left the front, the
        report of another pick, the pick where there is none.

        Raises:
            MeasurementError: a file cannot be written.
        """
        from pah_opt.search.page import to_html

        target = Path(folder)
        write(target / "search.json", json.dumps(self.to_data(), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        write(target / "search.html", to_html(self))
        self._write_front(target / "front")
        self._write_pick(target)
        return target

    def _write_front(self, folder: Path) -> None:
        wanted = {f"{recipe.name}.yaml": to_yaml(recipe) for recipe in self.recipes()}
        for name, text in wanted.items():
            write(folder / name, text)
        ours = re.compile(rf"{re.escape(self.space.name)}-\d+\.yaml")  # a copy that somebody changed has another name
        for old in folder.glob("*.yaml"):
            if ours.fullmatch(old.name) and old.name not in wanted:
                old.unlink()

    def _write_pick(self, target: Path) -> None:
        if not _holds(target / "pick.yaml", self.pick):
            remove_report(target / "pick")  # another pick's; before the new pick is there, so that they never meet
        if self.pick is None:
            (target / "pick.yaml").unlink(missing_ok=True)
        else:
            write(target / "pick.yaml", to_yaml(self.pick))
        if self.report is not None:
            write_report(self.report, target / "pick")


def _holds(path: Path, recipe: Recipe | None) -> bool:
    try:
        return path.is_file() and Recipe.from_yaml(path) == recipe
    except RecipeError:
        return False
