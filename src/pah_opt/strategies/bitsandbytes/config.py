"""Parameters of the ``bitsandbytes`` strategy. Nothing here loads torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from pah_opt.optimizer import OptimizerConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

Scheme = Literal["int8", "nf4", "fp4"]
ComputeType = Literal["fp32", "bf16", "fp16"]
Rounding = Literal["nearest", "gptq"]
DEFAULT_THRESHOLD = 6.0
DEFAULT_BLOCKSIZE = 64
_OF_INT8 = ("threshold",)
_OF_FOUR_BITS = ("blocksize", "double_quant", "compute_dtype", "rounding", "images", "batch_size")


class BitsandbytesConfig(OptimizerConfig):
    """Parameters of `bitsandbytes`."""

    scheme: Scheme = "nf4"
    """`int8`: LLM.int8, rows of weights and tokens in int8, outlier channels in half precision. `nf4`: four bits on a
    grid made for normally distributed weights. `fp4`: four-bit floating point."""
    include: tuple[str, ...] = Field(default=("*",), min_length=1)
    """Linear layers to quantize: glob patterns over module paths, or `attention`, `qkv`, `attention-output`, `mlp`,
    `classifier`."""
    skip: tuple[str, ...] = ("classifier",)
    """Linear layers to leave in float, whatever `include` says."""
    threshold: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """int8: input channels with a value above this are multiplied in half precision; 6.0 by default, 0 for none."""
    blocksize: Literal[32, 64, 128, 256, 512, 1024, 2048, 4096] | None = None
    """nf4, fp4: so many weights share a scale; 64 by default. Smaller is more accurate and larger in memory."""
    double_quant: bool | None = None
    """nf4, fp4: quantize the scales too: about 0.4 bits a weight less at blocksize 64. Off by default."""
    compute_dtype: ComputeType | None = None
    """nf4, fp4: type in which products are computed; the model's own by default."""

    rounding: Rounding | None = None
    """nf4, fp4: `nearest` rounds each weight by itself, as bitsandbytes does; `gptq` looks for the best scale of each
    block and lets later weights make up for the errors of earlier ones, on calibration images. By default gptq where
    there are images."""
    images: int = Field(default=128, ge=1)
    """gptq: at most so many calibration images are observed, evenly spaced."""
    batch_size: int = Field(default=16, ge=1)
    """gptq: images per forward pass."""

    @model_validator(mode="after")
    def _options_belong_to_the_scheme(self) -> BitsandbytesConfig:
        given = self.model_dump(exclude_defaults=True)
        foreign = [name for name in _foreign_to(self.scheme) if name in given]
        if foreign:
            owners = "schemes nf4 and fp4" if self.scheme == "int8" else "scheme int8"
            raise ValueError(f"{foreign[0]} belongs to {owners}, and the scheme is {self.scheme}; leave it out")
        return self

    @classmethod
    def without_effect(cls, parameters: Mapping[str, Any]) -> frozenset[str]:
        """Return the options of the other schemes."""
        return frozenset(_foreign_to(parameters.get("scheme", cls.model_fields["scheme"].default)))

    @property
    def used_threshold(self) -> float:
        """The threshold, with its default filled in."""
        return DEFAULT_THRESHOLD if self.threshold is None else self.threshold

    @property
    def used_blocksize(self) -> int:
        """The block size, with its default filled in."""
        return self.blocksize or DEFAULT_BLOCKSIZE


def _foreign_to(scheme: object) -> tuple[str, ...]:
    return _OF_FOUR_BITS if scheme == "int8" else _OF_INT8
