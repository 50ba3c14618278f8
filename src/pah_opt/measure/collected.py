"""Raw findings of one model, filled stage by stage, so that an interruption keeps what is done."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pah_opt.measure.accuracy import Predictions
    from pah_opt.measure.candidate import Candidate
    from pah_opt.measure.model import ModelFigures
    from pah_opt.measure.model_report import BlockFigures, ExtraFigure
    from pah_opt.measure.schema import Memory, Provenance
    from pah_opt.measure.settings import Batch
    from pah_opt.measure.timing import Timed


@dataclass
class Collected:
    """What is known of one model so far; None or empty where it is not known yet."""

    candidate: Candidate
    figures: ModelFigures | None = None
    no_figures: str = ""
    blocks: tuple[BlockFigures, ...] = ()
    provenance: Provenance | None = None
    predictions: Predictions | None = None
    no_accuracy: str = ""
    memory: Memory | None = None
    timings: dict[Batch, Timed] = field(default_factory=dict)
    extra: dict[str, ExtraFigure] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
