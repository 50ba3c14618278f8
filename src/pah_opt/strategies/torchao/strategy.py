"""The ``torchao`` Optimizer: what it declares; the work is in :mod:`pah_opt.strategies.torchao.apply`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

from pah_opt.environment import Backend
from pah_opt.optimizer import FRESH_TAGS, Effect, Goal, Needs, Optimizer, Tags
from pah_opt.strategies.torchao.config import FACTS, TorchaoConfig

if TYPE_CHECKING:
    from torch import nn

    from pah_opt.optimizer import Context

FP8_CAPABILITY = (8, 9)


class Torchao(Optimizer[TorchaoConfig]):
    """Quantize linear layers with torchao: int8, int4 and fp8, weights alone or activations too, static or trained.

    Widths that the layers should have: multiples of 8 for int8 products and of 16 for fp8 ones, of the group for int4;
    other layers are left in float, and the step says which.
    """

    name: ClassVar[str] = "torchao"
    config_type = TorchaoConfig
    summary: ClassVar[str] = "Quantize linear layers to int8, int4 or fp8 with torchao, layer by layer if need be."
    goal: ClassVar[Goal] = "both"
    references: ClassVar[tuple[str, ...]] = (
        "torchao: https://github.com/pytorch/ao",
        "LLM.int8 (per-token, per-channel): https://arxiv.org/abs/2208.07339",
        "SmoothQuant: https://arxiv.org/abs/2211.10438",
        "GPTQ: https://arxiv.org/abs/2210.17323",
        "Quantization-aware training: https://arxiv.org/abs/1712.05877",
    )
    backends: ClassVar[tuple[Backend, ...]] = (Backend("torchao", ">=0.18,<0.19"),)

    def tags(self, config: TorchaoConfig) -> Tags:
        """Need float weights; leave quantized ones, whose widths are fixed. Zeros stay zeros."""
        compares = "int8-qat" in config.schemes and config.training.distill_features > 0
        return Tags(
            requires=FRESH_TAGS,
            excludes=frozenset({"tokens:merged"} if compares else ()),  # they are none of the teacher's
            provides=frozenset(f"linear:{storage}" for storage in config.storages),
            removes=frozenset({"weights:float", "shapes:free"}),
        )

    def needs(self, config: TorchaoConfig) -> Needs:
        """Ask for images and hardware as the schemes need them."""
        schemes = config.schemes
        explicit_gptq = "int4-weight-only" in schemes and config.rounding == "gptq"
        cuda = "fp8-dynamic" in schemes
        return Needs(
            calibration="int8-static" in schemes or explicit_gptq or config.guarded is not None,
            labels=config.guarded is not None and config.guarded.max_drop_pp is not None,
            optional_calibration="int4-weight-only" in schemes and config.rounding is None,
            training="int8-qat" in schemes,
            cuda=cuda,
            capability=FP8_CAPABILITY if cuda else None,
            instead="use scheme fp8-weight-only, which runs everywhere, or int8-dynamic" if cuda else None,
        )

    def alignment(self, config: TorchaoConfig) -> int:
        """Return the multiple of widths that every scheme can work with."""
        wanted = [FACTS[scheme].multiple for scheme in config.schemes]
        return math.lcm(*wanted, config.group_size if "int4-weight-only" in config.schemes else 1)

    def expects(self, config: TorchaoConfig) -> Effect:
        """Promise fewer bytes, and the type of most layers where one scheme serves all."""
        storages = sorted(config.storages)
        return Effect(fewer_bytes=True, linear_dtype=storages[0] if len(storages) == 1 else None)

    def check(self, model: nn.Module, config: TorchaoConfig, context: Context) -> list[str]:
        """Find patterns that match nothing, layers that cannot be quantized, and types that do not fit."""
        from pah_opt.strategies.torchao.layers import problems

        return problems(model, config, context)

    def apply(self, model: nn.Module, config: TorchaoConfig, context: Context) -> nn.Module:
        """Quantize the chosen layers in place."""
        from pah_opt.strategies.torchao.apply import quantize_model

        return quantize_model(model, config, context)[0]

    def state(self, model: nn.Module, config: TorchaoConfig) -> dict[str, Any]:
        """Return in what types weights are stored."""
        return {"storages": sorted(config.storages)}

    def restore(self, model: nn.Module, state: dict[str, Any]) -> nn.Module:
        """Make the types of the weights known before they are loaded; the layers stay plain linear ones.

        Raises:
            MissingBackendError: torchao cannot be imported.
        """
        from pah_opt.strategies.torchao import backend

        backend.load("torchao.quantization")
        if "int4" in state.get("storages", ()):
            from pah_opt.strategies.torchao import packed_int4  # noqa: F401  # registers its type
        return model
