"""Step, Gate and Recipe: frozen pydantic data. What the parameters mean is checked against the registry, not here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from pah_opt.errors import Place, Problem, RecipeError
from pah_opt.recipe.frozen import frozen, plain
from pah_opt.recipe.mistakes import mistakes
from pah_opt.recipe.places import Places

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pah_opt.recipe.mistakes import Mistake

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._+-]*$"


class FrozenData(BaseModel):
    """Frozen data that users write, whose mistakes are RecipeErrors."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, use_attribute_docstrings=True)

    def __init__(self, /, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            kind = type(self)
            raise RecipeError(as_problems(mistakes(error, kind, data)), f"this is not a {kind.__name__}") from error

    # Tells pydantic that parts inside other data need not be made through __init__, so that all their mistakes are
    # collected; its own RootModel does the same.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


Parameters = Annotated[
    Mapping[str, JsonValue], BeforeValidator(plain), AfterValidator(frozen), PlainSerializer(plain, when_used="always")
]


class Step(FrozenData):
    """An Optimizer's name and its parameters."""

    use: str = Field(min_length=1)
    """Name of a registered Optimizer, as ``pah-opt list`` shows it."""
    with_: Parameters = Field(default_factory=dict, alias="with", validate_default=True)
    """The Optimizer's parameters, as ``pah-opt list NAME`` shows them."""

    @classmethod
    def of(cls, use: str, /, **parameters: Any) -> Step:
        """Make a step from keyword arguments.

        >>> Step.of("torchao", scheme="int8-dynamic").use
        'torchao'

        Raises:
            RecipeError: a parameter is no JSON data.
        """
        return cls(**{"use": use, "with": parameters})

    @property
    def parameters(self) -> dict[str, Any]:
        """A copy of the parameters, as ordinary dicts and lists."""
        copy: dict[str, Any] = plain(self.with_)
        return copy


class Gate(FrozenData):
    """A limit that a figure of the report must keep."""

    max: float | None = Field(default=None, allow_inf_nan=False)
    """The figure must not be above this."""
    min: float | None = Field(default=None, allow_inf_nan=False)
    """The figure must not be below this."""

    @model_validator(mode="after")
    def _has_a_limit(self) -> Gate:
        if self.max is None and self.min is None:
            raise ValueError("a gate needs max, min or both")
        if self.max is not None and self.min is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}: nothing can pass")
        return self


class Recipe(FrozenData):
    """Ordered steps, a seed and gates. Two recipes with the same content are equal."""

    name: str = Field(default="recipe", pattern=NAME_PATTERN, max_length=100)
    """Name in reports and file names."""
    description: str = ""
    """What it is for."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seeds every random choice: same seed, data and versions give the same model."""
    steps: tuple[Step, ...] = Field(min_length=1)
    """What is done, in this order."""
    gates: Annotated[Mapping[str, Gate], AfterValidator(frozen)] = Field(default_factory=dict, validate_default=True)
    """Limits for figures of the report, by name."""

    _places: Places = PrivateAttr(default_factory=Places)

    @classmethod
    def from_yaml(cls, source: str | Path) -> Recipe:
        """Read a recipe from a YAML or JSON file, or from such text.

        Args:
            source: a path, or text; see :func:`~pah_opt.recipe.files.read_recipe` for how a ``str`` is told apart.

        Raises:
            RecipeError: with every problem found, each with its line.
        """
        from pah_opt.recipe.files import read_recipe

        return read_recipe(source)

    @classmethod
    def from_json(cls, source: str | Path) -> Recipe:
        """Read a recipe from a JSON file or text: the same as :meth:`from_yaml`, which reads both."""
        return cls.from_yaml(source)

    def to_yaml(self) -> str:
        """Return the recipe as YAML that reads back equal."""
        from pah_opt.recipe.files import to_yaml

        return to_yaml(self)

    def to_json(self) -> str:
        """Return the recipe as JSON that reads back equal."""
        return json.dumps(self.to_data(), indent=2, ensure_ascii=False) + "\n"

    def to_data(self) -> dict[str, Any]:
        """Return the recipe as plain JSON data, defaults left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)

    @property
    def sha256(self) -> str:
        """Hash of the content, the same in Python, YAML and JSON, whatever the order of parameters."""
        content = json.dumps(self.model_dump(mode="json", by_alias=True), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()

    def place(self, *path: str | int) -> Place:
        """Return where the value at ``path`` stands, such as ``recipe.place("steps", 0, "with", "scheme")``."""
        in_step = len(path) > 1 and path[0] == "steps"
        step = int(path[1]) if in_step else None
        use = self.steps[step].use if step is not None and step < len(self.steps) else None
        rest = path[2:] if in_step else path
        return Place(self._places.file, self._places.line(path), step, use, dotted(rest) or None)

    def placed(self, places: Places) -> Recipe:
        """Return this recipe, remembering where it was written."""
        copy = self.model_copy()
        copy._places = places  # noqa: SLF001  # its own
        return copy


def as_problems(found: Iterable[Mistake]) -> list[Problem]:
    """Return mistakes in data that was written in no file, each under the name of its field."""
    return [Problem(m.message, Place(field=dotted(m.path)), m.allowed, m.nearest) for m in found]


def dotted(path: tuple[str | int, ...]) -> str:
    """Render keys and indices as ``with.sizes[0]``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
