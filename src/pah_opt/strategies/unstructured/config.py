"""Parameters of the unstructured strategies. Nothing here loads torch."""

from __future__ import annotations

import re
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, Field, model_validator

from pah_opt.optimizer import OptimizerConfig

DEFAULT_SPARSITY = 0.5
LARGEST_GROUP = 64
KERNEL_TILE = (32, 64)
"""Rows and columns of which weights must have multiples for sparse kernels: the stricter of torch's backends, CUTLASS
and cuSPARSELt, in float16 and bfloat16."""


class NmPattern(NamedTuple):
    """Keep at most ``kept`` of every ``group`` neighbouring weights of a row."""

    kept: int
    group: int

    @classmethod
    def parse(cls, text: str) -> NmPattern:
        """Read ``"2:4"``.

        Raises:
            ValueError: it is not a pattern of that form.

        >>> NmPattern.parse("1:4").sparsity
        0.75
        """
        match = re.fullmatch(r"(\d{1,3}):(\d{1,3})", text)
        kept, group = map(int, match.groups()) if match else (0, 0)
        if not 1 <= kept < group <= LARGEST_GROUP:
            raise ValueError(
                f"{text!r} is not an n:m pattern; write the weights kept and the size of a group, "
                f"1 <= n < m <= {LARGEST_GROUP}, such as 2:4"
            )
        return cls(kept, group)

    @property
    def sparsity(self) -> float:
        """Share of zeros."""
        return 1 - self.kept / self.group


def _checked_pattern(text: str) -> str:
    NmPattern.parse(text)
    return text


PatternText = Annotated[str, AfterValidator(_checked_pattern)]


class Target(OptimizerConfig):
    """How many weights become zero."""

    sparsity: float | None = Field(default=None, gt=0, lt=1)
    """Share of the chosen layers' weights that become zero, above 0 and below 1; 0.5 when there is no `pattern`
    either."""
    pattern: PatternText | None = None
    """Instead of `sparsity`: keep n of every m neighbouring weights of a row, such as `2:4`, `1:4` or `4:8`."""

    @model_validator(mode="after")
    def _one_target(self) -> Target:
        if self.sparsity is not None and self.pattern is not None:
            raise ValueError(
                f"sparsity {self.sparsity} and pattern {self.pattern!r} are both given; "
                "a pattern fixes the sparsity: give one of them"
            )
        return self

    @property
    def nm(self) -> NmPattern | None:
        """The n:m pattern, if there is one."""
        return NmPattern.parse(self.pattern) if self.pattern else None

    @property
    def zeros(self) -> float:
        """Share of zeros asked for, 0 to 1."""
        return self.nm.sparsity if self.nm else self.sparsity or DEFAULT_SPARSITY


class LayerChoice(OptimizerConfig):
    """Which linear layers a strategy works on."""

    include: tuple[str, ...] = Field(default=("*",), min_length=1)
    """Linear layers to prune: glob patterns over module paths, or the groups `attention`, `qkv`, `attention-output`,
    `mlp`, `classifier`."""
    skip: tuple[str, ...] = ("classifier",)
    """Linear layers to leave alone, whatever `include` says. The classifier is small, and matters more than any other
    layer."""


class PruningTarget(LayerChoice, Target):
    """How many weights of which layers become zero."""


class Observation(OptimizerConfig):
    """How calibration images are looked at."""

    images: int = Field(default=256, ge=8)
    """At most so many calibration images are looked at, evenly spaced; fewer than 8 say too little about others."""
    batch_size: int = Field(default=32, ge=1)
    """Images per forward pass."""


Scope = Literal["global", "isomorphic", "layer", "row"]


class MagnitudeConfig(PruningTarget):
    """Parameters of `magnitude-pruning`."""

    scope: Literal["global", "isomorphic", "layer"] = "global"
    """Where weights compete: over all chosen layers (global), over those that do the same in every block (isomorphic:
    query, key and value; attention output; first and second feed-forward layer), or within each layer. A `pattern` has
    its own groups."""
    norm: Literal["l1", "l2"] = "l1"
    """Absolute value or square. For single weights both give the same order, so both give the same model."""


Importance = Literal["magnitude", "random", "taylor", "obd", "hessian", "lamp", "wanda"]

_LABELLED = ("taylor", "obd", "hessian")


class UnstructuredConfig(Observation, PruningTarget):
    """Parameters of `unstructured-pruning`."""

    importance: Importance = "magnitude"
    """What makes a weight worth keeping: `magnitude` |w|; `random`; `taylor` |w·g| with the loss gradient g; `obd` (or
    `hessian`) ½w²·E[g²], Optimal Brain Damage with the empirical Fisher diagonal; `lamp` w² over the sum of the squares
    that are not smaller in its layer; `wanda` |w|·‖x‖ with the root mean square of the input."""
    scope: Scope | None = None
    """Where weights compete: over all chosen layers (global), over those that do the same in every block (isomorphic:
    query, key and value; attention output; first and second feed-forward layer), within each layer, or within each row
    (output) of a layer. By default global, and row for wanda. A `pattern` has its own groups."""
    batch_size: int = Field(default=16, ge=1)
    """Images per pass."""

    @model_validator(mode="after")
    def _lamp_is_global(self) -> UnstructuredConfig:
        if self.importance == "lamp" and self.scope in ("layer", "row"):
            raise ValueError(
                f"importance lamp with scope {self.scope!r}: lamp ranks layers against one another, and equals "
                "magnitude within one; leave scope out, or use importance magnitude"
            )
        return self

    @property
    def competes_in(self) -> Scope:
        """The scope, with its default filled in."""
        return self.scope or ("row" if self.importance == "wanda" else "global")

    @property
    def needs_labels(self) -> bool:
        """Whether the importance is made from loss gradients."""
        return self.importance in _LABELLED

    @property
    def needs_images(self) -> bool:
        """Whether the importance is made from calibration images."""
        return self.needs_labels or self.importance == "wanda"


class WandaConfig(Observation, PruningTarget):
    """Parameters of `wanda`."""

    scope: Scope = "row"
    """Where weights compete: within each row (output) of a layer as in the paper, within each layer, over layers that
    do the same in every block (isomorphic), or over all chosen layers (global). A `pattern` has its own groups."""


class SparseGptConfig(Observation, PruningTarget):
    """Parameters of `sparsegpt`."""

    images: int = Field(default=256, ge=8)
    """At most so many calibration images are looked at, evenly spaced; fewer than 8 say too little about others. With
    `match_dense`, a block's inputs and what goes into each of its layers are held for all of them, in float32: 1.3 GiB
    for 256 images of 224 pixels in a ViT-B. Fewer images need less."""
    solver: Literal["admm", "obs"] = "admm"
    """How a layer is solved. `obs` visits columns left to right, as the SparseGPT paper does; `admm` settles zeros and
    weights together, in turns, which leaves about a third less of the error."""
    rounds: int = Field(default=60, ge=2, le=1000)
    """admm: how many turns; zeros are chosen in the first half of them."""
    dampening: float = Field(default=0.01, gt=0, le=1)
    """Share of the Hessian's mean diagonal that is added to its diagonal; for obs ten times more, repeatedly, where a
    Hessian cannot be inverted."""
    block_size: int = Field(default=128, ge=1, le=4096)
    """obs: columns that are pruned between two updates of the rest of a layer."""
    allocation: Literal["uniform", "lamp", "taylor", "obd"] = "taylor"
    """How `sparsity` is shared out over layers: the same share everywhere, or what a global ranking by `lamp`, `taylor`
    or `obd` would take from each (see `unstructured-pruning`). The last two look at labels, and let the outputs that
    the loss depends on most keep more weights. A `pattern` is the same everywhere."""

    match_dense: bool = True
    """Aim at the dense model's outputs, so that each layer also makes up for what layers before it lost; half as much
    time again."""

    @property
    def needs_images(self) -> bool:
        """Always: the repair is made from what layers see."""
        return True

    @property
    def needs_labels(self) -> bool:
        """Whether loss gradients are needed."""
        return self.pattern is None and self.allocation in _LABELLED


class SemiStructuredConfig(Observation, LayerChoice):
    """Parameters of `semi-structured`."""

    method: Literal["magnitude", "wanda", "sparsegpt"] = "sparsegpt"
    """How the two weights to keep of every four are chosen; `sparsegpt` also lets them make up for the other two."""
    kernels: Literal["auto", "require", "pattern"] = "auto"
    """`require`: store layers in the format of sparse tensor cores (CUDA, compute capability 8.0 or newer, float16 or
    bfloat16). `pattern`: only make the zeros; the model stays an ordinary one and can be trained or quantized on.
    `auto`: the format where it can be had, the pattern elsewhere."""
    include: tuple[str, ...] = Field(default=("mlp",), min_length=1)
    """Linear layers to work on: glob patterns or group names; feed-forward layers gain most and lose least."""
    dampening: float = Field(default=0.01, gt=0, le=1)
    """As for `sparsegpt`."""

    @property
    def pruning(self) -> SparseGptConfig:
        """The same choice as parameters of the 2:4 pruning that comes first."""
        return SparseGptConfig(
            pattern="2:4", include=self.include, skip=self.skip, images=self.images, batch_size=self.batch_size,
            dampening=self.dampening,
        )  # fmt: skip
