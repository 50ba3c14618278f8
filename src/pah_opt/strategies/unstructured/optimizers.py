"""The unstructured strategies as recipes see them. Nothing here loads torch; the work is in the sibling modules."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from pah_opt.optimizer import Context, Effect, Goal, Needs, Optimizer, Tags
from pah_opt.strategies.unstructured.base import (
    EAGER_FLOAT,
    ZeroMaker,
    choice_problems,
    chosen_layers,
    group_problems,
)
from pah_opt.strategies.unstructured.config import (
    KERNEL_TILE,
    MagnitudeConfig,
    NmPattern,
    SemiStructuredConfig,
    SparseGptConfig,
    UnstructuredConfig,
    WandaConfig,
)

if TYPE_CHECKING:
    from typing import Any

    from torch import nn

TWO_OF_FOUR = NmPattern(2, 4)


class MagnitudePruning(ZeroMaker[MagnitudeConfig]):
    """Zero the weights of smallest magnitude."""

    name: ClassVar[str] = "magnitude-pruning"
    config_type = MagnitudeConfig
    summary: ClassVar[str] = "Set the smallest weights to zero: globally, per layer, or n of every m; needs no data."
    references: ClassVar[tuple[str, ...]] = (
        "Han et al., Learning both weights and connections for efficient neural networks, https://arxiv.org/abs/1506.02626",
    )

    def prune(self, model: nn.Module, layers: dict[str, nn.Linear], config: MagnitudeConfig, context: Context) -> None:
        """Set the smallest weights to zero."""
        from pah_opt.strategies.unstructured.prune import magnitude, prune

        layout = context.adapter.layout(model)
        prune(layers, magnitude(layers), config.zeros, config.scope, layout, config.nm)


class UnstructuredPruning(ZeroMaker[UnstructuredConfig]):
    """Zero the weights that an importance of choice ranks lowest."""

    name: ClassVar[str] = "unstructured-pruning"
    config_type = UnstructuredConfig
    summary: ClassVar[str] = (
        "Set the least important weights to zero, by magnitude, LAMP, Taylor, OBD, Wanda or at random."
    )
    references: ClassVar[tuple[str, ...]] = (
        "LAMP: Lee et al., https://arxiv.org/abs/2010.07611",
        "Taylor: Molchanov et al., https://arxiv.org/abs/1906.10771",
        "OBD: LeCun et al., Optimal brain damage, NeurIPS 1989",
        "Wanda: Sun et al., https://arxiv.org/abs/2306.11695",
    )
    label_free: ClassVar[str] = "importance magnitude, lamp or wanda"

    def needs(self, config: UnstructuredConfig) -> Needs:
        """Images for wanda; images with labels for the gradients of taylor and obd."""
        return Needs(
            calibration=config.needs_images, labels=config.needs_labels, instead="use importance magnitude or lamp"
        )

    def prune(
        self, model: nn.Module, layers: dict[str, nn.Linear], config: UnstructuredConfig, context: Context
    ) -> None:
        """Score the weights, then set the lowest to zero."""
        from pah_opt.strategies.unstructured.importance import scores
        from pah_opt.strategies.unstructured.prune import prune

        layout = context.adapter.layout(model)
        prune(layers, scores(model, layers, config, context), config.zeros, config.competes_in, layout, config.nm)


class Wanda(ZeroMaker[WandaConfig]):
    """Zero the weights with the smallest product of magnitude and input norm."""

    name: ClassVar[str] = "wanda"
    config_type = WandaConfig
    summary: ClassVar[str] = (
        "Set the weights to zero whose magnitude times input norm is smallest in each row; one forward pass."
    )
    references: ClassVar[tuple[str, ...]] = (
        "Sun et al., A simple and effective pruning approach for large language models, https://arxiv.org/abs/2306.11695",
    )

    def needs(self, config: WandaConfig) -> Needs:
        """Images; their labels are not looked at."""
        return Needs(calibration=True, instead="use magnitude-pruning")

    def prune(self, model: nn.Module, layers: dict[str, nn.Linear], config: WandaConfig, context: Context) -> None:
        """Observe the inputs of all layers in one pass, then set the lowest products to zero."""
        from pah_opt.strategies.unstructured.importance import wanda_scores
        from pah_opt.strategies.unstructured.prune import prune

        layout = context.adapter.layout(model)
        prune(layers, wanda_scores(model, layers, config, context), config.zeros, config.scope, layout, config.nm)


class SparseGpt(ZeroMaker[SparseGptConfig]):
    """Zero weights and let the others make up for them."""

    name: ClassVar[str] = "sparsegpt"
    config_type = SparseGptConfig
    summary: ClassVar[str] = (
        "Set weights to zero layer by layer and update the others in closed form, from calibration images."
    )
    references: ClassVar[tuple[str, ...]] = (
        "Frantar and Alistarh, SparseGPT, https://arxiv.org/abs/2301.00774",
        "admm: Boza, Fast and effective weight update for pruned large language models, https://arxiv.org/abs/2401.02938",
        "Hassibi and Stork, Second order derivatives for network pruning: optimal brain surgeon, NeurIPS 1992",
    )
    label_free: ClassVar[str] = "allocation uniform or lamp"

    def needs(self, config: SparseGptConfig) -> Needs:
        """Images; their labels too when the sparsity is shared out by loss gradients."""
        return Needs(calibration=True, labels=config.needs_labels, instead="use magnitude-pruning")

    def prune(self, model: nn.Module, layers: dict[str, nn.Linear], config: SparseGptConfig, context: Context) -> None:
        """Prune and repair block by block."""
        from pah_opt.strategies.unstructured.sparsegpt import sparsegpt

        sparsegpt(model, layers, config, context)


class SemiStructured(Optimizer[SemiStructuredConfig]):
    """Make linear layers 2:4 sparse and store them for sparse tensor cores."""

    name: ClassVar[str] = "semi-structured"
    config_type = SemiStructuredConfig
    summary: ClassVar[str] = (
        "Keep 2 of every 4 weights and, on CUDA, store layers in the format of sparse tensor cores."
    )
    goal: ClassVar[Goal] = "both"
    references: ClassVar[tuple[str, ...]] = (
        "Mishra et al., Accelerating sparse deep neural networks, https://arxiv.org/abs/2104.08378",
        "torch.sparse.to_sparse_semi_structured, https://docs.pytorch.org/docs/stable/sparse.html",
    )

    def tags(self, config: SemiStructuredConfig) -> Tags:
        """With kernels, weights are no longer plain; ``auto`` promises the same on every machine."""
        if config.kernels == "pattern":
            return Tags(requires=EAGER_FLOAT, provides=frozenset({"weights:sparse"}))
        return Tags(
            requires=EAGER_FLOAT,
            provides=frozenset({"weights:sparse", "linear:2:4"}),
            removes=frozenset({"weights:float", "shapes:free"}),
        )

    def needs(self, config: SemiStructuredConfig) -> Needs:
        """Images for the methods that observe; CUDA when kernels are required."""
        kernels = config.kernels == "require"
        return Needs(
            calibration=config.method != "magnitude",
            cuda=kernels,
            capability=(8, 0) if kernels else None,
            instead="use kernels: pattern" if kernels else "use method: magnitude",
        )

    def expects(self, config: SemiStructuredConfig) -> Effect:
        """Half of the weights are zero."""
        return Effect(zeros_at_least=TWO_OF_FOUR.sparsity)

    def alignment(self, config: SemiStructuredConfig) -> int:
        """Whole groups of four for the pattern; whole tiles where layers shall be stored for sparse kernels."""
        return TWO_OF_FOUR.group if config.kernels == "pattern" else math.lcm(*KERNEL_TILE)

    def check(self, model: nn.Module, config: SemiStructuredConfig, context: Context) -> list[str]:
        """Check the choice of layers, rows in groups of four, and what required kernels ask of type and shapes."""
        problems = choice_problems(model, config, context) or group_problems(model, config, TWO_OF_FOUR, context)
        if problems or config.kernels != "require":
            return problems
        from pah_opt.strategies.unstructured.semi_structured import kernel_problems

        return kernel_problems(chosen_layers(model, config, context))

    def apply(self, model: nn.Module, config: SemiStructuredConfig, context: Context) -> nn.Module:
        """Make the zeros, report them, then store the layers that the kernels can take."""
        if context.planning:
            return model
        from pah_opt.models.supply import check_supply
        from pah_opt.strategies.unstructured.semi_structured import make_semi_structured

        check_supply(context.calibration, self.needs(config), self.name)
        make_semi_structured(model, chosen_layers(model, config, context), config, context)
        return model

    def state(self, model: nn.Module, config: SemiStructuredConfig) -> dict[str, Any]:
        """Name the layers that are stored in the sparse format."""
        from pah_opt.strategies.unstructured.semi_structured import packed_layers

        return {"packed": packed_layers(model)}

    def finish(self, model: nn.Module, state: dict[str, Any]) -> nn.Module:
        """Store the layers in the sparse format again where this machine can; elsewhere they stay dense, with zeros."""
        from pah_opt.strategies.unstructured.semi_structured import pack_again

        pack_again(model, state["packed"])
        return model
