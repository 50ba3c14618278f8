"""The ``reconstruct`` strategy: win back in closed form what other steps lost. Nothing here loads torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from pah_opt.adapt.backend import ACCELERATE
from pah_opt.models.precision import Precision
from pah_opt.optimizer import Context, Effect, Goal, Needs, Optimizer, OptimizerConfig, Tags

if TYPE_CHECKING:
    from torch import nn

    from pah_opt.environment import Backend


class ReconstructConfig(OptimizerConfig):
    """Parameters of ``reconstruct``."""

    images: int = Field(default=1024, ge=8, le=1_000_000)
    """Training images to fit on, evenly spaced over the training set; labels are not looked at. More are better: each
    layer's weights are fitted to every token of them. Their hidden states are held twice, 4 bytes a number (0.8 GB for
    1,024 images in ViT-S at 256 tokens)."""
    ridge: float = Field(default=0.01, gt=0.0, le=100.0, allow_inf_nan=False)
    """How firmly weights are held where they are, as a share of the inputs' mean variance; more for fewer images."""
    prefix_weight: float = Field(default=32.0, gt=0.0, le=10_000.0, allow_inf_nan=False)
    """How much the class token, and other tokens before the patches, count against one patch."""
    classifier: Literal["keep", "fit"] = "keep"
    """fit: afterwards fit the classifiers anew on the labels, by logistic regression, as ``adapt`` in mode ``head``.
    Right where the dense model's classifiers were fitted on frozen features too; where everything was trained,
    ``recover`` suits better."""
    images_per_class: int = Field(default=400, ge=50, le=1_000_000)
    """With fit: at most so many training images of each class; fewer than 50 are refused."""
    mixed_precision: Precision = "no"
    """``bf16`` runs the blocks in bfloat16, faster where the hardware has it (a CPU without AVX-512 stays with
    float32); the regressions stay in float64."""
    batch_size: int = Field(default=32, ge=1)
    """Images in a forward pass."""

    @model_validator(mode="after")
    def _fits_what_it_has_images_for(self) -> ReconstructConfig:
        usual = type(self).model_fields["images_per_class"].default
        if self.images_per_class != usual and self.classifier != "fit":
            raise ValueError("images_per_class is for fitting classifiers; set classifier: fit, or leave it out")
        return self


class Reconstruct(Optimizer[ReconstructConfig]):
    """Refits the layers that write the residual stream, block by block, so that it follows the dense model's again.

    Each repair of a single layer leaves an error that the next layers add to. Here every block's output projection and
    second feed-forward layer learn, by ridge regression on what the changed model gives them, what the residual stream
    then misses of the dense model's: errors of earlier blocks are made up for too. Labels only serve to fit the
    classifiers anew, where that is asked for. Zeros stay zeros. It belongs after pruning, before ``recover`` or
    quantization.
    """

    name: ClassVar[str] = "reconstruct"
    config_type = ReconstructConfig
    summary: ClassVar[str] = "Refit each block's outputs to the dense model's, in closed form, without gradients."
    goal: ClassVar[Goal] = "accuracy"
    references: ClassVar[tuple[str, ...]] = (
        "He et al., Channel pruning for accelerating very deep neural networks, https://arxiv.org/abs/1707.06168",
        "Frantar and Alistarh, Optimal brain compression, https://arxiv.org/abs/2208.11580",
    )

    backends: ClassVar[tuple[Backend, ...]] = (ACCELERATE,)

    def tags(self, config: ReconstructConfig) -> Tags:
        """Plain floating-point weights, and blocks that run one by one on the dense model's tokens; changes neither."""
        return Tags(requires=frozenset({"weights:float", "graph:eager"}), excludes=frozenset({"tokens:merged"}))

    def needs(self, config: ReconstructConfig) -> Needs:
        """Training images."""
        return Needs(training=True, instead="use a strategy with closed-form repair (sparsegpt, structured-pruning)")

    def expects(self, config: ReconstructConfig) -> Effect:
        """Shapes stay; what else changes is for the accuracy to show."""
        return Effect(same_shapes=True)

    def check(self, model: nn.Module, config: ReconstructConfig, context: Context) -> list[str]:
        """Find out whether hidden states can be compared with the dense model's, and classifiers fitted."""
        from pah_opt.strategies.training.reconstruction import problems

        return problems(model, config, context)

    def apply(self, model: nn.Module, config: ReconstructConfig, context: Context) -> nn.Module:
        """Refit ``model`` in place; on a dry run nothing changes."""
        from pah_opt.strategies.training.reconstruction import reconstruct

        return model if context.planning else reconstruct(model, config, context)
