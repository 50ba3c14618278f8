"""Published configurations of well-known checkpoints, so that their architecture can be had without a connection.

Only what decides structure and preprocessing is here, as the checkpoints' own ``config.json`` and
``preprocessor_config.json`` state it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

_IMAGENET_MEAN, _IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
_BILINEAR, _BICUBIC = 2, 3

Family = Literal["vit", "deit", "dinov2"]


@dataclass(frozen=True)
class Published:
    """A checkpoint as its authors published it.

    Args:
        family: ``model_type`` of its config.
        architecture: the class that classifies with it.
        config: what its config states beside the defaults of the family.
        processor: class and settings of its image processor (the PIL implementation).
        has_classifier: the checkpoint has a classifier of its own (ImageNet's 1,000 classes).
    """

    family: Family
    architecture: str
    config: dict[str, Any]
    processor: tuple[str, dict[str, Any]]
    has_classifier: bool = True
    id2label: dict[int, str] = field(default_factory=dict)


def _size(hidden: int, blocks: int, heads: int) -> dict[str, Any]:
    return {"hidden_size": hidden, "num_hidden_layers": blocks, "num_attention_heads": heads}


_TINY, _SMALL, _BASE, _LARGE = _size(192, 12, 3), _size(384, 12, 6), _size(768, 12, 12), _size(1024, 24, 16)
_HUGE, _GIANT = _size(1280, 32, 16), _size(1536, 40, 24)


def _vit(size: dict[str, Any], patch: int, image: int, *, classifier: bool = True) -> Published:
    config = {**size, "intermediate_size": 4 * size["hidden_size"], "patch_size": patch, "image_size": image}
    # Google's ViTs are normalised to -1 … 1, not with the statistics of ImageNet.
    settings = {
        "size": {"height": image, "width": image}, "resample": _BILINEAR,
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
    }  # fmt: skip
    return Published("vit", "ViTForImageClassification", config, ("ViTImageProcessorPil", settings), classifier)


def _deit(size: dict[str, Any], image: int, *, distilled: bool = False) -> Published:
    config = {**size, "intermediate_size": 4 * size["hidden_size"], "patch_size": 16, "image_size": image}
    resized = image if image != 224 else 256
    settings = {
        "size": {"height": resized, "width": resized}, "do_center_crop": image == 224,
        "crop_size": {"height": image, "width": image}, "resample": _BICUBIC,
        "image_mean": _IMAGENET_MEAN, "image_std": _IMAGENET_STD,
    }  # fmt: skip
    # DeiT without distillation is published as a plain ViT.
    family: tuple[Family, str] = (
        ("deit", "DeiTForImageClassificationWithTeacher") if distilled else ("vit", "ViTForImageClassification")
    )
    return Published(*family, config, ("DeiTImageProcessorPil", settings))


def _dinov2(size: dict[str, Any], *, swiglu: bool = False) -> Published:
    config = {**size, "mlp_ratio": 4, "use_swiglu_ffn": swiglu, "patch_size": 14, "image_size": 518}
    settings = {
        "size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224},
        "resample": _BICUBIC, "image_mean": _IMAGENET_MEAN, "image_std": _IMAGENET_STD,
    }  # fmt: skip
    architecture = "Dinov2ForImageClassification"
    return Published("dinov2", architecture, config, ("BitImageProcessorPil", settings), has_classifier=False)


KNOWN: dict[str, Published] = {
    "google/vit-base-patch16-224": _vit(_BASE, 16, 224),
    "google/vit-base-patch16-224-in21k": _vit(_BASE, 16, 224, classifier=False),
    "google/vit-base-patch16-384": _vit(_BASE, 16, 384),
    "google/vit-base-patch32-224-in21k": _vit(_BASE, 32, 224, classifier=False),
    "google/vit-base-patch32-384": _vit(_BASE, 32, 384),
    "google/vit-large-patch16-224": _vit(_LARGE, 16, 224),
    "google/vit-large-patch16-224-in21k": _vit(_LARGE, 16, 224, classifier=False),
    "google/vit-large-patch16-384": _vit(_LARGE, 16, 384),
    "google/vit-large-patch32-384": _vit(_LARGE, 32, 384),
    "google/vit-huge-patch14-224-in21k": _vit(_HUGE, 14, 224, classifier=False),
    "facebook/deit-tiny-patch16-224": _deit(_TINY, 224),
    "facebook/deit-small-patch16-224": _deit(_SMALL, 224),
    "facebook/deit-base-patch16-224": _deit(_BASE, 224),
    "facebook/deit-base-patch16-384": _deit(_BASE, 384),
    "facebook/deit-tiny-distilled-patch16-224": _deit(_TINY, 224, distilled=True),
    "facebook/deit-small-distilled-patch16-224": _deit(_SMALL, 224, distilled=True),
    "facebook/deit-base-distilled-patch16-224": _deit(_BASE, 224, distilled=True),
    "facebook/deit-base-distilled-patch16-384": _deit(_BASE, 384, distilled=True),
    "facebook/dinov2-small": _dinov2(_SMALL),
    "facebook/dinov2-base": _dinov2(_BASE),
    "facebook/dinov2-large": _dinov2(_LARGE),
    "facebook/dinov2-giant": _dinov2(_GIANT, swiglu=True),
}
"""Well-known checkpoints by hub id."""

CLASSES = 1000
"""Classes of ImageNet, which the classifiers among them have."""
