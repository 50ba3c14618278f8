"""The ``cast`` Optimizer: bfloat16 or float16 throughout; the work is in :mod:`pah_opt.strategies.runtime.casting`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pah_opt.optimizer import Effect, Goal, Optimizer, OptimizerConfig, Tags

if TYPE_CHECKING:
    from torch import nn

    from pah_opt.optimizer import Context

Half = Literal["bf16", "fp16"]
TORCH_NAMES: dict[Half, str] = {"bf16": "bfloat16", "fp16": "float16"}


class CastConfig(OptimizerConfig):
    """Parameters of `cast`."""

    dtype: Half = "bf16"
    """Type of every floating-point tensor. `bf16`: the range of float32 with 8 bits of precision; safe, and fast on
    GPUs of compute capability 8.0 and CPUs with AMX or AVX512-BF16; a CPU without AVX-512 runs it many times slower
    than float32, as `pah-opt doctor` tells. `fp16`: 11 bits of precision, up to 65,504."""


class Cast(Optimizer[CastConfig]):
    """Cast every floating-point parameter and buffer to half precision.

    Half the bytes, and matrix products on tensor cores. Norms and softmax stay sound: torch computes both in float32
    inside its kernels, whatever the type of their input. The model still takes float32 pixels; its patch embedding
    casts them. Logits come in the new type.
    """

    name: ClassVar[str] = "cast"
    config_type = CastConfig
    summary: ClassVar[str] = "Cast the whole model to bfloat16 or float16; it still takes float32 images."
    goal: ClassVar[Goal] = "both"
    references: ClassVar[tuple[str, ...]] = (
        "Micikevicius et al., Mixed precision training, https://arxiv.org/abs/1710.03740",
        "Kalamkar et al., A study of bfloat16, https://arxiv.org/abs/1905.12322",
    )

    def tags(self, config: CastConfig) -> Tags:
        """Need plain weights, which stay plain, in another type."""
        other: dict[Half, Half] = {"bf16": "fp16", "fp16": "bf16"}
        return Tags(
            requires=frozenset({"weights:float", "graph:eager"}),
            provides=frozenset({f"dtype:{config.dtype}"}),
            removes=frozenset({f"dtype:{other[config.dtype]}"}),
        )

    def expects(self, config: CastConfig) -> Effect:
        """Promise linear weights of the new type."""
        return Effect(linear_dtype=config.dtype)

    def check(self, model: nn.Module, config: CastConfig, context: Context) -> list[str]:
        """Find a model that is of this type already."""
        from pah_opt.strategies.runtime.casting import is_of

        if is_of(model, TORCH_NAMES[config.dtype]):
            return [f"every parameter is {config.dtype} already; leave the step out"]
        return []

    def apply(self, model: nn.Module, config: CastConfig, context: Context) -> nn.Module:
        """Cast ``model`` in place, and have its patch embedding cast the pixels."""
        from pah_opt.strategies.runtime.casting import cast_model

        return cast_model(model, TORCH_NAMES[config.dtype], context)

    def state(self, model: nn.Module, config: CastConfig) -> dict[str, Any]:
        """Return which layer casts the pixels."""
        from pah_opt.strategies.runtime.casting import casting_layers

        return {"casts_input": casting_layers(model)}

    def restore(self, model: nn.Module, state: dict[str, Any]) -> nn.Module:
        """Have that layer of the rebuilt model cast the pixels again."""
        from pah_opt.strategies.runtime.casting import cast_inputs_of

        for path in state.get("casts_input", ()):
            cast_inputs_of(model, path)
        return model
