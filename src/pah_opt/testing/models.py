"""Tiny Vision Transformers of every family, with seeded random weights: milliseconds to make, milliseconds to run."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HIDDEN = 32
"""Embedding width of the tiny models, unless asked otherwise."""
IMAGE = 32
"""Input height and width of the tiny models in pixels, unless asked otherwise."""
CLASSES = 10
"""Classes of the tiny models, unless asked otherwise."""


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch inside the block and leave its global generator as it was; quieten imports."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        yield


def _options(*, blocks: int, heads: int, hidden: int, classes: int, image: int, patch: int) -> dict[str, Any]:
    return {
        "hidden_size": hidden, "num_hidden_layers": blocks, "num_attention_heads": heads,
        "image_size": image, "patch_size": patch, "num_labels": classes,
    }  # fmt: skip


@torch.no_grad()
def _awake(model: nn.Module) -> nn.Module:
    """Give parameters that start at zero (biases, tokens, classifiers) small values: nothing must hide behind a 0."""
    for parameter in model.parameters():
        if parameter.device.type != "meta" and not parameter.any():
            parameter.normal_(std=0.02)
    return model.eval()


def _hugging_face(kind: str, config_kind: str, seed: int, options: dict[str, Any]) -> nn.Module:
    import transformers

    from pah_opt.models.quiet import quiet_transformers

    with quiet_transformers(), _seeded(seed):
        config = getattr(transformers, config_kind)(**options)
        return _awake(getattr(transformers, kind)(config))


def tiny_vit(
    *, blocks: int = 2, heads: int = 4, hidden: int = HIDDEN, mlp: int = 64, classes: int = CLASSES,
    image: int = IMAGE, patch: int = 8, seed: int = 0, **config: Any,
) -> nn.Module:  # fmt: skip
    """Return a ``transformers.ViTForImageClassification`` in ``eval`` mode.

    Args:
        blocks: transformer blocks.
        heads: attention heads.
        hidden: embedding width.
        mlp: width of the feed-forward networks.
        classes: width of the logits.
        image: input height and width in pixels.
        patch: patch height and width in pixels.
        seed: of the weights.
        **config: anything else that ``ViTConfig`` takes.
    """
    options = (
        _options(blocks=blocks, heads=heads, hidden=hidden, classes=classes, image=image, patch=patch)
        | {"intermediate_size": mlp}
        | config
    )
    return _hugging_face("ViTForImageClassification", "ViTConfig", seed, options)


def tiny_deit(
    *, distilled: bool = False, blocks: int = 2, heads: int = 4, hidden: int = HIDDEN, mlp: int = 64,
    classes: int = CLASSES, image: int = IMAGE, patch: int = 8, seed: int = 0, **config: Any,
) -> nn.Module:  # fmt: skip
    """Return a ``transformers.DeiTForImageClassification``, or ``…WithTeacher`` (two classifiers) when ``distilled``.

    The other arguments are those of :func:`tiny_vit`.
    """
    options = (
        _options(blocks=blocks, heads=heads, hidden=hidden, classes=classes, image=image, patch=patch)
        | {"intermediate_size": mlp}
        | config
    )
    kind = "DeiTForImageClassificationWithTeacher" if distilled else "DeiTForImageClassification"
    return _hugging_face(kind, "DeiTConfig", seed, options)


def tiny_dinov2(
    *, swiglu: bool = False, registers: int = 0, blocks: int = 2, heads: int = 4, hidden: int = HIDDEN,
    mlp_ratio: int = 2, classes: int = CLASSES, image: int = IMAGE, patch: int = 8, seed: int = 0, **config: Any,
) -> nn.Module:  # fmt: skip
    """Return a ``transformers.Dinov2ForImageClassification`` (``Dinov2WithRegisters…`` when there are registers).

    Args:
        swiglu: gated feed-forward networks.
        registers: number of register tokens.
        blocks: transformer blocks.
        heads: attention heads.
        hidden: embedding width.
        mlp_ratio: width of the feed-forward networks over the embedding width.
        classes: width of the logits.
        image: input height and width in pixels.
        patch: patch height and width in pixels.
        seed: of the weights.
        **config: anything else that the config takes.
    """
    options = _options(blocks=blocks, heads=heads, hidden=hidden, classes=classes, image=image, patch=patch) | config
    options |= {"mlp_ratio": mlp_ratio, "use_swiglu_ffn": swiglu}
    if registers:
        options["num_register_tokens"] = registers
    family = "Dinov2WithRegisters" if registers else "Dinov2"
    return _hugging_face(f"{family}ForImageClassification", f"{family}Config", seed, options)


def tiny_legacy_vit(
    *, blocks: int = 2, heads: int = 4, hidden: int = HIDDEN, mlp: int = 64, classes: int = CLASSES,
    image: int = IMAGE, patch: int = 8, seed: int = 0, **config: Any,
) -> nn.Module:  # fmt: skip
    """Return a stand-in for the ViT of transformers 4 (``encoder.layer[i].attention.attention.query``)."""
    from pah_opt.testing.legacy import ViTForImageClassification, legacy_config

    options = (
        _options(blocks=blocks, heads=heads, hidden=hidden, classes=classes, image=image, patch=patch)
        | {"intermediate_size": mlp}
        | config
    )
    with _seeded(seed):
        return _awake(ViTForImageClassification(legacy_config(**options)))


def tiny_timm_vit(
    *, blocks: int = 2, heads: int = 4, hidden: int = HIDDEN, mlp_ratio: float = 2.0, classes: int = CLASSES,
    image: int = IMAGE, patch: int = 8, seed: int = 0, **options: Any,
) -> nn.Module:  # fmt: skip
    """Return a stand-in for timm's ``VisionTransformer``; ``options`` are timm's (``qk_norm``, ``reg_tokens``, …)."""
    from pah_opt.testing.timm_vit import VisionTransformer

    with _seeded(seed):
        return _awake(VisionTransformer(
            img_size=image, patch_size=patch, num_classes=classes, embed_dim=hidden, depth=blocks, num_heads=heads,
            mlp_ratio=mlp_ratio, **options,
        ))  # fmt: skip


def tiny_torchvision_vit(
    *, blocks: int = 2, heads: int = 4, hidden: int = HIDDEN, mlp: int = 64, classes: int = CLASSES,
    image: int = IMAGE, patch: int = 8, seed: int = 0, **options: Any,
) -> nn.Module:  # fmt: skip
    """Return a stand-in for torchvision's ``VisionTransformer`` (``nn.MultiheadAttention``)."""
    from pah_opt.testing.torchvision_vit import VisionTransformer

    with _seeded(seed):
        return _awake(VisionTransformer(
            image_size=image, patch_size=patch, num_layers=blocks, num_heads=heads, hidden_dim=hidden, mlp_dim=mlp,
            num_classes=classes, **options,
        ))  # fmt: skip


TINY_MODELS: dict[str, Callable[..., nn.Module]] = {
    "hf-vit": tiny_vit,
    "hf-deit": tiny_deit,
    "hf-deit-distilled": lambda **options: tiny_deit(distilled=True, **options),
    "hf-dinov2": tiny_dinov2,
    "hf-dinov2-swiglu": lambda **options: tiny_dinov2(swiglu=True, **options),
    "hf-dinov2-registers": lambda **options: tiny_dinov2(registers=2, **options),
    "hf-vit-legacy": tiny_legacy_vit,
    "timm-vit": tiny_timm_vit,
    "torchvision-vit": tiny_torchvision_vit,
}
"""One maker per kind of model, for tests that must hold for all of them."""


def tiny_images(count: int = 2, *, image: int = IMAGE, channels: int = 3, seed: int = 0) -> torch.Tensor:
    """Return random normalised pixels, ``(count, channels, image, image)`` float32."""
    return torch.randn(count, channels, image, image, generator=torch.Generator().manual_seed(seed))
