"""Facts: what an attribute must say. One list of them serves both to write attributes and to find false ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

ABSENT = object()
"""Value of an attribute that must not be there."""


def as_pair(value: Any) -> Any:
    """Return ``(height, width)`` of a size written as one number, a list or a tuple; anything else unchanged."""
    if isinstance(value, (list, tuple)):
        return tuple(value) if len(value) > 1 else (*value, *value)
    return (value, value) if isinstance(value, int) else value


def as_size(pair: tuple[int, int]) -> int | list[int]:
    """Return a size as configs write it: one number when square, else a list."""
    height, width = pair
    return height if height == width else [height, width]


@dataclass(frozen=True)
class Fact:
    """What one attribute must say.

    Args:
        owner: the object that has the attribute.
        where: its name in messages, such as ``vit.layers.0.attention`` or ``config``.
        attribute: the attribute.
        value: what the tensors say, or :data:`ABSENT`.
        size: it is a size, which may be written as one number or two.
    """

    owner: Any
    where: str
    attribute: str
    value: Any
    size: bool = False

    @property
    def stated(self) -> Any:
        """What the attribute says now."""
        return getattr(self.owner, self.attribute, ABSENT)

    @property
    def is_true(self) -> bool:
        """Whether the attribute says what it must."""
        stated, value = self.stated, self.value
        if stated is ABSENT or value is ABSENT:
            return stated is value
        if self.size:
            return bool(as_pair(stated) == as_pair(value))
        if isinstance(value, float):
            return isinstance(stated, (int, float)) and math.isclose(stated, value, rel_tol=1e-6)
        return bool(stated == value)

    def write(self) -> None:
        """Make the attribute say what it must."""
        if self.value is ABSENT:
            delattr(self.owner, self.attribute)
        else:
            setattr(self.owner, self.attribute, self.value)

    def __str__(self) -> str:
        """Render as ``config.num_attention_heads is 4, the tensors say 2``."""
        stated = "missing" if self.stated is ABSENT else repr(self.stated)
        wanted = "it should not be there" if self.value is ABSENT else f"the tensors say {self.value!r}"
        return f"{'.'.join(part for part in (self.where, self.attribute) if part)} is {stated}, {wanted}"
