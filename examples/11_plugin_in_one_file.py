"""A strategy of your own, in one file: the smallest of every m weights becomes zero.

Teaches: OptimizerConfig, Optimizer, `hookimpl`, registering in this process. It passes the contract that a package
tests (pah_opt.testing.OptimizerContract); docs/plugins.md makes such a package.
Output:
    50% of the weights are zero: 0.466 MB
"""

from __future__ import annotations

from types import SimpleNamespace

from pydantic import Field

import pah_opt
from pah_opt import Effect, OptimizerConfig, Recipe, Step, Tags, hookimpl
from pah_opt.adapt import pretrained_digits_vit
from pah_opt.models import select_linears
from pah_opt.plugins import register


class OneInMConfig(OptimizerConfig):
    """Parameters of `one-in-m`."""

    m: int = Field(default=4, ge=2, le=16, description="neighbours in a row of which one becomes zero")


class OneInM(pah_opt.Optimizer[OneInMConfig]):
    """Set the smallest of every m neighbours to zero, so that zeros are spread evenly; nothing is repaired."""

    name, goal, config_type = "one-in-m", "memory", OneInMConfig
    summary = "Set the smallest of every m weights in a row to zero."
    references = ("Zhou et al., Learning N:M sparse networks from scratch, https://arxiv.org/abs/2102.04010",)

    def tags(self, config):
        return Tags(requires=frozenset({"weights:float", "graph:eager"}), provides=frozenset({"weights:sparse"}))

    def expects(self, config):
        return Effect(zeros_at_least=0.5 / config.m)  # the end of a row that m does not divide keeps its weights

    def apply(self, model, config, context):
        zeros, total, m = 0, 0, config.m
        for linear in select_linears(model, context.adapter.layout(model), skip=("classifier",)).values():
            groups = linear.weight.data[:, : linear.in_features // m * m].unflatten(1, (-1, m))
            groups.scatter_(2, groups.abs().argmin(dim=2, keepdim=True), 0.0)
            zeros, total = zeros + groups.numel() // m, total + linear.weight.numel()
        context.record("sparsity", zeros / total)
        return model


def main() -> None:
    register(SimpleNamespace(pah_opt_optimizers=hookimpl(lambda: [OneInM()])), "one-in-m")
    digits = pretrained_digits_vit()
    artifact = pah_opt.apply(digits.model, Recipe(steps=[Step.of("one-in-m", m=2)]), digits.data)
    file = artifact.save("one-in-2", overwrite=True) / "model.safetensors"
    print(f"{artifact.steps[0].achieved['sparsity']:.0%} of the weights are zero: {file.stat().st_size / 1e6:.3f} MB")


if __name__ == "__main__":
    main()
