"""The Metric protocol: how a plugin adds a figure to reports."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import nn

    from pah_opt.layout import ModelAdapter
    from pah_opt.splits import Split


class Figure(NamedTuple):
    """One measured value; ``value`` is None when it cannot be had, and then ``reason`` says why."""

    value: float | None
    reason: str | None = None


@runtime_checkable
class Metric(Protocol):
    """Adds one figure per model to a Report, under ``extra.<name>``.

    Class attributes:
        name: lower case with underscores, ending in its unit, such as ``robust_top1_pct``.
        summary: one sentence for reports.
        better: whether ``lower`` or ``higher`` is better.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    better: ClassVar[Literal["lower", "higher"]]

    @abstractmethod
    def measure(self, model: nn.Module, adapter: ModelAdapter | None, test: Split | None) -> Figure:
        """Measure ``model`` (in ``eval`` mode) and return the figure; exceptions are reported as its reason."""
