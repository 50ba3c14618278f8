"""The ``bitsandbytes`` Optimizer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

from pah_opt.environment import Backend
from pah_opt.errors import ArtifactError, UnsupportedModelError
from pah_opt.optimizer import FRESH_TAGS, Effect, Goal, Needs, Optimizer, Tags
from pah_opt.strategies.bitsandbytes.config import BitsandbytesConfig

if TYPE_CHECKING:
    from torch import nn

    from pah_opt.optimizer import Context

ALIGNMENT = 8
"""Widths that int8 products on CUDA multiply without padding, and that four-bit kernels take in whole words."""


class Bitsandbytes(Optimizer[BitsandbytesConfig]):
    """Store linear layers in int8 (LLM.int8) or four bits (NF4, FP4) with bitsandbytes, on CPU or CUDA.

    For memory: weights are expanded, or activations quantized, in every product, which is often slower than float.
    One scheme serves all chosen layers; `include` and `skip` leave others in float. Where layers need different
    schemes, or as few in float as a limit allows, use `torchao` with `per_layer` or `guarded`.
    """

    name: ClassVar[str] = "bitsandbytes"
    config_type = BitsandbytesConfig
    summary: ClassVar[str] = "Store linear layers in int8 or four bits with bitsandbytes; saves memory, not time."
    goal: ClassVar[Goal] = "memory"
    references: ClassVar[tuple[str, ...]] = (
        "bitsandbytes: https://github.com/bitsandbytes-foundation/bitsandbytes",
        "LLM.int8: https://arxiv.org/abs/2208.07339",
        "QLoRA (NF4, double quantization): https://arxiv.org/abs/2305.14314",
        "GPTQ: https://arxiv.org/abs/2210.17323",
    )
    backends: ClassVar[tuple[Backend, ...]] = (Backend("bitsandbytes", ">=0.50,<0.51"),)

    def tags(self, config: BitsandbytesConfig) -> Tags:
        """Need float weights; leave quantized ones, whose widths are fixed. Zeros stay zeros."""
        return Tags(
            requires=FRESH_TAGS,
            provides=frozenset({f"linear:{config.scheme}"}),
            removes=frozenset({"weights:float", "shapes:free"}),
        )

    def alignment(self, config: BitsandbytesConfig) -> int:
        """Return the multiple of widths that kernels work with best, and whose blocks of weights end with a row."""
        repairs = config.scheme != "int8" and config.rounding != "nearest"
        return math.lcm(ALIGNMENT, config.used_blocksize) if repairs else ALIGNMENT

    def needs(self, config: BitsandbytesConfig) -> Needs:
        """Images to make up for rounding errors on: where there are any, or always when it is asked for."""
        return Needs(
            calibration=config.rounding == "gptq",
            optional_calibration=config.scheme != "int8" and config.rounding is None,
            instead="set rounding: nearest",
        )

    def expects(self, config: BitsandbytesConfig) -> Effect:
        """Promise fewer bytes and the new type; four-bit parameters have a shape of their own."""
        return Effect(fewer_bytes=True, linear_dtype=config.scheme, same_shapes=config.scheme == "int8")

    def check(self, model: nn.Module, config: BitsandbytesConfig, context: Context) -> list[str]:
        """Find patterns that match nothing, and layers that are quantized already."""
        from pah_opt.strategies.bitsandbytes.apply import problems

        return problems(model, context.adapter.layout(model), config)

    def apply(self, model: nn.Module, config: BitsandbytesConfig, context: Context) -> nn.Module:
        """Swap the chosen layers for quantized ones.

        Raises:
            MissingBackendError: bitsandbytes cannot be imported.
            UnsupportedModelError: the config does not fit the model.
            DataError: calibration images are missing, too few, or do not fit.
        """
        from pah_opt.strategies.bitsandbytes.apply import choose, problems, quantize

        layout = context.adapter.layout(model)
        wrong = problems(model, layout, config)
        if wrong:
            raise UnsupportedModelError("bitsandbytes cannot quantize this model: " + "; ".join(wrong))
        chosen, left = choose(model, layout, config)
        quantize(model, chosen, config, context)
        context.record("quantized", dict.fromkeys(chosen, config.scheme))
        context.record("left_in_float", left)
        return model

    def state(self, model: nn.Module, config: BitsandbytesConfig) -> dict[str, Any]:
        """Return which layers are quantized, and what their modules must be made with."""
        from pah_opt.strategies.bitsandbytes.apply import quantized_paths
        from pah_opt.strategies.bitsandbytes.modules import LayerKind

        return {"layers": quantized_paths(model), "kind": LayerKind.of(config).to_data()}

    def restore(self, model: nn.Module, state: dict[str, Any]) -> nn.Module:
        """Put empty layers of bitsandbytes where quantized weights will be loaded.

        Raises:
            ArtifactError: the state does not fit the model.
            MissingBackendError: bitsandbytes cannot be imported.
        """
        from pah_opt.strategies.bitsandbytes.apply import swap
        from pah_opt.strategies.bitsandbytes.modules import LayerKind, empty

        try:
            kind, paths = LayerKind(**state["kind"]), list(state["layers"])
            swap(model, paths, lambda layer: empty(layer, kind))
        except (KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(f"the state of the bitsandbytes step does not fit this model: {error!r}") from error
        return model
