"""The ``input-size`` Optimizer: fewer pixels, so fewer tokens, so less of everything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from pah_opt.optimizer import Effect, Goal, Optimizer, OptimizerConfig, Tags

if TYPE_CHECKING:
    from torch import nn

    from pah_opt.layout import Layout
    from pah_opt.optimizer import Context

Pixels = Annotated[int, Field(gt=0, le=16_384)]


class InputSizeConfig(OptimizerConfig):
    """Parameters of `input-size`."""

    size: Pixels | tuple[Pixels, Pixels]
    """New height and width of the input in pixels: one number for a square, or `[height, width]`. A multiple of the
    model's patch."""

    @property
    def pair(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size


class InputSize(Optimizer[InputSizeConfig]):
    """Feed the model smaller (or larger) images: interpolate its position embeddings once and say so everywhere.

    Cost falls with the number of patches, and attention's with its square; images that were small to begin with lose
    little. The position embeddings are interpolated bicubically, as each implementation does it at run time. The
    images' preprocessing follows the model's new size, and is saved with it.
    """

    name: ClassVar[str] = "input-size"
    config_type = InputSizeConfig
    summary: ClassVar[str] = (
        "Change the input size: interpolate position embeddings, so that fewer tokens are computed."
    )
    goal: ClassVar[Goal] = "latency"
    references: ClassVar[tuple[str, ...]] = (
        "ViT, section 3.2: https://arxiv.org/abs/2010.11929",
        "Touvron et al., Fixing the train-test resolution discrepancy, https://arxiv.org/abs/1906.06423",
    )

    def tags(self, config: InputSizeConfig) -> Tags:
        """Need modules that can still be changed; linear layers may be of any type."""
        return Tags(requires=frozenset({"graph:eager"}))

    def expects(self, config: InputSizeConfig) -> Effect:
        """Promise nothing of shapes: the position embeddings change theirs."""
        return Effect(same_shapes=False)

    def check(self, model: nn.Module, config: InputSizeConfig, context: Context) -> list[str]:
        """Find a size that the patch does not divide, and one that the model has already."""
        from pah_opt.models.positions import size_problems

        layout = context.adapter.layout(model)
        height, width = config.pair
        if layout.image_size == config.pair:
            return [f"the model takes {height}x{width} pixels already; give another size, or leave the step out"]
        return size_problems(layout, config.pair)

    def apply(self, model: nn.Module, config: InputSizeConfig, context: Context) -> nn.Module:
        """Interpolate the position embeddings and make every attribute say the new size."""
        before = context.adapter.layout(model)
        context.adapter.resize(model, *config.pair)
        after = context.adapter.layout(model)
        context.record("image_size", {"before": list(before.image_size), "after": list(after.image_size)})
        context.record("tokens", {"before": tokens_of(before), "after": tokens_of(after)})
        return model


def tokens_of(layout: Layout) -> int:
    """Return the number of tokens that a block sees for one image."""
    rows, columns = (pixels // patch for pixels, patch in zip(layout.image_size, layout.patch_size, strict=True))
    return layout.prefix_tokens + rows * columns
