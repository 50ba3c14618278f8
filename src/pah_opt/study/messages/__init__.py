"""Everything a report says, by language: one catalogue for each, numbers written as that language writes them."""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from pah_opt.errors import RecipeError, nearest_name
from pah_opt.report.numbers import DASH, TIMES, decimals, figures

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pah_opt.study.schema import Text

Lang = Literal["en", "fr"]
LANGUAGES: tuple[Lang, ...] = get_args(Lang)
Kind = Literal["pct", "share", "points", "change", "mb", "x", "ms", "seconds", "count", "number", "p"]
THIN = "\N{NARROW NO-BREAK SPACE}"
SPACE = "\N{NO-BREAK SPACE}"


class Value(NamedTuple):
    """A figure in a sentence: what kind it is decides how it is written."""

    kind: Kind
    number: float | None


class Observation(NamedTuple):
    """A sentence to be: the key of its message, and what is filled in."""

    key: str
    values: Mapping[str, Value | str | Observation]


def catalogue(lang: str) -> Mapping[str, str]:
    """Return every message of a language, by key.

    Raises:
        RecipeError: there is no such language.
    """
    if lang not in LANGUAGES:
        problem = f"there is no report in the language {lang!r}; allowed: {', '.join(LANGUAGES)}"
        nearest = nearest_name(lang, LANGUAGES)
        raise RecipeError(problem + (f"; did you mean {nearest!r}?" if nearest else ""))
    found: Mapping[str, str] = import_module(f"pah_opt.study.messages.{lang}").MESSAGES
    return found


class Wording:
    """Writes sentences and figures in one language.

    Args:
        lang: ``en`` or ``fr``.
    """

    def __init__(self, lang: Lang = "en") -> None:
        self.lang = lang
        self._messages = catalogue(lang)

    def say(self, key: str, **values: Value | str) -> str:
        """Return a message with its figures filled in."""
        return self._messages[key].format(
            **{name: value if isinstance(value, str) else self.write(value) for name, value in values.items()}
        )

    def tell(self, observation: Observation) -> str:
        """Return an observation as a sentence; one that another holds is filled in first."""
        inner = {
            name: self.tell(value) if isinstance(value, Observation) else value
            for name, value in observation.values.items()
        }
        return self.say(observation.key, **inner)

    def text(self, text: Text) -> str:
        """Return a study's own text in this language."""
        return text if isinstance(text, str) else str(getattr(text, self.lang))

    def write(self, value: Value, *, unit: bool = True) -> str:
        """Write one figure, with its unit or, for the cells of a table, without."""
        number = value.number
        if number is None:
            return DASH
        bare = self._localised(_BARE[value.kind](number))
        if not unit:
            return bare + _MARKS.get(value.kind, "")
        key = f"unit_{value.kind}"
        few = f"{key}_few" if abs(number) < 2 else key  # French counts 1.9 as one
        return bare + self._messages.get(few, self._messages[key])

    def _localised(self, text: str) -> str:
        if self.lang == "en":
            return text
        return re.sub(r"[.,]", lambda found: "," if found.group() == "." else THIN, text)


def _signed(number: float) -> str:
    return decimals(number + 0.0, 2, sign=True).replace("-", "\N{MINUS SIGN}") if round(number, 2) else "0.00"


_BARE: dict[Kind, Callable[[float], str]] = {
    "pct": lambda n: decimals(n, 1),
    "share": lambda n: decimals(100.0 * n, 2),
    "points": lambda n: decimals(n, 2),
    "change": _signed,
    "mb": lambda n: figures(n / 1e6),
    "x": lambda n: decimals(n, 2),
    "ms": figures,
    "seconds": lambda n: decimals(n, 1) if n < 100 else f"{n:,.0f}",
    "count": lambda n: f"{n:,.0f}",
    "number": figures,
    "p": lambda n: f"{n:.2g}" if n >= 0.001 else "0.001",
}
_MARKS: dict[Kind, str] = {"x": TIMES}
