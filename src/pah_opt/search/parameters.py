"""What is chosen: each open parameter of a space with its type and its range, taken from the strategy's own config."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from pah_opt.recipe.allowed import Schema, alternatives, in_words, opened_at
from pah_opt.recipe.mistakes import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Path = tuple["str | int", ...]
Value = str | int | float | bool

ALONE = frozenset({"choices", "low", "high", "any", "per"})
"""Keys that make a mapping a choice instead of a value."""
KEYS = ALONE | {"log", "step"}
RANGE = frozenset({"low", "high"})
FORMS = {"choices": {"choices"}, "low and high": RANGE, "any": {"any"}}
"""The ways to say between what is chosen, with their keys; a choice is written in one of them."""
INSIDE = 0.05
"""How far from a limit that may not be reached a derived range of any numbers ends, as a share of it; whole ones end at
the next."""


@dataclass(frozen=True)
class Parameter:
    """One thing that is chosen.

    Args:
        name: unique in the space, such as ``1.torchao.scheme``.
        step: index of the template.
        path: where the value stands in the step's parameters; empty for whether the step is there at all.
        kind: ``choice``, ``int`` or ``float``.
        choices: JSON values to choose from.
        low, high: ends of the range, both included.
        log: choose on a logarithmic scale.
        every: distance of neighbouring values; None for any.
        per: what there is one choice for: ``block`` or ``layer``; None for a parameter of its own.
    """

    name: str
    step: int
    path: Path
    kind: Literal["choice", "int", "float"]
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    every: float | None = None
    per: str | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The choices as text, by which they are stored."""
        return tuple(json.dumps(choice, sort_keys=True) for choice in self.choices)

    def value(self, stored: Value) -> Any:
        """Return the JSON value that a stored one stands for."""
        return json.loads(stored) if self.kind == "choice" and isinstance(stored, str) else stored

    def probes(self) -> tuple[Value, ...]:
        """Return the values to look at when not all can be: every choice, or both ends and the middle of a range."""
        if self.kind == "choice":
            return self.labels
        return tuple(dict.fromkeys(self.at(share) for share in (0.0, 0.5, 1.0)))

    def at(self, share: float) -> Value:
        """Return the value at a share of the range, 0 for the low end and 1 for the high one, or of the choices."""
        if self.kind == "choice":
            return self.labels[min(int(share * len(self.choices)), len(self.choices) - 1)]
        if self.log:
            found = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        else:
            found = self.low + share * (self.high - self.low)
        if self.every is not None:
            found = self.low + round((found - self.low) / self.every) * self.every
        found = min(max(found, self.low), self.high)
        return round(found) if self.kind == "int" else float(found)

    def share_of(self, value: Value) -> float:
        """Return where a number lies in the range, from 0 to 1: :meth:`at` turned round."""
        low, high, number = self.low, self.high, float(value)
        if self.log:
            low, high, number = math.log(low), math.log(high), math.log(number)
        return (number - low) / (high - low) if high > low else 0.0

    @property
    def size(self) -> float:
        """How many values there are; infinite for a continuous range."""
        if self.kind == "choice":
            return len(self.choices)
        if self.every is None and self.kind == "float":
            return math.inf
        return math.floor((self.high - self.low) / (self.every or 1.0) + 1e-9) + 1


def is_choice(value: Any) -> bool:
    """Tell whether a value of a template says between what is chosen."""
    return isinstance(value, Mapping) and bool(ALONE & value.keys())


def choices_in(values: Mapping[str, Any], path: Path = ()) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Yield every choice among parameters, however deep, with the keys that lead to it."""
    for key, value in values.items():
        if is_choice(value):
            yield (*path, key), value
        elif isinstance(value, Mapping):
            yield from choices_in(value, (*path, key))


def parameter(name: str, step: int, path: Path, spec: Mapping[str, Any], schema: Schema) -> Parameter:
    """Make a parameter from what a template says and what the config allows at ``path``.

    Raises:
        ValueError: what it says cannot be used; the message says why, and what is allowed.
    """
    _check_form(spec)
    types = _types(schema, path, spec)
    made = Parameter(name, step, path, "choice", _values(spec, types), per=spec.get("per"))
    return made if made.choices else _range(made, spec, types, schema)


def _check_form(spec: Mapping[str, Any]) -> None:
    """See that a choice is written in one way, and with words that mean something."""
    unknown = sorted(set(spec) - KEYS)
    if unknown:
        raise ValueError(f"there is no {unknown[0]!r} in a choice; allowed: {', '.join(sorted(KEYS))}")
    given = [form for form, keys in FORMS.items() if keys & spec.keys()]
    if len(given) != 1:
        said = f"this one has {' and '.join(given)}" if given else "this one has none of them"
        raise ValueError(f"a choice is made by one of {', '.join(FORMS)}, and {said}")
    if not isinstance(spec.get("log", False), bool):
        raise ValueError(f"log is {shown(spec['log'])}; allowed: true or false")  # noqa: TRY004  # as every mistake here
    if spec.get("any", True) is not True:
        raise ValueError(f"any is {shown(spec['any'])}; allowed: true, or give choices, or low and high")
    if spec.get("per", "block") not in ("block", "layer"):
        raise ValueError(f"per is {shown(spec['per'])}; allowed: block, layer")


def _types(schema: Schema, path: Path, spec: Mapping[str, Any]) -> list[Schema]:
    """Return what the value may be, or with ``per`` the value at one place."""
    found = list(opened_at(schema, path))
    if not found:
        raise ValueError("there is no such parameter")
    if "per" not in spec:
        return found
    items = [each["additionalProperties"] for each in found if isinstance(each.get("additionalProperties"), Mapping)]
    if not items:
        raise ValueError("per needs a parameter that maps layer patterns to values, and this one does not")
    return [one for each in items for one in alternatives(each, schema.get("$defs", {}))]


def _values(spec: Mapping[str, Any], types: Sequence[Schema]) -> tuple[Any, ...]:
    """Return what is chosen from; nothing for a range."""
    if RANGE & spec.keys():
        return ()
    values = _choices(spec["choices"]) if "choices" in spec else tuple(_enumerated(types))
    if values and {"log", "step"} & spec.keys():
        raise ValueError("log and step are for ranges, and this chooses between single values; leave them out")
    return values


def _choices(given: Any) -> tuple[Any, ...]:
    if not isinstance(given, list | tuple) or not given:
        raise ValueError(f"choices is {shown(given)}; it must be a list of at least one value")
    return tuple(given)


def _enumerated(types: Sequence[Schema]) -> list[Any]:
    """Return every value of types that have few: choices and truth values."""
    values: list[Any] = []
    for each in types:
        values += each.get("enum", [each["const"]] if "const" in each else [])
        values += [False, True] if each.get("type") == "boolean" else []
    return values


def _range(made: Parameter, spec: Mapping[str, Any], types: Sequence[Schema], schema: Schema) -> Parameter:
    numbers = [each for each in types if each.get("type") in ("number", "integer")]
    if not numbers:
        words = " or ".join(in_words(each, schema.get("$defs", {})) for each in types)
        raise ValueError(f"a range needs a number, and this parameter is {words}; give choices")
    whole = all(each["type"] == "integer" for each in numbers)
    low, high = _ends(spec, numbers[0], whole=whole)
    step = spec.get("step")
    if step is not None and (not _is_number(step) or step <= 0):
        raise ValueError(f"step is {shown(step)}; it must be a number above 0")
    if step is not None and whole and not float(step).is_integer():
        raise ValueError(f"step is {shown(step)}; this parameter takes whole numbers, and so must its step be one")
    log = spec.get("log", False)
    if log and low <= 0:
        raise ValueError(f"a logarithmic range must begin above 0, and low is {low:g}")
    if step is not None:
        if log:
            raise ValueError("log and step exclude one another; give one of them")
        high = low + math.floor((high - low) / step + 1e-9) * step
    kind: Literal["int", "float"] = "int" if whole else "float"
    return replace(made, kind=kind, low=low, high=high, log=log, every=step)


def _ends(spec: Mapping[str, Any], schema: Schema, *, whole: bool) -> tuple[float, float]:
    ends = (_end(spec, schema, "low"), _end(spec, schema, "high"))
    if not all(map(_is_number, ends)):
        raise ValueError(f"low is {shown(ends[0])} and high is {shown(ends[1])}; both must be numbers")
    low, high = _inside(float(ends[0]), float(ends[1]), whole=whole)
    low = low if "low" not in spec and "exclusiveMinimum" in schema else float(ends[0])
    high = high if "high" not in spec and "exclusiveMaximum" in schema else float(ends[1])
    if whole and not (low.is_integer() and high.is_integer()):
        raise ValueError(f"low is {low:g} and high is {high:g}; this parameter takes whole numbers")
    if low > high:
        raise ValueError(f"low is {low:g}, above high, {high:g}: there is nothing between them")
    return low, high


def _inside(low: float, high: float, *, whole: bool) -> tuple[float, float]:
    """Return the ends of a range whose limits may not be reached themselves."""
    if whole:
        return math.floor(low) + 1.0, math.ceil(high) - 1.0
    room = (high - low) * INSIDE
    return low + room, high - room


def _end(spec: Mapping[str, Any], schema: Schema, which: Literal["low", "high"]) -> Any:
    if which in spec:
        return spec[which]
    keys = ("minimum", "exclusiveMinimum") if which == "low" else ("maximum", "exclusiveMaximum")
    found = next((schema[key] for key in keys if key in schema), None)
    if found is None:
        raise ValueError(f"the parameter itself has no {which} end; give {which}")
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
