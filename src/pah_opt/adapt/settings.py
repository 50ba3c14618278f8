"""How to train: plain data, without torch, shared by fine-tuning, recovery and adaptation."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pah_opt.models.precision import Precision


class Augmentation(BaseModel):
    """Random changes of training images, drawn anew for every step."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    flip: bool = False
    """Mirror half of the images left to right (not for digits or text)."""
    crop: float = Field(default=0.0, ge=0.0, le=0.5)
    """Shift each image by up to this share of its size; 0.125 is usual for CIFAR-10 (4 of 32 pixels)."""
    mixup: float = Field(default=0.0, ge=0.0, le=10.0)
    """Blend pairs of images and their labels; parameter of the Beta distribution, 0 for none (0.2 is mild). Where
    ``last-layers`` caches hidden states, these are blended in the place of images (V. Verma et al.: Manifold Mixup,
    https://arxiv.org/abs/1806.05236)."""


class TrainSettings(BaseModel):
    """Everything that decides the result of training, besides model, images and seed.

    ``batch_size`` counts the images of one update, however many processes share them. Augmentation and dropout are
    drawn in each process by itself: without them, several processes give the result of one up to rounding.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    epochs: int = Field(default=1, ge=1, le=10_000)
    """How often every training image is seen."""
    steps: int | None = Field(default=None, ge=1)
    """Stop after this many updates instead; images are repeated as needed."""
    lr: float = Field(default=1e-4, gt=0.0, le=1.0)
    """Highest learning rate of AdamW; it follows a cosine down to zero."""
    head_lr: float | None = Field(default=None, gt=0.0, le=1.0)
    """Another highest learning rate for the classifier, usually ten times ``lr`` when it is new."""
    layer_decay: float = Field(default=1.0, gt=0.0, le=1.0)
    """Factor from each block's learning rate to that of the one before it, embeddings last; 0.65 to 0.9 is usual."""
    batch_size: int = Field(default=64, ge=1)
    """Images in one update, over all processes."""
    accumulation: int = Field(default=1, ge=1)
    """Run a batch in this many parts to save memory; the result stays the same."""
    weight_decay: float = Field(default=0.05, ge=0.0, le=1.0)
    """Decoupled weight decay of weight matrices; norms, biases and embeddings have none."""
    warmup: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of all updates in which the learning rate rises from zero."""
    clip_norm: float | None = Field(default=1.0, gt=0.0)
    """Scale gradients down to this total norm; None for never."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of each label that is spread over all classes."""
    mixed_precision: Precision = "no"
    """``bf16`` runs matrix products in bfloat16; weights and their updates stay in float32. GPUs have it from compute
    capability 8.0 (A100, RTX 30), CPUs with AVX-512 BF16 or AMX; a CPU without AVX-512 stays with float32, which is
    many times faster there. There is no fp16: its small gradients become zero unless losses are scaled, and bfloat16
    has the range of float32."""
    checkpointing: bool = False
    """Recompute blocks in the backward pass: about a third more time, far less memory."""
    early_stop: int | None = Field(default=None, ge=1)
    """Stop after this many epochs without a better validation result; needs validation images."""
    freeze: tuple[str, ...] = ()
    """Parameters that do not change: glob patterns over their names, or over the modules that hold them."""
    augmentation: Augmentation = Augmentation()
    """Random changes of training images."""
    distill: float = Field(default=0.0, ge=0.0, le=1.0)
    """Weight of the teacher's logits against the labels, 0 (labels only) to 1 (teacher only)."""
    temperature: float = Field(default=2.0, gt=0.0, le=100.0)
    """Softens both distributions when the teacher's logits are matched."""
    distill_features: float = Field(default=0.0, ge=0.0)
    """Weight of matching the teacher's hidden states after each block, relative to their own variance."""


DISTILL = 0.5
"""Weight of the model's former self among what it learns from, after a step that damaged it."""


class RecoverySettings(TrainSettings):
    """The same for a model that has learned its task already, with its former self as teacher.

    The defaults are gentle: AdamW's first updates move every weight by the whole rate, whatever its gradient, and where
    the embeddings and the first blocks' outputs are small, as in DINOv2, a rate of 1e-4 destroys in a few updates what
    the model knows (docs/strategies-measured.md).
    """

    lr: float = Field(default=2e-5, gt=0.0, le=1.0)
    """Highest learning rate of AdamW; it follows a cosine down to zero."""
    layer_decay: float = Field(default=0.9, gt=0.0, le=1.0)
    """Factor from each block's learning rate to that of the one before it, embeddings last; 1 for one rate."""
    warmup: float = Field(default=0.3, ge=0.0, lt=1.0)
    """Share of all updates in which the learning rate rises from zero."""
    distill: float = Field(default=DISTILL, ge=0.0, le=1.0)
    """Weight of the dense model's logits against the labels, 0 (labels only) to 1 (dense model only); true for 0.5."""

    @field_validator("distill", mode="before")
    @classmethod
    def _yes_or_no(cls, value: Any) -> Any:
        # Read as a number, true would mean 1.0: the labels would be ignored without a word.
        return value * DISTILL if isinstance(value, bool) else value
