"""A strategy of your own, in one file: bit rounding, which lets compressed files shrink without a visible change.

Teaches: OptimizerConfig, Optimizer, `hookimpl`, registering in this process. docs/plugins.md makes a package of it.
Output:
    kept_bits 99 is refused
    0.753 MB -> 0.392 MB
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from pydantic import Field

import pah_opt
from pah_opt import Effect, OptimizerConfig, Recipe, Step, hookimpl
from pah_opt.adapt import pretrained_digits_vit
from pah_opt.errors import RecipeError
from pah_opt.models import select_linears
from pah_opt.plugins import register


class BitRoundConfig(OptimizerConfig):
    kept_bits: int = Field(default=7, ge=1, le=22, description="mantissa bits that each weight keeps")


class BitRounding(pah_opt.Optimizer[BitRoundConfig]):
    """Round every linear weight to a few mantissa bits (Zender, Geosci. Model Dev. 9, 2016)."""

    name, goal, config_type = "bit-rounding", "memory", BitRoundConfig
    summary = "Round weights to a few mantissa bits: compressed files shrink."

    def expects(self, config):
        return Effect()  # nothing that could be verified but shapes

    def apply(self, model, config, context):
        dropped = 23 - config.kept_bits
        for linear in select_linears(model, context.adapter.layout(model)).values():
            if not context.planning:  # a plan has shapes only
                linear.weight.data.view(torch.int32).add_(1 << (dropped - 1)).bitwise_and_(-(1 << dropped))
        return model


def main() -> None:
    register(SimpleNamespace(pah_opt_optimizers=hookimpl(lambda: [BitRounding()])), "bit-rounding")
    digits, sizes = pretrained_digits_vit(), []
    try:
        pah_opt.plan(digits.model, Recipe(steps=[Step.of("bit-rounding", kept_bits=99)]))
    except RecipeError:
        print("kept_bits 99 is refused")
    for bits in (22, 7):
        artifact = pah_opt.apply(digits.model, Recipe(steps=[Step.of("bit-rounding", kept_bits=bits)]), digits.data)
        folder = artifact.save(f"rounded-to-{bits}", overwrite=True, compress=True)
        sizes.append(sum(file.stat().st_size for file in folder.glob("model*")) / 1e6)
    print(f"{sizes[0]:.3f} MB -> {sizes[1]:.3f} MB")


if __name__ == "__main__":
    main()
