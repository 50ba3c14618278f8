"""Recipes to files and back: YAML and JSON read by one safe route that knows the line of every value."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pah_opt.errors import Place, Problem, RecipeError
from pah_opt.recipe.events import Composer, Event, TextError
from pah_opt.recipe.json_text import is_json, json_events
from pah_opt.recipe.mistakes import read_strictly, shown
from pah_opt.recipe.places import Places
from pah_opt.recipe.schema import Recipe, dotted
from pah_opt.recipe.yaml_text import yaml_events, yaml_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pah_opt.recipe.mistakes import Mistake

MOST_BYTES = 1_000_000
"""Largest recipe file that is read."""


def read_recipe(source: str | Path) -> Recipe:
    """Read a recipe from a file or from text.

    Args:
        source: a :class:`~pathlib.Path`, or a ``str``: text if it has more than one line; a path if such a file
            exists; text if it contains ``{`` or ``": "``; otherwise a path.

    Returns:
        The recipe; it remembers the line of every value.

    Raises:
        RecipeError: with everything that is wrong, each with its line.
    """
    data, places = read_mapping(source)
    recipe = read_strictly(Recipe, data)
    if isinstance(recipe, list):
        raise RecipeError([_problem(mistake, data, places) for mistake in recipe], "this is not a recipe")
    return recipe.placed(places)


def read_mapping(source: str | Path) -> tuple[dict[str, Any], Places]:
    """Read a mapping of JSON data from a file or from text, told apart as in :func:`read_recipe`.

    Returns:
        The mapping, and the line of every value in it.

    Raises:
        RecipeError: it cannot be read, or is no mapping.
    """
    if isinstance(source, str) and _is_text(source):
        return _parse(source, None)
    return _parse(_file_text(Path(source)), str(source))


def to_yaml(recipe: Recipe) -> str:
    """Return the recipe as YAML that reads back equal."""
    return yaml_of(recipe.to_data())


def _is_text(source: str) -> bool:
    if "\n" in source or not source.strip():
        return True
    try:
        if Path(source).is_file():
            return False
    except (OSError, ValueError):  # no path: too long, or with a NUL
        return True
    return "{" in source or ": " in source


def _file_text(path: Path) -> str:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise _error(f"the file has {path.stat().st_size:,} bytes; a recipe has at most {MOST_BYTES:,}", path)
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)  # a pipe or a device tells no size
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        remedy = "give the path of a YAML or JSON file, or the name of a preset (pah-opt presets)"
        raise _error(f"cannot be read: {getattr(error, 'strerror', error)}", path, remedy=remedy) from error
    if len(content) > MOST_BYTES:
        raise _error(f"there are more than {MOST_BYTES:,} bytes; a recipe has fewer", path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _error(f"not UTF-8 text: byte 0x{content[error.start]:02X}", path, line) from error


def _error(message: str, file: Path | str | None, line: int | None = None, remedy: str | None = None) -> RecipeError:
    place = Place(None if file is None else str(file), line)
    return RecipeError([Problem(message, place, remedy=remedy)], "this is not a recipe")


def _parse(text: str, file: str | None) -> tuple[dict[str, Any], Places]:
    composer = Composer()
    try:
        data = composer.compose(_events(text))
    except TextError as error:
        raise _error(str(error), file, error.line) from error
    if data is None:
        raise _error("it is empty; a recipe has at least: steps: [{use: NAME}]", file)
    if not isinstance(data, dict):
        raise _error(f"a recipe is a mapping with the keys steps, name, ...; got {shown(data)}", file, 1)
    return data, Places(file, composer.lines)


def _events(text: str) -> Iterable[Event]:
    return json_events(text) if is_json(text) else yaml_events(text)


def _problem(mistake: Mistake, data: dict[str, Any], places: Places) -> Problem:
    step = mistake.path[1] if len(mistake.path) > 1 and mistake.path[0] == "steps" else None
    field = dotted(mistake.path if step is None else mistake.path[2:]) or None
    place = Place(places.file, places.line(mistake.path), None if step is None else int(step), _use(data, step), field)
    return Problem(mistake.message, place, mistake.allowed, mistake.nearest)


def _use(data: dict[str, Any], step: str | int | None) -> str | None:
    if step is None:
        return None
    found = data["steps"][step]
    use = found.get("use") if isinstance(found, dict) else None
    return use if isinstance(use, str) else None
