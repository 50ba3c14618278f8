"""Frozen data of a search, its mistakes named like those of a recipe."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from pah_opt.errors import Place, Problem, RecipeError
from pah_opt.recipe.mistakes import mistakes
from pah_opt.recipe.schema import dotted


class SearchData(BaseModel):
    """Frozen data whose mistakes are RecipeErrors."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, use_attribute_docstrings=True)

    def __init__(self, /, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            kind = type(self)
            problems = [
                Problem(m.message, Place(field=dotted(m.path)), m.allowed, m.nearest)
                for m in mistakes(error, kind, data)
            ]
            raise RecipeError(problems, f"this is not a {kind.__name__}") from error

    # As in the recipe's own base: parts are not made through __init__, so that all mistakes are found.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]
