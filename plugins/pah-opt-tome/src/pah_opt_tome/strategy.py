"""The ``tome`` Optimizer: what it declares; the work is in :mod:`pah_opt_tome.surgery`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, model_validator

from pah_opt import Context, Effect, Optimizer, OptimizerConfig, Tags
from pah_opt_tome.schedule import Schedule, merges_per_block

if TYPE_CHECKING:
    from torch import nn

    from pah_opt.layout import Layout
    from pah_opt.optimizer import Goal


class TokenMergingConfig(OptimizerConfig):
    """Parameters of `tome`: `r` or `keep` says how much, `schedule` says where."""

    r: Annotated[int, Field(ge=1)] | None = None
    """Tokens that each block merges away, as in the paper; a block merges at most half of its patch tokens. By default
    as many as `keep` asks for."""
    keep: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Share of the patch tokens that leaves the last block; 0.5 by default, where `r` is not given."""
    schedule: Schedule = "constant"
    """`constant`: every block merges as many. `decreasing`: the first block twice the mean, linearly down to none in
    the last; faster for the same number of merges, and less accurate."""
    proportional: bool = True
    """Attention counts a merged token as often as what it stands for. Switch it off for models that are trained with
    merging and without it."""

    @model_validator(mode="after")
    def _one_amount(self) -> TokenMergingConfig:
        if self.r is not None and self.keep is not None:
            raise ValueError("give r or keep, not both: r fixes how many tokens are left")
        return self

    @property
    def share(self) -> float:
        """The share of patch tokens to be kept where `r` is not given."""
        return 0.5 if self.keep is None else self.keep


class TokenMerging(Optimizer[TokenMergingConfig]):
    """Merge the most similar tokens between attention and feed-forward network of every block; needs no training.

    Class, distillation and register tokens never merge. After the last block each merged token stands again for as
    many tokens as went into it, so that mean pooling stays right and the output keeps its shape. Weights stay as they
    are, so that linear layers may be pruned and quantized before it or after it; change the input size and the number
    of blocks before it.
    """

    name: ClassVar[str] = "tome"
    config_type = TokenMergingConfig
    summary: ClassVar[str] = "Merge similar tokens block by block, so that later blocks compute fewer of them."
    goal: ClassVar[Goal] = "latency"
    references: ClassVar[tuple[str, ...]] = (
        "Bolya et al., Token Merging: Your ViT But Faster, https://arxiv.org/abs/2210.09461",
    )

    def tags(self, config: TokenMergingConfig) -> Tags:
        """Need modules that can still be changed; linear layers may be of any type."""
        return Tags(requires=frozenset({"graph:eager"}), provides=frozenset({"tokens:merged"}))

    def expects(self, config: TokenMergingConfig) -> Effect:
        """Promise another forward pass over the same parameters."""
        return Effect(new_type=True)

    def check(self, model: nn.Module, config: TokenMergingConfig, context: Context) -> list[str]:
        """Find a model with too few tokens to merge any."""
        from pah_opt_tome.surgery import installed

        layout = context.adapter.layout(model)
        if installed(model):
            return ["the model merges tokens already; leave one of the two tome steps out"]
        if any(_merges(layout, config)):
            return []
        amount = f"keep {config.share}" if config.r is None else f"r {config.r}"
        return [
            f"with {amount} none of the {_patches(layout)} patch tokens merges; ask for more, or leave the step out"
        ]

    def apply(self, model: nn.Module, config: TokenMergingConfig, context: Context) -> nn.Module:
        """Have the blocks of ``model`` merge tokens, in place."""
        from pah_opt_tome.surgery import install, plan_blocks

        layout = context.adapter.layout(model)
        merges = _merges(layout, config)
        install(model, plan_blocks(layout, merges, proportional=config.proportional))
        patches = _patches(layout)
        context.record("merged_per_block", merges)
        context.record("patch_tokens", {"before": patches, "after": patches - sum(merges)})
        return model

    def state(self, model: nn.Module, config: TokenMergingConfig) -> dict[str, Any]:
        """Return what each block does."""
        from pah_opt_tome.surgery import installed

        return {"blocks": [merging.to_data() for merging in installed(model)]}

    def restore(self, model: nn.Module, state: dict[str, Any]) -> nn.Module:
        """Have the blocks of a rebuilt model do the same."""
        from pah_opt_tome.surgery import Merging, install

        return install(model, [Merging(**data) for data in state["blocks"]])


def _patches(layout: Layout) -> int:
    rows, columns = (size // patch for size, patch in zip(layout.image_size, layout.patch_size, strict=True))
    return rows * columns


def _merges(layout: Layout, config: TokenMergingConfig) -> tuple[int, ...]:
    return merges_per_block(
        _patches(layout), len(layout.blocks), r=config.r, keep=config.share, schedule=config.schedule
    )
