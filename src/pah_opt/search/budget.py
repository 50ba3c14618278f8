"""What a recipe may cost, and which of its costs is to be as low as it can be."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from pah_opt.recipe.schema import FrozenData, Gate, Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

Objective = Literal["latency", "size", "macs", "params", "energy"]
FIGURES: dict[Objective, str] = {
    "latency": "latency_p50_ms", "size": "artifact_bytes", "macs": "macs", "params": "params", "energy": "j_per_image",
}  # fmt: skip
"""The figure that each objective minimises, as reports name it."""
SAME_FIGURE = frozenset({"latency_ms", "speedup_x"})
"""Two ways of limiting the latency, of which a budget has one."""
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Budget(FrozenData):
    """Limits that a recipe must keep, and the cost that is minimised within them."""

    minimise: Objective = "latency"
    """What the best recipe has least of."""
    top1_drop_pp: float = Field(default=1.0, ge=0, le=100, allow_inf_nan=False)
    """Most top-1 that may be lost against the dense model, in percentage points."""
    confidence: float | None = Field(default=None, gt=0.5, lt=1)
    """How sure it must be that no more is lost on images that did not decide, such as 0.9; without it the drop on those
    that did counts as it is, and the best of many recipes has been lucky on them."""
    file_mb: Positive | None = None
    """Most megabytes (10^6 bytes) of the weights file."""
    latency_ms: Positive | None = None
    """Most milliseconds of a forward pass on this device, median."""
    speedup_x: Positive | None = None
    """Least speed-up over the dense model; another way of limiting the latency."""
    macs: Positive | None = None
    """Most multiply-accumulates for one image."""
    params: Positive | None = None
    """Most parameters."""
    energy_j: Positive | None = None
    """Most joules for one image; needs a device that counts energy."""
    batch_size: int = Field(default=1, ge=1, le=4096)
    """Images in the forward pass whose latency is meant."""

    @model_validator(mode="after")
    def _not_twice(self) -> Budget:
        if self.latency_ms is not None and self.speedup_x is not None:
            raise ValueError(
                f"latency_ms {self.latency_ms:g} and speedup_x {self.speedup_x:g} limit the same figure and may "
                "contradict one another; give one of them"
            )
        return self

    @model_validator(mode="after")
    def _can_be_known(self) -> Budget:
        if self.confidence is not None and self.top1_drop_pp == 0:
            raise ValueError(
                f"top1_drop_pp 0 with confidence {self.confidence:g}: no number of images shows that nothing is lost; "
                "allow a drop above 0, or leave confidence out"
            )
        return self

    @classmethod
    def of(cls, given: Mapping[str, Any], base: Budget | None = None) -> Budget:
        """Make a budget of what is given; what is not is taken from ``base``.

        >>> Budget.of({"speedup_x": 2}, Budget(latency_ms=9, file_mb=30)).limits().keys()
        dict_keys(['top1_drop_pp', 'artifact_bytes', 'speedup_p50_x'])

        Raises:
            RecipeError: a limit means nothing, or two given ones contradict one another.
        """
        kept = {} if base is None else base.model_dump(exclude_unset=True)
        if given.keys() & SAME_FIGURE:  # another way of limiting the latency counts instead, not as well
            kept = {name: value for name, value in kept.items() if name not in SAME_FIGURE}
        return cls(**{**kept, **given})

    @property
    def figure(self) -> str:
        """Name of the figure that is minimised."""
        return FIGURES[self.minimise]

    @property
    def needs_latency(self) -> bool:
        """Whether trials must be timed."""
        return self.minimise == "latency" or self.latency_ms is not None or self.speedup_x is not None

    @property
    def needs_energy(self) -> bool:
        """Whether trials' energy must be measured."""
        return self.minimise == "energy" or self.energy_j is not None

    def limits(self) -> dict[str, Gate]:
        """Return the limits as gates of a report, by figure."""
        most = {
            "top1_drop_pp": self.top1_drop_pp, "latency_p50_ms": self.latency_ms, "macs": self.macs,
            "artifact_bytes": None if self.file_mb is None else self.file_mb * 1e6, "params": self.params,
            "j_per_image": self.energy_j,
        }  # fmt: skip
        gates = {name: Gate(max=value) for name, value in most.items() if value is not None}
        return gates | ({} if self.speedup_x is None else {"speedup_p50_x": Gate(min=self.speedup_x)})

    def gated(self, recipe: Recipe, name: str | None = None) -> Recipe:
        """Return a recipe with the limits as its gates, under another name if one is given."""
        return Recipe(**{**recipe.to_data(), "name": name or recipe.name, "gates": self.limits()})

    def excess(self, figures: Mapping[str, float | None]) -> dict[str, float]:
        """Return by how much each known figure misses its limit, as a share of it; nothing for those that keep it.

        With ``confidence`` the drop counts with its error, ``top1_drop_error_pp``.
        ``top1_drop_pp`` is counted in percentage points: its limit may be 0.

        >>> Budget(file_mb=2.0).excess({"artifact_bytes": 3e6, "top1_drop_pp": 0.5})
        {'artifact_bytes': 0.5}
        """
        missed = {}
        for name, gate in self.limits().items():
            value = self._likely_drop(figures) if name == "top1_drop_pp" else figures.get(name)
            if value is None:
                continue
            over = value - gate.max if gate.max is not None else (gate.min or 0.0) - value
            scale = 1.0 if name == "top1_drop_pp" else gate.max or gate.min or 1.0
            if over > 0:
                missed[name] = over / scale
        return missed

    @property
    def fewest_images(self) -> int:
        """How many validation images it takes at least before a drop can be known to keep its limit.

        >>> Budget(top1_drop_pp=1.0, confidence=0.9).fewest_images
        129
        """
        return 1 if self.confidence is None else math.ceil(100.0 * self._quantile / self.top1_drop_pp)

    @property
    def _quantile(self) -> float:
        """Standard errors above the measured drop up to which it counts."""
        return 0.0 if self.confidence is None else NormalDist().inv_cdf(self.confidence)

    def _likely_drop(self, figures: Mapping[str, float | None]) -> float | None:
        """Return the drop that ``confidence`` allows to count on: the upper end of a one-sided normal interval."""
        drop = figures.get("top1_drop_pp")
        return None if drop is None else drop + self._quantile * (figures.get("top1_drop_error_pp") or 0.0)
