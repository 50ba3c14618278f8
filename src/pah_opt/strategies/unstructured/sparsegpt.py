"""SparseGPT on a Vision Transformer: prune block by block, the weights that stay make up for the ones that go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pah_opt.strategies.unstructured.blockwise import change_blockwise
from pah_opt.strategies.unstructured.masking import group_mask, zero_count
from pah_opt.strategies.unstructured.obs import inverse_factor, prune_columns
from pah_opt.strategies.unstructured.prune import smallest_mask

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from pah_opt.models.calibration import Covariance
    from pah_opt.optimizer import Context
    from pah_opt.strategies.unstructured.config import NmPattern, SparseGptConfig
    from pah_opt.strategies.unstructured.obs import Choose


def sparsegpt(model: nn.Module, layers: Mapping[str, nn.Linear], config: SparseGptConfig, context: Context) -> None:
    """Prune ``layers`` in place and update what stays; weights that are zero already stay zero.

    Reports layers that needed more dampening than asked for.
    """
    harder: dict[str, float] = {}

    def change(sharing: Mapping[str, nn.Linear], seen: Covariance) -> None:
        factor = inverse_factor(hessian(seen, centred=_all_biased(sharing)), config.dampening)
        for path, layer in sharing.items():
            repair(layer, seen, factor.upper, config)
            if factor.dampening != config.dampening:
                harder[path] = factor.dampening

    change_blockwise(model, layers, context, config, change)
    if harder:
        context.record("dampening_raised", harder)


def hessian(seen: Covariance, *, centred: bool) -> Tensor:
    """Return the second moment of a layer's inputs, float32, about their mean when the bias can take the mean up."""
    return (seen.matrix if centred else seen.second_moment).float()


def repair(layer: nn.Linear, seen: Covariance, upper: Tensor, config: SparseGptConfig) -> None:
    """Prune one layer in place; its bias takes up the change of the outputs' mean."""
    old, pattern = layer.weight.detach().float(), config.nm
    choose = choose_pattern(pattern) if pattern else choose_share(config.zeros, old)
    group = pattern.group if pattern else config.block_size
    new = prune_columns(old, upper, choose, block=_multiple(config.block_size, group), group=group)
    layer.weight.copy_(new)
    if layer.bias is not None:
        layer.bias.add_((old - new).to(seen.mean.dtype) @ seen.mean)


def choose_pattern(pattern: NmPattern) -> Choose:
    """Choose all but the dearest n of every m columns."""
    return lambda scores, _column: group_mask(scores, pattern.kept, pattern.group)


def choose_share(zeros: float, weight: Tensor) -> Choose:
    """Choose the cheapest weights of each group of columns, so that the layer ends with exactly its share of zeros."""
    columns, total = weight.shape[1], zero_count(zeros, weight.numel())

    def choose(scores: Tensor, column: int) -> Tensor:
        end = column + scores.shape[1]
        return smallest_mask(scores, end * total // columns - column * total // columns)

    return choose


def _all_biased(layers: Mapping[str, nn.Linear]) -> bool:
    return all(layer.bias is not None for layer in layers.values())


def _multiple(block: int, group: int) -> int:
    return max(block // group, 1) * group
