"""What the strategies declare about themselves; the work is done in modules that are imported when a step runs."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, TypeVar

from pah_opt.environment import Backend
from pah_opt.optimizer import Effect, Goal, Needs, Optimizer, Tags
from pah_opt.strategies.structured.config import (
    FROM_DATA,
    FROM_GRADIENTS,
    DepthConfig,
    StructuredConfig,
    WidthConfig,
)

if TYPE_CHECKING:
    from torch import nn

    from pah_opt.optimizer import Context

TORCH_PRUNING = Backend("torch-pruning", ">=1.6,<2")

ConfigT = TypeVar("ConfigT", StructuredConfig, DepthConfig, WidthConfig)


def _needs(importance: str, repair: str) -> Needs:
    """Return what a way of choosing and repairing needs; ``auto`` takes calibration images where there are any."""
    observes = importance in FROM_DATA | {"similarity", "contiguous"} or repair in {"mean", "least-squares"}
    return Needs(
        calibration=observes,
        labels=importance in FROM_GRADIENTS,
        optional_calibration="auto" in (importance, repair),
        instead="importance: magnitude with repair: none needs no images" if observes else None,
    )


class Remover(Optimizer[ConfigT]):
    """A strategy that takes whole parts out of a model; a subclass says which ones, and how."""

    goal: ClassVar[Goal] = "both"

    def tags(self, config: ConfigT) -> Tags:
        """A fresh model without zeros on purpose: cutting leaves other shares of them, and repairs fill them again."""
        return Tags(excludes=frozenset({"weights:sparse"}))

    def expects(self, config: ConfigT) -> Effect:
        """Return the effect: parameters and bytes fall; blocks that stay may be numbered anew."""
        return Effect(fewer_parameters=True, fewer_bytes=True, same_shapes=False)

    def needs(self, config: ConfigT) -> Needs:
        """Return what the importance and the repair need."""
        return _needs(config.importance, config.repair)

    def check(self, model: nn.Module, config: ConfigT, context: Context) -> list[str]:
        """Return what is wrong with the images or the model; a subclass adds shares that its widths do not allow."""
        from pah_opt.models.gradients import classifier_problems
        from pah_opt.models.supply import FEWEST_IMAGES, too_few

        needs, count = self.needs(config), context.calibration_count
        # With ``auto``, images that are there are relied on, however few they are.
        found = [too_few(count)] if needs.optional_calibration and 0 < count < FEWEST_IMAGES else []
        return found + (classifier_problems(model, context, "importance: magnitude") if needs.labels else [])

    def apply(self, model: nn.Module, config: ConfigT, context: Context) -> nn.Module:
        """Cut in place, once there are enough of the images to look at."""
        from pah_opt.models.supply import check_supply

        if not context.planning:
            check_supply(context.calibration, self.needs(config), self.name)
        return self.cut(model, config, context)

    @abstractmethod
    def cut(self, model: nn.Module, config: ConfigT, context: Context) -> nn.Module:
        """Choose, repair and cut in place; return ``model``."""


class StructuredPruning(Remover[StructuredConfig]):
    """Remove attention heads, head dimensions and hidden units."""

    name: ClassVar[str] = "structured-pruning"
    config_type = StructuredConfig
    summary: ClassVar[str] = "Remove attention heads, head dimensions and hidden units; the rest takes over what it can"
    references: ClassVar[tuple[str, ...]] = (
        "Fang et al., DepGraph: towards any structural pruning (arXiv 2301.12900)",
        "Kurtic et al., ZipLM: inference-aware structured pruning of language models (arXiv 2302.04089)",
        "Fang et al., Isomorphic pruning for vision models (arXiv 2407.04616)",
    )
    backends: ClassVar[tuple[Backend, ...]] = (TORCH_PRUNING,)

    def check(self, model: nn.Module, config: StructuredConfig, context: Context) -> list[str]:
        """Return shares and targets that this model's widths do not allow."""
        from pah_opt.strategies.structured.plan import problems

        return super().check(model, config, context) or problems(model, config, context)

    def cut(self, model: nn.Module, config: StructuredConfig, context: Context) -> nn.Module:
        """Prune every block in place."""
        from pah_opt.strategies.structured.prune import prune

        return prune(model, config, context)


class DepthPruning(Remover[DepthConfig]):
    """Remove whole blocks."""

    name: ClassVar[str] = "depth-pruning"
    config_type = DepthConfig
    summary: ClassVar[str] = "Remove whole transformer blocks"
    references: ClassVar[tuple[str, ...]] = (
        "Men et al., ShortGPT: layers in large language models are more redundant than you expect (arXiv 2403.03853)",
        "Gromov et al., The unreasonable ineffectiveness of the deeper layers (arXiv 2403.17887)",
    )

    def needs(self, config: DepthConfig) -> Needs:
        """Return what the importance and the repair need."""
        return _needs("none" if config.blocks else config.importance, config.repair)

    def check(self, model: nn.Module, config: DepthConfig, context: Context) -> list[str]:
        """Return blocks that do not exist, or why none would be left."""
        from pah_opt.strategies.structured.depth import problems

        return super().check(model, config, context) or problems(model, config, context)

    def cut(self, model: nn.Module, config: DepthConfig, context: Context) -> nn.Module:
        """Remove blocks in place."""
        from pah_opt.strategies.structured.depth import remove

        return remove(model, config, context)


class WidthPruning(Remover[WidthConfig]):
    """Remove channels of the embedding."""

    name: ClassVar[str] = "width-pruning"
    config_type = WidthConfig
    summary: ClassVar[str] = "Remove channels of the embedding from every layer that writes or reads it"
    references: ClassVar[tuple[str, ...]] = (
        "Fang et al., DepGraph: towards any structural pruning (arXiv 2301.12900)",
        "Ashkboos et al., SliceGPT (arXiv 2401.15024)",
    )
    backends: ClassVar[tuple[Backend, ...]] = (TORCH_PRUNING,)

    def check(self, model: nn.Module, config: WidthConfig, context: Context) -> list[str]:
        """Return why the embedding of this model cannot be cut so."""
        from pah_opt.strategies.structured.width import problems

        return super().check(model, config, context) or problems(model, config, context)

    def cut(self, model: nn.Module, config: WidthConfig, context: Context) -> nn.Module:
        """Cut the embedding in place."""
        from pah_opt.strategies.structured.width import narrow

        return narrow(model, config, context)
