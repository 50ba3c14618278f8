"""Plugin: the ModelAdapters that come with the library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pah_opt.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pah_opt.layout import ModelAdapter


@hookimpl
def pah_opt_model_adapters() -> Iterable[ModelAdapter]:
    """Return one adapter per family; none of them imports torch before it sees a model."""
    from pah_opt.models.adapters.hf_deit import HuggingFaceDeiT
    from pah_opt.models.adapters.hf_dinov2 import HuggingFaceDINOv2
    from pah_opt.models.adapters.hf_legacy import HuggingFaceLegacyViT
    from pah_opt.models.adapters.hf_vit import HuggingFaceViT
    from pah_opt.models.adapters.timm_vit import TimmViT
    from pah_opt.models.adapters.torchvision_vit import TorchvisionViT

    return (
        HuggingFaceViT(), HuggingFaceDeiT(), HuggingFaceDINOv2(), HuggingFaceLegacyViT(), TimmViT(), TorchvisionViT(),
    )  # fmt: skip
