"""Preprocessing belongs to the model: everything here asks its transformers image processor."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pah_opt.errors import DataError
from pah_opt.models.quiet import quiet_transformers

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def load_processor(source: str | Path) -> Any:
    """Load the image processor of a model, by hub id or local folder, in its PIL implementation.

    Raises:
        DataError: there is none, or the hub cannot be reached.
    """
    try:
        with quiet_transformers():
            from transformers import AutoImageProcessor

            # The PIL implementation needs no torchvision, and gives the same pixels on every machine.
            return AutoImageProcessor.from_pretrained(str(source), backend="pil")
    except (OSError, ValueError) as error:
        raise DataError(
            f"no image processor at {str(source)!r}: {error}; give the folder or hub id of a model that has a "
            "preprocessor_config.json"
        ) from error


def as_processor(processor: Any) -> Any:
    """Return an image processor, loading it when given as a hub id or a folder.

    Raises:
        DataError: there is none, or it is not an image processor.
    """
    if processor is None:
        raise DataError(
            "the model comes without an image processor, so its preprocessing is not known; save the one it was "
            "trained with beside it (preprocessor_config.json)"
        )
    if isinstance(processor, str) or hasattr(processor, "__fspath__"):
        return load_processor(processor)
    if not callable(processor) or not hasattr(processor, "to_dict"):
        raise DataError(
            f"a {type(processor).__name__} is not an image processor; give the model's own "
            "(transformers.AutoImageProcessor.from_pretrained(MODEL, backend='pil')), its hub id, or its folder"
        )
    return processor


def processor_channels(processor: Any) -> int:
    """Return the number of channels a processor makes: 1 where it normalises one channel, else 3."""
    mean = getattr(processor, "image_mean", None)
    one = isinstance(mean, (list, tuple)) and len(mean) == 1  # a number by itself is for every channel
    return 1 if getattr(processor, "do_normalize", True) and one else 3


def processor_size(processor: Any) -> tuple[int, int] | None:
    """Return the height and width a processor makes, or None when these depend on the image."""
    size = processor.crop_size if getattr(processor, "do_center_crop", None) else getattr(processor, "size", None)
    if not size or "height" not in size or "width" not in size:
        return None
    return int(size["height"]), int(size["width"])


def resized_processor(processor: Any, height: int, width: int) -> Any:
    """Return a processor like this one that makes ``height`` by ``width`` pixels.

    A centre crop keeps its share of the image: 256 → crop 224 becomes 128 → crop 112.

    Raises:
        DataError: the processor's output size depends on the image, so that there is nothing to scale.
    """
    made = processor_size(processor)
    if made == (height, width):
        return processor
    if made is None:
        raise DataError(
            f"the output size of {type(processor).__name__} depends on the image (size {_plain(processor.size)}); "
            "set do_center_crop and crop_size, or size with height and width"
        )
    settings = processor.to_dict()
    settings["size"] = _scaled(settings["size"], (height / made[0], width / made[1]))
    if settings.get("do_center_crop"):
        settings["crop_size"] = {"height": height, "width": width}
    return type(processor).from_dict(settings)


def _scaled(size: Mapping[str, int], factors: tuple[float, float]) -> dict[str, int]:
    if "shortest_edge" in size:
        return {**size, "shortest_edge": round(size["shortest_edge"] * max(factors))}
    return {"height": round(size["height"] * factors[0]), "width": round(size["width"] * factors[1])}


def processor_key(processor: Any) -> str:
    """Return a processor's settings as canonical text, for fingerprints."""
    return json.dumps(processor.to_dict(), sort_keys=True, default=str)


def _plain(size: Any) -> dict[str, int]:
    return {name: value for name, value in dict(size).items() if value is not None}
