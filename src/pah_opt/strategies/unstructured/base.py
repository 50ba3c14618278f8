"""What all strategies that make zeros share: tags, effect, and the checks on layer choice. Nothing here loads torch."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, TypeVar

from pah_opt.models.gradients import classifier_problems
from pah_opt.optimizer import Context, Effect, Goal, Optimizer, Tags
from pah_opt.strategies.unstructured.config import NmPattern, PruningTarget

if TYPE_CHECKING:
    from torch import nn

    from pah_opt.strategies.unstructured.config import LayerChoice

TargetT = TypeVar("TargetT", bound=PruningTarget)

EAGER_FLOAT = frozenset({"weights:float", "graph:eager"})


class ZeroMaker(Optimizer[TargetT]):
    """A strategy that sets weights of linear layers to zero; a subclass says which ones.

    Class attributes:
        label_free: parameters that do without loss gradients, for models without a classifier to take them from.
    """

    goal: ClassVar[Goal] = "memory"
    label_free: ClassVar[str] = ""

    @abstractmethod
    def prune(self, model: nn.Module, layers: dict[str, nn.Linear], config: TargetT, context: Context) -> None:
        """Set weights of ``layers`` to zero in place."""

    def apply(self, model: nn.Module, config: TargetT, context: Context) -> nn.Module:
        """Prune the chosen layers and report the zeros; a dry run changes nothing, as shapes stay."""
        if context.planning:
            return model
        from pah_opt.models.supply import check_supply
        from pah_opt.strategies.unstructured.record import record_zeros, zeros_of

        check_supply(context.calibration, self.needs(config), self.name)
        layers = chosen_layers(model, config, context)
        before = zeros_of(layers)
        self.prune(model, layers, config, context)
        record_zeros(context, model, layers, before, config.zeros)
        return model

    def tags(self, config: TargetT) -> Tags:
        """Any eager floating-point model; afterwards its zeros are there on purpose."""
        return Tags(requires=EAGER_FLOAT, provides=frozenset({"weights:sparse"}))

    def expects(self, config: TargetT) -> Effect:
        """As many zeros as asked for, shapes as before."""
        return Effect(zeros_at_least=config.zeros)

    def alignment(self, config: TargetT) -> int:
        """Rows are cut into whole groups of an n:m pattern."""
        return config.nm.group if config.nm else 1

    def check(self, model: nn.Module, config: TargetT, context: Context) -> list[str]:
        """Find patterns that match nothing, an empty choice, rows that cannot be cut, and gradients out of reach."""
        problems = choice_problems(model, config, context) + group_problems(model, config, config.nm, context)
        return problems + (classifier_problems(model, context, self.label_free) if self.needs(config).labels else [])


def chosen_layers(model: nn.Module, config: LayerChoice, context: Context) -> dict[str, nn.Linear]:
    """Return the linear layers that a config chooses, by path."""
    from pah_opt.models.selection import select_linears

    return select_linears(model, context.adapter.layout(model), include=config.include, skip=config.skip)


def choice_problems(model: nn.Module, config: LayerChoice, context: Context) -> list[str]:
    """Say which patterns match no layer, or that no layer is left."""
    from pah_opt.models.selection import GROUPS, all_linears, unmatched_patterns

    layout = context.adapter.layout(model)
    known = list(all_linears(model, layout))
    hint = f"name groups ({', '.join(GROUPS)}) or paths such as {', '.join(known[:2])}"
    lost = unmatched_patterns(model, layout, (*config.include, *config.skip))
    problems = [f"the pattern {pattern!r} matches no linear layer of this model; {hint}" for pattern in lost]
    if not problems and not chosen_layers(model, config, context):
        problems = [
            f"include {list(config.include)} and skip {list(config.skip)} leave no linear layer to prune; {hint}"
        ]
    return problems


def group_problems(model: nn.Module, config: LayerChoice, pattern: NmPattern | None, context: Context) -> list[str]:
    """Say which layers have rows that cannot be cut into whole groups of m."""
    if pattern is None:
        return []
    odd = {p: m.in_features for p, m in chosen_layers(model, config, context).items() if m.in_features % pattern.group}
    if not odd:
        return []
    path, width = next(iter(odd.items()))
    message = (
        f"pattern {pattern.kept}:{pattern.group} needs inputs in multiples of {pattern.group}; {path} has {width} "
        f"({len(odd)} such layers); skip them, use another m, or align widths in an earlier pruning step"
    )
    return [message]
