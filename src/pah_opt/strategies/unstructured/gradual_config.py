"""Parameters of ``gradual-pruning``: a schedule of sparsity, and the training after each step. Free of torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pah_opt.adapt.settings import RecoverySettings
from pah_opt.optimizer import OptimizerConfig
from pah_opt.strategies.unstructured.config import LayerChoice, Observation, SparseGptConfig, UnstructuredConfig


class Schedule(OptimizerConfig):
    """How sparsity rises."""

    sparsity: float = Field(default=0.9, gt=0, lt=1)
    """Share of the chosen layers' weights that are zero in the end, above 0 and below 1."""
    initial_sparsity: float = Field(default=0.0, ge=0, lt=1)
    """Where the schedule starts; the first pruning goes beyond it already."""
    rounds: int = Field(default=6, ge=1, le=1000)
    """How often the model is pruned and then trained. Sparsity rises along a cubic: fast first, slowly at the end."""
    method: Literal["magnitude", "lamp", "taylor", "obd", "wanda", "sparsegpt"] = "magnitude"
    """How weights are chosen each time, as in `unstructured-pruning`; `sparsegpt` also updates the others before the
    training goes on."""


class GradualConfig(RecoverySettings, Observation, LayerChoice, Schedule):
    """Parameters of `gradual-pruning`."""

    epochs: int = Field(default=1, ge=1, le=10_000)
    """How often every training image is seen after each pruning."""
    steps: int | None = Field(default=None, ge=1)
    """Train for this many updates after each pruning instead."""
    batch_size: int = Field(default=64, ge=1)
    """Images in one update, and in one pass over calibration images."""

    @model_validator(mode="after")
    def _schedule_rises(self) -> GradualConfig:
        if self.initial_sparsity >= self.sparsity:
            raise ValueError(f"initial_sparsity {self.initial_sparsity} must be below sparsity {self.sparsity}")
        if self.early_stop is not None:
            raise ValueError(
                "early_stop is for a single training; leave it out, or end with a recover step that has it"
            )
        return self

    @property
    def schedule(self) -> list[float]:
        """Sparsity after each pruning; the last one is ``sparsity``.

        >>> [round(share, 3) for share in GradualConfig(sparsity=0.8, rounds=4).schedule]
        [0.463, 0.7, 0.788, 0.8]
        """
        start, end = self.initial_sparsity, self.sparsity
        return [end + (start - end) * (1 - done / self.rounds) ** 3 for done in range(1, self.rounds + 1)]

    def repairing(self, zeros: float) -> SparseGptConfig:
        """Return the parameters of one `sparsegpt` pruning."""
        return SparseGptConfig(sparsity=zeros, images=self.images, batch_size=self.batch_size)

    def scoring(self) -> UnstructuredConfig:
        """Return the parameters of one `unstructured-pruning` by importance."""
        if self.method == "sparsegpt":
            raise ValueError("sparsegpt is not an importance")
        return UnstructuredConfig(importance=self.method, images=self.images, batch_size=self.batch_size)
