"""Space: which recipes are searched. Frozen data; what the parameters mean is checked against the registry later."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import Field, PrivateAttr

from pah_opt.errors import Place, Problem, RecipeError, nearest_name
from pah_opt.recipe.files import read_mapping
from pah_opt.recipe.mistakes import read_strictly
from pah_opt.recipe.places import Places
from pah_opt.recipe.schema import NAME_PATTERN, FrozenData, Parameters, dotted
from pah_opt.recipe.sources import as_fields, path_or_text
from pah_opt.search.budget import Budget

if TYPE_CHECKING:
    from os import PathLike


SpaceSource: TypeAlias = "Space | Mapping[str, Any] | str | PathLike[str]"
"""A Space, its data, the name of a preset, the path of a YAML or JSON file, or such text itself."""
TITLE = "this is not a search space"


class Template(FrozenData):
    """A step of every recipe in the space; each parameter is fixed, or says between what is chosen.

    A mapping that has the key ``choices``, ``low``, ``high``, ``any`` or ``per`` says between what is chosen:

    - ``{choices: [A, B]}``: one of these values;
    - ``{low: 0.2, high: 0.8}``: a number between both, ends included; whole where the parameter is; a missing end is
      the parameter's own limit; ``log: true`` chooses on a logarithmic scale, ``step`` every so much;
    - ``{any: true}``: whatever the parameter's type allows;
    - ``per: block`` or ``per: layer`` beside one of these, for a parameter that maps layer patterns to values: one
      choice for each block, or for each linear layer.
    """

    use: str = Field(min_length=1)
    """Name of a registered Optimizer."""
    with_: Parameters = Field(default_factory=dict, alias="with", validate_default=True)
    """Its parameters."""
    optional: bool = False
    """Whether recipes without this step are in the space too."""


class Space(FrozenData):
    """Ordered templates of steps, from which recipes are made."""

    name: str = Field(default="search", pattern=NAME_PATTERN, max_length=60)
    """Name of the space; recipes are named after it."""
    description: str = ""
    """What it is for."""
    steps: tuple[Template, ...] = Field(min_length=1)
    """The steps, in the order they run."""
    budget: Budget | None = None
    """Limits that come with the space; those given to the search itself count instead."""

    _places: Places = PrivateAttr(default_factory=Places)

    @classmethod
    def from_yaml(cls, source: str | Path) -> Space:
        """Read a space from a YAML or JSON file, or from such text, through the safe loader of recipes.

        Raises:
            RecipeError: with every problem found, each with its line.
        """
        try:
            data, places = read_mapping(source)
        except RecipeError as error:
            raise RecipeError(error.problems, TITLE) from error
        space = read_strictly(cls, data)
        if isinstance(space, list):
            problems = [
                Problem(m.message, Place(places.file, places.line(m.path), field=dotted(m.path) or None), m.allowed,
                        m.nearest)
                for m in space
            ]  # fmt: skip
            raise RecipeError(problems, TITLE)
        space._places = places  # noqa: SLF001  # its own, and nobody has seen it yet
        return space

    def to_data(self) -> dict[str, Any]:
        """Return the space as plain JSON data, defaults left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)

    def content(self) -> str:
        """Return what decides which recipes are in the space, as JSON text: equal for equal spaces."""
        data = self.model_dump(mode="json", by_alias=True, include={"steps"})
        return json.dumps(data, sort_keys=True, separators=(",", ":"))

    def place(self, step: int, *path: str | int) -> Place:
        """Return where a parameter of a step was written."""
        line = self._places.line(("steps", step, "with", *path))
        return Place(self._places.file, line, step, self.steps[step].use, dotted(("with", *path)) if path else None)


def space_presets() -> dict[str, Space]:
    """Return the spaces that come with the library, by name."""
    folder = files("pah_opt.search") / "presets"
    found = [Space.from_yaml(entry.read_text(encoding="utf-8")) for entry in folder.iterdir()]
    return {space.name: space for space in sorted(found, key=lambda space: space.name)}


def as_space(source: SpaceSource) -> Space:
    """Return the space itself, the preset of that name, or make it of its data, or read it from a file or text.

    Raises:
        RecipeError: it is none of these, or cannot be read; lists every problem with its line.
    """
    if isinstance(source, Space):
        return source
    if isinstance(source, str) and source.isidentifier() | source.replace("-", "_").isidentifier():
        presets = space_presets()
        if source in presets and not Path(source).is_file():
            return presets[source]
        if not Path(source).is_file():
            known = ", ".join(presets)
            problem = Problem(f"there is no space {source!r}", Place(), known, nearest_name(source, presets))
            raise RecipeError([problem], "unknown search space")
    if isinstance(source, Mapping):
        return Space(**as_fields(source))
    return Space.from_yaml(path_or_text(source, "space", "pah_opt.search.Space(steps=[...])"))
