"""Parameters of the strategies that make a model narrower or shallower."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pah_opt.optimizer import OptimizerConfig

Share = Annotated[float, Field(ge=0.0, lt=1.0, allow_inf_nan=False)]
InnerShare = Annotated[float, Field(gt=0.0, lt=1.0, allow_inf_nan=False)]

Importance = Literal["auto", "magnitude", "l1", "l2", "random", "lamp", "activation", "taylor", "hessian", "surgeon"]
Repair = Literal["auto", "none", "mean", "least-squares"]
Scope = Literal["layer", "isomorphic", "global"]

FROM_DATA = frozenset({"activation", "surgeon"})
FROM_GRADIENTS = frozenset({"taylor", "hessian"})


class Target(OptimizerConfig):
    """How much of the model that reaches this step is kept; exactly one of the three."""

    params: InnerShare | None = None
    """Share of the parameters to keep."""
    macs: InnerShare | None = None
    """Share of the multiply-accumulates for one image to keep."""
    size: InnerShare | None = None
    """Share of the bytes of all tensors to keep."""

    @model_validator(mode="after")
    def _has_one(self) -> Target:
        if len(self.given) != 1:
            raise ValueError("give exactly one of params, macs and size, such as {macs: 0.5}")
        return self

    @property
    def given(self) -> dict[str, float]:
        """What was given, by name."""
        pairs = {"params": self.params, "macs": self.macs, "size": self.size}
        return {name: share for name, share in pairs.items() if share is not None}

    @property
    def figure(self) -> str:
        """``params``, ``macs`` or ``size``."""
        return next(iter(self.given))

    @property
    def share(self) -> float:
        """The share to keep."""
        return next(iter(self.given.values()))


class StructuredConfig(OptimizerConfig):
    """Parameters of ``structured-pruning``."""

    heads: Share = 0.0
    """Share of the attention heads to remove, 0 to 1."""
    head_dims: Share = 0.0
    """Share of the width of every head to remove (query and key together, value and output together). Heads are
    rewritten so that the dimensions that stay carry as much as they can; no importance is asked."""
    mlp: Share = 0.0
    """Share of the hidden width of the feed-forward networks to remove."""
    heads_per_block: dict[str, Share] = Field(default_factory=dict)
    """Another share of the heads for some blocks: glob pattern over block paths, such as `vit.layers.0.*`, to share. Of
    several patterns that match a block the last one decides."""
    mlp_per_block: dict[str, Share] = Field(default_factory=dict)
    """The same for the hidden width of the feed-forward networks."""
    target: Target | None = None
    """Keep this share of the model instead; heads, head_dims and mlp then only say in which proportion they are cut
    (by default heads and mlp alike)."""
    importance: Importance = "auto"
    """What decides which heads and units go: weights alone (magnitude and l2: squared weights; l1; lamp; random),
    activations on calibration images (activation: weight times input; surgeon: what the remaining weights cannot take
    over), or gradients (taylor, hessian). auto: surgeon with calibration images, magnitude without."""
    scope: Scope = "layer"
    """Where heads and units compete: within a block (layer), with their kind in all blocks (isomorphic), or, towards a
    target, with everything in all blocks by importance per cost (global). Head widths stay equal in all blocks; towards
    a target with scope global, head_dims is their share, not a proportion."""
    repair: Repair = "auto"
    """How the remaining weights take over for the removed ones: mean (biases absorb the mean), least-squares (weights
    absorb the linear part too). auto: least-squares with calibration images, none without."""
    focus: Literal["logits", "none"] = "logits"
    """With calibration images: tokens and outputs count by how much the logits depend on them (logits), or all alike
    (none), which saves a backward pass."""
    iterative_steps: int = Field(default=1, ge=1, le=100)
    """Remove in this many equal steps, judging importance anew before each."""
    align: int | None = Field(default=None, ge=1, le=1024)
    """Remaining widths are multiples of this; by default what the steps after this one need."""
    min_mlp_width: int = Field(default=8, ge=1)
    """Units that every feed-forward network keeps at least."""
    batch_size: int = Field(default=32, ge=1)
    """Calibration images per forward pass."""

    @model_validator(mode="after")
    def _removes_something(self) -> StructuredConfig:
        own = [share for shares in self.per_block.values() for share in shares.values()]
        if self.target is None and not any((self.heads, self.head_dims, self.mlp, *own)):
            raise ValueError("nothing to remove; give heads, head_dims or mlp a share above 0, or give a target")
        return self

    @model_validator(mode="after")
    def _says_once_how_wide_blocks_become(self) -> StructuredConfig:
        if any(self.per_block.values()) and (self.target is not None or self.scope != "layer"):
            other = "a target" if self.target is not None else f"scope: {self.scope}"
            raise ValueError(
                f"heads_per_block and mlp_per_block say how wide each block becomes, and so does {other}; leave one out"
            )
        return self

    @property
    def per_block(self) -> dict[str, dict[str, float]]:
        """Shares of single blocks of each kind that can have them: pattern to share."""
        return {"heads": self.heads_per_block, "mlp": self.mlp_per_block}

    @property
    def proportions(self) -> dict[str, float]:
        """Share to remove of each kind; under a target, their proportion."""
        given = {"heads": self.heads, "head_dims": self.head_dims, "mlp": self.mlp}
        return given if self.target is None or any(given.values()) else {"heads": 0.5, "head_dims": 0.0, "mlp": 0.5}


class DepthConfig(OptimizerConfig):
    """Parameters of ``depth-pruning``."""

    ratio: Share | None = None
    """Share of the blocks to remove, rounded to whole blocks, at least one."""
    count: int | None = Field(default=None, ge=1)
    """Number of blocks to remove."""
    blocks: tuple[int, ...] | None = Field(default=None, min_length=1)
    """The very blocks to remove, counted from 0; negative from the end."""
    target: Target | None = None
    """Keep this share of the model instead, by the number of blocks that comes nearest; whole blocks are coarse steps,
    so a share that none of them meets within 2 % is refused with the nearest two."""
    importance: Literal["auto", "similarity", "contiguous", "even", "first", "last"] = "auto"
    """Which blocks go: those whose output is most like their input on calibration images (similarity), the run of
    neighbours over which tokens turn least (contiguous), or without data evenly spaced ones, the first or the last.
    auto: similarity with calibration images, even without. A block is judged by what it does to the tokens: its weights
    and their gradients say little about it as a whole."""
    repair: Repair = "auto"
    """How the block before a removed one takes over: mean (its bias absorbs the mean of what is missing),
    least-squares (its feed-forward network absorbs the linear part too). auto: least-squares with calibration images,
    none without."""
    batch_size: int = Field(default=32, ge=1)
    """Calibration images per forward pass."""

    @model_validator(mode="after")
    def _has_one(self) -> DepthConfig:
        if sum(value is not None for value in (self.ratio or None, self.count, self.blocks, self.target)) != 1:
            raise ValueError("give exactly one of ratio (above 0), count, blocks and target, such as {ratio: 0.25}")
        return self


class WidthConfig(OptimizerConfig):
    """Parameters of ``width-pruning``."""

    ratio: InnerShare | None = None
    """Share of the embedding width to remove, above 0 and below 1."""
    target: Target | None = None
    """Keep this share of the model instead, by the width that comes nearest; refused where none meets it within 2 %."""
    importance: Literal["auto", "magnitude", "l1", "l2", "random", "activation", "taylor", "hessian"] = "auto"
    """Which channels go: by all weights that write or read them (magnitude and l2: squared; l1), at random, by the
    variance they carry on calibration images times the weights that read them (activation), or by the change of the
    loss when every layer that reads a channel no longer does (taylor, hessian; with labels). auto: activation with
    calibration images, magnitude without. A channel runs through every layer, so importances that rank units within
    one layer (lamp, surgeon) do not apply."""
    repair: Repair = "auto"
    """How the layers that read the embedding take over for the removed channels: mean or least-squares. auto:
    least-squares with calibration images, none without."""
    align: int | None = Field(default=None, ge=1, le=1024)
    """The remaining width is a multiple of this; by default what the steps after this one need."""
    batch_size: int = Field(default=32, ge=1)
    """Calibration images per forward pass."""

    @model_validator(mode="after")
    def _has_one(self) -> WidthConfig:
        if (self.ratio is None) == (self.target is None):
            raise ValueError("give exactly one of ratio and target, such as {ratio: 0.25} or {target: {macs: 0.75}}")
        return self
