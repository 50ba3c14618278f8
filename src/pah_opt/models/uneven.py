"""Load a checkpoint whose blocks differ, which a plain transformers class cannot be constructed for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from pah_opt.models.adapters.huggingface import HuggingFaceAdapter


def uneven_class(config: Any) -> Any:
    """Return the model class that a config describes with uneven blocks, or None for an ordinary config.

    The class constructs itself with the blocks of :data:`pah_opt.models.adapters.huggingface.UNEVEN`, so that
    ``from_pretrained`` finds every tensor in its shape. Give the loaded model its base class back afterwards.

    Args:
        config: a transformers config.

    Raises:
        UnsupportedModelError: the config names no architecture of a family that can have uneven blocks.
    """
    import transformers

    from pah_opt.errors import UnsupportedModelError
    from pah_opt.models.adapters.huggingface import UNEVEN

    blocks = getattr(config, UNEVEN, None)
    if blocks is None:
        return None
    name = (config.architectures or ["(none)"])[0]
    base: Any = getattr(transformers, name, None)
    if base is None:
        raise UnsupportedModelError(f"config.json names the architecture {name!r}, which transformers does not have")

    def construct(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        base.__init__(self, config, *args, **kwargs)
        _adapter_of(self).reshape(self, blocks)

    return type(base.__name__, (base,), {"__init__": construct, "__module__": base.__module__})


def _adapter_of(model: nn.Module) -> HuggingFaceAdapter:
    from pah_opt.models.adapters.huggingface import HuggingFaceAdapter
    from pah_opt.models.builtin import pah_opt_model_adapters
    from pah_opt.models.finding import find_adapter

    adapters = [adapter for adapter in pah_opt_model_adapters() if isinstance(adapter, HuggingFaceAdapter)]
    return find_adapter(model, adapters)  # type: ignore[return-value]  # one of those
