"""The ``recover`` strategy: a short fine-tuning that wins back what other steps lost. Nothing here loads torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, model_validator

from pah_opt.adapt.backend import ACCELERATE
from pah_opt.adapt.settings import RecoverySettings
from pah_opt.optimizer import Context, Effect, Goal, Needs, Optimizer, OptimizerConfig, Tags

if TYPE_CHECKING:
    from torch import nn

    from pah_opt.environment import Backend


class RecoverConfig(RecoverySettings, OptimizerConfig):
    """Parameters of ``recover``: how to train."""

    input_size: int | None = Field(default=None, gt=0, le=16_384)
    """Train on square images of so many pixels a side, a multiple of the patch, and go back to the model's own size:
    half the side makes updates three to four times as fast. Position embeddings are not trained then. Measure what it
    is worth: a DINOv2 ViT-S, trained at 112 or 154 pixels after pruning, was no better at its own 224."""
    validation: float = Field(default=0.0, ge=0.0, le=0.5)
    """Share of the training images to judge each epoch by, instead of training on them; the best epoch is kept."""

    @model_validator(mode="after")
    def _can_stop_early(self) -> RecoverConfig:
        if self.early_stop is not None and not self.validation:
            raise ValueError("early_stop needs validation images; set validation to a share such as 0.1")
        return self


class Recover(Optimizer[RecoverConfig]):
    """Fine-tunes with the dense model as teacher; zeros that earlier steps left on purpose stay zero, shapes stay.

    It belongs after pruning and before quantization.
    """

    name: ClassVar[str] = "recover"
    config_type = RecoverConfig
    summary: ClassVar[str] = "Fine-tune shortly after pruning, the dense model as teacher; zeros and shapes are held."
    goal: ClassVar[Goal] = "accuracy"
    references: ClassVar[tuple[str, ...]] = (
        "Hinton et al., Distilling the Knowledge in a Neural Network, https://arxiv.org/abs/1503.02531",
        "Loshchilov and Hutter, Decoupled Weight Decay Regularization, https://arxiv.org/abs/1711.05101",
        "Touvron et al., Training data-efficient image transformers, https://arxiv.org/abs/2012.12877",
        "Tan and Le, EfficientNetV2 (smaller images first), https://arxiv.org/abs/2104.00298",
    )
    backends: ClassVar[tuple[Backend, ...]] = (ACCELERATE,)

    def tags(self, config: RecoverConfig) -> Tags:
        """Needs plain floating-point weights and modules that can be trained; changes neither.

        Merged tokens are none of the teacher's, and belong to one input size.
        """
        compares = config.distill_features > 0 or config.input_size is not None
        return Tags(
            requires=frozenset({"weights:float", "graph:eager"}),
            excludes=frozenset({"tokens:merged"} if compares else ()),
        )

    def needs(self, config: RecoverConfig) -> Needs:
        """Training images with labels."""
        return Needs(training=True, instead="use a strategy with closed-form repair (sparsegpt, structured-pruning)")

    def expects(self, config: RecoverConfig) -> Effect:
        """Shapes stay; what else changes is for the accuracy to show."""
        return Effect(same_shapes=True)

    def check(self, model: nn.Module, config: RecoverConfig, context: Context) -> list[str]:
        """Find freeze patterns that match nothing, and weights that cannot be trained."""
        from pah_opt.strategies.training.recovery import problems

        return problems(model, config, context)

    def apply(self, model: nn.Module, config: RecoverConfig, context: Context) -> nn.Module:
        """Train ``model`` in place and record the history; on a dry run no shape changes."""
        from pah_opt.strategies.training.recovery import recover

        return recover(model, config, context)
