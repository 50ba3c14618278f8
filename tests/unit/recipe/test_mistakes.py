"""Pydantic's errors in the words of the user's data."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from pah_opt import OptimizerConfig
from pah_opt.recipe.mistakes import Mistake, read_strictly


class Scope(Enum):
    LAYER = "layer"
    WHOLE = "global"


class Part(OptimizerConfig):
    width: int = Field(8, ge=1, multiple_of=8)


class Config(OptimizerConfig):
    ratio: float = Field(0.5, gt=0, lt=1)
    count: int | None = Field(None, ge=1)
    importance: Literal["taylor", "l1", "l2"] = "l1"
    scope: Scope = Scope.LAYER
    flag: bool = False
    size: tuple[int, int] = (1, 1)
    names: list[str] = Field(default_factory=list)
    ratios: float | dict[str, float] = 0.1
    mixed: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    part: Part = Part()
    maybe: Part | None = None
    even: int = 0
    odd: int = 1

    @field_validator("odd")
    @classmethod
    def _odd(cls, value: int) -> int:
        if not value % 2:
            raise PydanticCustomError("not_odd", "odd must be odd, got {value}", {"value": value})
        return value

    @field_validator("even")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError(f"even must be even, got {value}")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.flag and self.count is None:
            raise ValueError("flag needs count")
        return self


def read(**data: Any) -> list[Mistake]:
    found = read_strictly(Config, data)
    assert isinstance(found, list), f"{data} was accepted"
    return found


def test_what_a_validator_raises_is_said_in_its_words() -> None:
    assert read(even=3) == [Mistake(("even",), "even must be even, got 3")]
    assert read(odd=2) == [Mistake(("odd",), "odd must be odd, got 2")]


def test_right_data_becomes_the_config() -> None:
    config = read_strictly(
        Config, {"ratio": 1e-4, "scope": "global", "size": [2, 3], "part": {"width": 16}, "mixed": 4}
    )
    assert isinstance(config, Config)
    assert (config.ratio, config.scope, config.size, config.part.width) == (1e-4, Scope.WHOLE, (2, 3), 16)


@pytest.mark.parametrize(
    ("name", "value", "message", "allowed", "nearest"),
    [
        ("ratio", 1.5, "got 1.5", "number > 0 and < 1", None),
        ("ratio", "0.5", 'got the text "0.5"', "number > 0 and < 1", None),
        ("ratio", True, "got true", "number > 0 and < 1", None),
        ("ratio", None, "got null", "number > 0 and < 1", None),
        ("count", 0, "got 0", "whole number >= 1 or null", None),
        ("count", 2.0, "got 2.0", "whole number >= 1 or null", None),
        ("count", True, "got true", "whole number >= 1 or null", None),
        ("importance", "tailor", 'got the text "tailor"', "taylor, l1 or l2", "taylor"),
        ("scope", "Global", 'got the text "Global"', "layer or global", "global"),
        ("flag", "yes", 'got the text "yes"', "true or false", None),
        ("flag", 1, "got 1", "true or false", None),
        ("size", [1], "got [1]", "list of whole number, whole number", None),
        ("names", "classifier", 'got the text "classifier"', "list of text", None),
        ("ratios", "much", 'got the text "much"', "number or mapping of names to number", None),
        ("mixed", "autp", 'got the text "autp"', "auto or whole number >= 1", "auto"),
        ("mixed", 0, "got 0", "auto or whole number >= 1", None),
        ("part", 3, "got 3", "mapping with the keys width", None),
    ],
)
def test_a_wrong_value_is_shown_with_what_is_allowed(
    name: str, value: Any, message: str, allowed: str, nearest: str | None
) -> None:
    assert read(**{name: value}) == [Mistake((name,), message, allowed, nearest)]


def test_a_wrong_key_is_named_with_the_nearest() -> None:
    (mistake,) = read(importence="l1")
    assert mistake.path == ("importence",)
    assert mistake.message == "there is no 'importence' here"
    assert mistake.nearest == "importance"
    assert str(mistake.allowed).startswith("count, even, flag, importance")


def test_a_wrong_key_of_a_model_that_may_be_null_is_named_with_the_nearest() -> None:
    assert read(maybe={"wdth": 8}) == [Mistake(("maybe", "wdth"), "there is no 'wdth' here", "width", "width")]


def test_wrong_values_deep_inside_are_placed_there() -> None:
    found = read(names=["a", 3], ratios={"fc1": "x"}, part={"width": 12, "wdth": 8})
    assert {mistake.path: (mistake.message, mistake.allowed) for mistake in found} == {
        ("names", 1): ("got 3", "text"),
        ("ratios", "fc1"): ('got the text "x"', "number"),
        ("part", "width"): ("got 12", "whole number >= 1 and a multiple of 8"),
        ("part", "wdth"): ("there is no 'wdth' here", "width"),
    }


def test_a_missing_parameter_is_named() -> None:
    class Needs(OptimizerConfig):
        scheme: Literal["int8", "int4"]

    assert read_strictly(Needs, {}) == [Mistake(("scheme",), "'scheme' is missing", "int8 or int4")]


def test_a_validators_own_words_are_kept() -> None:
    assert read(even=3) == [Mistake(("even",), "even must be even, got 3")]
    assert read(flag=True) == [Mistake((), "flag needs count")]


def test_a_long_value_is_shortened() -> None:
    (mistake,) = read(ratio="x" * 1000)
    assert len(mistake.message) < 100


def test_a_parameterless_config_says_so() -> None:
    found = read_strictly(OptimizerConfig, {"x": 1})
    assert found == [Mistake(("x",), "there is no 'x' here", "no parameters")]
