"""Low-rank adaptation through peft: train small additions to frozen projections, then merge them into the weights."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pah_opt.adapt.isolation import restored_flags
from pah_opt.errors import MissingBackendError, UnsupportedModelError
from pah_opt.models.quiet import quiet_imports
from pah_opt.models.surgery import replace_module
from pah_opt.models.zeros import ZeroKeeper

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from pah_opt.layout import Layout


@dataclass(frozen=True)
class LoraSettings:
    """What low-rank additions look like.

    Args:
        rank: of each addition.
        alpha: additions are scaled by ``alpha / rank``.
        dropout: on their inputs, 0 to 1.
    """

    rank: int = 16
    alpha: float = 16.0
    dropout: float = 0.0


@contextmanager
def low_rank_additions(model: nn.Module, layout: Layout, settings: LoraSettings) -> Iterator[None]:
    """Add trainable low-rank terms to the attention projections of a model; merge them when the block ends.

    Inside the block nothing but these terms and the classifiers is trained. Zeros that pruning left stay zero.

    Raises:
        MissingBackendError: peft is not installed.
        UnsupportedModelError: peft cannot add to these layers.

    References:
        E. Hu et al.: LoRA, https://arxiv.org/abs/2106.09685.
    """
    peft = lora_library()
    paths = list(layout.attention_projections)
    with ZeroKeeper(model) as zeros, restored_flags(model):
        _inject(peft, model, paths, settings)
        for path in layout.classifiers:
            model.get_submodule(path).requires_grad_(True)
        try:
            yield
        finally:
            _merge(model, paths)
            zeros.restore()


def lora_library() -> Any:
    """Return peft.

    Raises:
        MissingBackendError: it is not installed.
    """
    try:
        with quiet_imports():
            import peft
    except ImportError as error:
        raise MissingBackendError(
            "low-rank adaptation is done by peft, which is not installed; pip install 'pah-opt[lora]'"
        ) from error
    return peft


def _inject(peft: Any, model: nn.Module, paths: list[str], settings: LoraSettings) -> None:
    config = peft.LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=paths
    )
    try:
        peft.inject_adapter_in_model(config, model)
    except (ValueError, TypeError) as error:
        raise UnsupportedModelError(f"low-rank terms cannot be added to {paths[0]} and its like: {error}") from error


def _merge(model: nn.Module, paths: list[str]) -> None:
    for path in paths:
        layer: Any = model.get_submodule(path)
        layer.merge(safe_merge=True)
        replace_module(model, path, layer.get_base_layer())
    # What peft writes on the model itself; left there, transformers would save an adapter in place of the model.
    for name in ("peft_config", "_hf_peft_config_loaded", "active_adapter"):
        vars(model).pop(name, None)
