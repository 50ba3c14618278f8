"""Studies from files: read by the loader of recipes, every mistake with its line and the nearest valid name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pah_opt.adapt.config import AdaptConfig
from pah_opt.errors import MeasurementError, Place, Problem, RecipeError, nearest_name
from pah_opt.measure.settings import MeasureSettings
from pah_opt.recipe.files import read_mapping
from pah_opt.recipe.mistakes import read_strictly
from pah_opt.recipe.places import Places
from pah_opt.recipe.schema import dotted
from pah_opt.recipe.sources import path_or_text
from pah_opt.registry import default_registry, validate
from pah_opt.study.results import FIGURES
from pah_opt.study.schema import Study

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

TITLE = "this study cannot be run"
DEEPEST = 8
"""Studies that may extend one another in a row."""


def packaged_studies() -> tuple[str, ...]:
    """Return the names of the studies that come with the library."""
    found = (entry.name for entry in (files("pah_opt.study") / "studies").iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in found if name.endswith(".yaml")))


def read_study(source: Study | Mapping[str, Any] | str | PathLike[str], **changes: Any) -> Study:
    """Read a study, and check everything that can be checked without the model.

    Args:
        source: a Study, its data, the path of a YAML or JSON file, such text, or the name of a study that comes with
            the library.
        **changes: fields to replace, such as ``model="./my-vit"``; None changes nothing.

    Raises:
        RecipeError: with every problem found, each with its line.
    """
    data, places = _data(source)
    data = {**data, **{name: value for name, value in changes.items() if value is not None}}
    study = read_strictly(Study, data)
    if isinstance(study, list):
        raise RecipeError(
            [Problem(m.message, _place(places, m.path), m.allowed, m.nearest) for m in study], "this is not a study"
        )
    if problems := list(_problems(study, places)):
        raise RecipeError(problems, TITLE)
    return study


def _data(source: Study | Mapping[str, Any] | str | PathLike[str]) -> tuple[dict[str, Any], Places]:
    if isinstance(source, Study):
        return source.model_dump(mode="json", by_alias=True), Places()
    if isinstance(source, Mapping):
        return dict(source), Places()
    source = path_or_text(source, "study", "pah_opt.study.Study(...)")
    text = str(source)
    if text in packaged_studies() and not Path(text).exists():
        source = str(files("pah_opt.study") / "studies" / f"{text}.yaml")
    try:
        return _extended(source, 0)
    except RecipeError as error:
        raise RecipeError([_advised(each, text) for each in error.problems], "this is not a study") from error


def _advised(problem: Problem, asked: str) -> Problem:
    """Say what there is instead of a file that cannot be read; a mistake inside a file keeps its own advice."""
    if problem.remedy is None:
        return problem
    if problem.place.file is not None and Path(problem.place.file) != Path(asked):
        return replace(problem, remedy="extends names a file, from the folder of the study that extends it")
    remedy = f"give a YAML file, or one of: {', '.join(packaged_studies())}"
    return replace(problem, nearest=nearest_name(asked, packaged_studies()), remedy=remedy)


def _extended(source: str | Path, depth: int) -> tuple[dict[str, Any], Places]:
    """Read a file; what it does not say comes from the study it extends."""
    data, places = read_mapping(source)
    if not isinstance(parent := data.get("extends"), str):
        return data, places
    if depth == DEEPEST:
        raise RecipeError([Problem(f"more than {DEEPEST} studies extend one another", _place(places, ("extends",)))])
    folder = Path(places.file).parent if places.file else Path()
    inherited, their_places = _extended(folder / parent, depth + 1)
    check = read_strictly(Study, inherited)
    if isinstance(check, list):
        raise RecipeError([Problem(m.message, _place(their_places, m.path), m.allowed, m.nearest) for m in check])
    # What is taken from the other file has no line in this one.
    own = {path: line for path, line in places.lines.items() if path and path[0] in data}
    return {**inherited, **data}, Places(places.file, own)


def _place(places: Places, path: tuple[str | int, ...]) -> Place:
    return Place(places.file, places.line(path), field=dotted(path) or None)


def _problems(study: Study, places: Places) -> Iterator[Problem]:
    yield from _adaptations(study, places)
    yield from _measuring(study, places)
    yield from _limits(study, places)
    yield from _defaults(study, places)
    yield from _steps(study, places)


def _adaptations(study: Study, places: Places) -> Iterator[Problem]:
    for name, settings in study.adaptations.items():
        options = dict(settings)
        place = _place(places, ("adaptations", name))
        try:
            config = AdaptConfig.of(str(options.pop("mode", "full")), options)
        except RecipeError as error:
            for problem in error.problems:
                field = problem.place.field.split(".") if problem.place.field else []
                yield replace(problem, place=_place(places, ("adaptations", name, *field)))
            continue
        if not config.validation and len(study.adaptations) > 1:
            yield Problem(
                f"the adaptation {name!r} has validation: 0, so it could be chosen by test images only", place,
                remedy="leave validation out (a tenth of the training images by default), or keep one adaptation",
            )  # fmt: skip


def _measuring(study: Study, places: Places) -> Iterator[Problem]:
    known = MeasureSettings.model_fields
    for name in study.measure:
        if name not in known:
            yield Problem(
                f"there is no {name!r} here", _place(places, ("measure", name)), ", ".join(known),
                nearest_name(name, known),
            )  # fmt: skip
    try:
        MeasureSettings.quick(**{name: value for name, value in study.measure.items() if name in known})
    except MeasurementError as error:
        yield Problem(str(error), _place(places, ("measure",)))


def _limits(study: Study, places: Places) -> Iterator[Problem]:
    for name in study.priorities.limits:
        if name not in FIGURES:
            yield Problem(
                f"there is no figure {name!r}", _place(places, ("priorities", "limits", name)), ", ".join(FIGURES),
                nearest_name(name, FIGURES),
            )  # fmt: skip


def _defaults(study: Study, places: Places) -> Iterator[Problem]:
    registry = default_registry()
    for name in study.defaults:
        if name not in registry.optimizers:
            yield registry.unknown(name, _place(places, ("defaults", name)))


def _steps(study: Study, places: Places) -> Iterator[Problem]:
    """Check every row's steps against the registry, with the lines of the study.

    What this machine lacks is asked when a row runs: that row is reported as not available, and the others run.
    """
    registry = default_registry()
    for at, section in enumerate(study.sections):
        for number, row in enumerate(section.rows):
            if not row.steps:
                continue
            path = ("sections", at, "rows", number)
            lines = {found[4:]: line for found, line in places.lines.items() if found[:4] == path}
            recipe = study.recipe(row, 0).placed(Places(places.file, lines))
            try:
                validate(recipe, registry, environment=None)
            except RecipeError as error:
                yield from error.problems
