"""Parameters of the ``torchao`` strategy, and what is known of each scheme. Nothing here loads torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, cast, get_args

from pydantic import Field, model_validator

from pah_opt.adapt.settings import RecoverySettings
from pah_opt.optimizer import OptimizerConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

Scheme = Literal[
    "int8-weight-only", "int8-dynamic", "int8-static", "int8-qat", "int4-weight-only", "fp8-weight-only", "fp8-dynamic"
]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
FLOAT = "float"
"""What a layer is said to be that stays as it is."""


class SchemeFacts(NamedTuple):
    """What is known of a scheme.

    Args:
        storage: how weights are stored, as state tags and reports name it.
        multiple: widths of a layer, in and out, must be multiples of this; 1 for any.
        why: what happens at other widths.
    """

    storage: str
    multiple: int = 1
    why: str = ""


# torchao's int8 product on CUDA needs K and N to be multiples of 8; for others it copies both operands to the CPU and
# multiplies there (torchao.kernel.intmm.safe_int_mm). Float is faster, and an artifact made on a CPU may move to a GPU.
_INT8_KERNELS = "int8 kernels multiply other widths on the CPU, slower than float"
FACTS: Mapping[Scheme, SchemeFacts] = {
    "int8-weight-only": SchemeFacts("int8"),
    "int8-dynamic": SchemeFacts("int8", 8, _INT8_KERNELS),
    "int8-static": SchemeFacts("int8", 8, _INT8_KERNELS),
    "int8-qat": SchemeFacts("int8", 8, _INT8_KERNELS),
    "int4-weight-only": SchemeFacts("int4"),
    "fp8-weight-only": SchemeFacts("fp8"),
    "fp8-dynamic": SchemeFacts("fp8", 16, "fp8 kernels take no other widths"),
}


OPTIONS: Mapping[str, tuple[Scheme, ...]] = {
    "group_size": ("int4-weight-only",),
    "rounding": ("int4-weight-only",),
    "smooth": ("int8-static",),
    "naive": ("int8-static",),
    "images": ("int8-static", "int4-weight-only"),
    "training": ("int8-qat",),
}
"""The schemes that each option belongs to which not all of them read."""


class Guard(OptimizerConfig):
    """How much a model may lose before layers are left in float. Give one limit or both."""

    max_kl: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Largest mean Kullback-Leibler divergence of the quantized model's class probabilities from the float model's, in
    nats; 0.01 is hardly noticeable. Needs no labels."""
    max_drop_pp: float | None = Field(default=None, ge=0, le=100)
    """Largest drop of top-1 accuracy on the images looked at, in percentage points. Needs labels, and at least 100
    images for each point to mean anything. As the only limit it also decides which layers are the most damaging."""
    images: int = Field(default=256, ge=1)
    """At most so many calibration images are judged, evenly spaced."""

    @model_validator(mode="after")
    def _has_a_limit(self) -> Guard:
        if self.max_kl is None and self.max_drop_pp is None:
            raise ValueError("guarded needs max_kl, max_drop_pp or both, such as {max_kl: 0.01}")
        return self


class QatTraining(RecoverySettings):
    """How to train with rounding in the loop: the weights are good already, so gently, and with the float teacher."""

    lr: float = Field(default=1e-5, gt=0.0, le=1.0)
    """Highest learning rate of AdamW; it follows a cosine down to zero."""


class TorchaoConfig(OptimizerConfig):
    """Parameters of `torchao`."""

    scheme: Scheme = "int8-dynamic"
    """How weights are stored and multiplied. `int8-weight-only` and `fp8-weight-only` halve or quarter the bytes and
    multiply in float. `int8-dynamic` quantizes activations anew for each token and multiplies in int8: fast when
    compiled. `int8-static` fixes the activations' scale on calibration images. `int8-qat` trains with rounding in the
    loop first, then is int8-dynamic. `int4-weight-only` stores half a byte a weight. `fp8-dynamic` multiplies in fp8,
    on GPUs from compute capability 8.9."""
    include: tuple[str, ...] = Field(default=("*",), min_length=1)
    """Linear layers to quantize: glob patterns over module paths, or `attention`, `qkv`, `attention-output`, `mlp`,
    `classifier`."""
    skip: tuple[str, ...] = ("classifier",)
    """Linear layers to leave in float, whatever else is said. The classifier is small, matters more than any other
    layer, and with few classes has a width that int8 kernels are slow at."""
    per_layer: dict[str, Scheme | Literal["float"]] = Field(default_factory=dict)
    """Another scheme (or `float`) for some layers: pattern to scheme. Of several patterns that match a layer the last
    one decides."""
    group_size: Literal[16, 32, 64, 128, 256] = 32
    """int4: so many neighbouring weights of a row share a scale. Smaller is more accurate: 32 costs 4.75 bits a weight
    in all, 128 costs 4.19."""
    rounding: Literal["nearest", "search", "gptq"] | None = None
    """int4: round to the `nearest` step of the full range; `search` the range with the least squared error; `gptq`
    also lets later weights make up for the errors of earlier ones, on calibration images. By default gptq where there
    are calibration images, else search."""
    smooth: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] | None = "auto"
    """int8-static: how much of the activations' outliers moves into the weights (SmoothQuant's alpha, 0 to 1); `auto`
    chooses for each layer what changes its output least; null for none."""
    naive: bool = False
    """int8-static: one scale from the largest absolute value for each whole weight and activation, no zero point, no
    smoothing. Known to ruin Vision Transformers; there to reproduce that."""
    images: int = Field(default=128, ge=1)
    """int8-static, int4 with gptq: at most so many calibration images are observed, evenly spaced."""
    batch_size: int = Field(default=16, ge=1)
    """Images per forward pass while observing and guarding."""
    guarded: Guard | None = None
    """Leave the most damaging layers in float until a limit holds on calibration images."""
    training: QatTraining = QatTraining()
    """int8-qat: how to train."""

    @model_validator(mode="after")
    def _options_belong_to_a_scheme_in_use(self) -> TorchaoConfig:
        given = self.model_dump(exclude_defaults=True)
        for name, readers in OPTIONS.items():
            if name in given and self.schemes.isdisjoint(readers):
                used = ", ".join(sorted(self.schemes))
                raise ValueError(
                    f"{name} belongs to scheme {' and '.join(readers)}, and no layer gets that (in use: {used}); leave "
                    f"{name} out"
                )
        return self

    @classmethod
    def without_effect(cls, parameters: Mapping[str, Any]) -> frozenset[str]:
        """Return the options of schemes that no layer gets."""
        per_layer = parameters.get("per_layer")
        used = [parameters.get("scheme", cls.model_fields["scheme"].default)]
        used += per_layer.values() if isinstance(per_layer, dict) else ()
        # As written in a file, so values may be of any type; membership asks for equality alone.
        return frozenset(name for name, readers in OPTIONS.items() if not any(reader in used for reader in readers))

    @property
    def schemes(self) -> frozenset[Scheme]:
        """Every scheme that some layer may get."""
        return frozenset(
            cast("Scheme", scheme) for scheme in (self.scheme, *self.per_layer.values()) if scheme != FLOAT
        )

    @property
    def storages(self) -> frozenset[str]:
        """Every type in which weights may be stored."""
        return frozenset(FACTS[scheme].storage for scheme in self.schemes)
