"""Step, Gate and Recipe: frozen pydantic data. What the parameters mean is checked against the registry, not here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._+-]*$"


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, use_attribute_docstrings=True)


class Step(_Data):
    """An Optimizer's name and its parameters."""

    use: str = Field(min_length=1)
    """Name of a registered Optimizer, as ``pah-opt list`` shows it."""
    with_: dict[str, JsonValue] = Field(default_factory=dict, alias="with")
    """The Optimizer's parameters, as ``pah-opt list NAME`` shows them."""

    @classmethod
    def of(cls, use: str, /, **parameters: JsonValue) -> Step:
        """Make a step from keyword arguments: ``Step.of("torchao", scheme="int8-dynamic")``."""
        return cls(use=use, with_=parameters)


class Gate(_Data):
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


class Recipe(_Data):
    """Ordered steps, a seed and gates. Two recipes with the same content are equal."""

    name: str = Field(default="recipe", pattern=NAME_PATTERN, max_length=100)
    """Name in reports and file names."""
    description: str = ""
    """What it is for."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seeds every random choice: same seed, data and versions give the same model."""
    steps: tuple[Step, ...] = Field(min_length=1)
    """What is done, in this order."""
    gates: Mapping[str, Gate] = Field(default_factory=dict)
    """Limits for figures of the report, by name."""

    @classmethod
    def from_yaml(cls, source: str | Path) -> Recipe:
        """Read a recipe from a YAML or JSON file (a :class:`~pathlib.Path`) or from text.

        Raises:
            RecipeError: with every problem found, each with its line.
        """
        from pah_opt.recipe.files import read_recipe

        return read_recipe(source)

    from_json = from_yaml

    def to_yaml(self) -> str:
        """Return the recipe as YAML that reads back equal."""
        from pah_opt.recipe.files import to_yaml

        return to_yaml(self)

    def to_json(self) -> str:
        """Return the recipe as JSON that reads back equal."""
        return self.model_dump_json(by_alias=True, indent=2, exclude_defaults=True)

    def to_data(self) -> dict[str, Any]:
        """Return the recipe as plain JSON data, defaults left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)

    @property
    def sha256(self) -> str:
        """Hash of the content, the same in Python, YAML and JSON."""
        import hashlib

        return hashlib.sha256(self.model_dump_json(by_alias=True).encode()).hexdigest()
