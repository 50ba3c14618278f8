"""The ``gradual-pruning`` strategy as recipes see it. Nothing here loads torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pah_opt.adapt.backend import ACCELERATE
from pah_opt.optimizer import Context, Effect, Goal, Needs, Optimizer, Tags
from pah_opt.strategies.unstructured.base import EAGER_FLOAT, choice_problems, chosen_layers
from pah_opt.strategies.unstructured.gradual_config import GradualConfig

if TYPE_CHECKING:
    from torch import nn

    from pah_opt.environment import Backend


class GradualPruning(Optimizer[GradualConfig]):
    """Prune a little, train, prune a little more: at high sparsity far better than all at once.

    It makes zeros. To cut heads, units or blocks little by little, repeat their strategy and `recover` in the recipe.
    """

    name: ClassVar[str] = "gradual-pruning"
    config_type = GradualConfig
    summary: ClassVar[str] = "Prune in rounds along a cubic schedule, with training in between that keeps the zeros."
    goal: ClassVar[Goal] = "memory"
    references: ClassVar[tuple[str, ...]] = (
        "Zhu and Gupta, To prune, or not to prune, https://arxiv.org/abs/1710.01878",
    )
    backends: ClassVar[tuple[Backend, ...]] = (ACCELERATE,)

    def tags(self, config: GradualConfig) -> Tags:
        """Any eager floating-point model; afterwards its zeros are there on purpose."""
        merged = frozenset({"tokens:merged"} if config.distill_features > 0 else ())  # none of the teacher's
        return Tags(requires=EAGER_FLOAT, provides=frozenset({"weights:sparse"}), excludes=merged)

    def needs(self, config: GradualConfig) -> Needs:
        """Training images; calibration images for the methods that observe."""
        method = config.repairing(config.sparsity) if config.method == "sparsegpt" else config.scoring()
        return Needs(
            calibration=method.needs_images,
            labels=method.needs_labels,
            training=True,
            instead="use sparsegpt, which needs no training",
        )

    def expects(self, config: GradualConfig) -> Effect:
        """As many zeros in the end as asked for, shapes as before."""
        return Effect(zeros_at_least=config.sparsity)

    def check(self, model: nn.Module, config: GradualConfig, context: Context) -> list[str]:
        """Check the choice of layers, and that the model can be trained."""
        from pah_opt.adapt.problems import training_problems

        trained = training_problems(model, config, context.adapter, context.reference)
        return choice_problems(model, config, context) + trained

    def apply(self, model: nn.Module, config: GradualConfig, context: Context) -> nn.Module:
        """Alternate pruning and training; report the rounds and the zeros at the end."""
        if context.planning:
            return model
        from pah_opt.models.supply import check_supply
        from pah_opt.strategies.unstructured.gradual import prune_gradually
        from pah_opt.strategies.unstructured.record import record_zeros, zeros_of

        check_supply(context.calibration, self.needs(config), self.name)
        layers = chosen_layers(model, config, context)
        before = zeros_of(layers)
        prune_gradually(model, layers, config, context)
        record_zeros(context, model, layers, before, config.sparsity)
        return model
