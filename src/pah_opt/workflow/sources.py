"""What recipes are run on: a model with its processor, and the images that belong to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pah_opt.data import is_digits
from pah_opt.models import load_model
from pah_opt.workflow.loading import Loaded, refuse_artifact

if TYPE_CHECKING:
    from torch import nn
    from typing_extensions import Unpack

    from pah_opt.artifact import WeightsOrigin
    from pah_opt.data import ImageChoice
    from pah_opt.splits import Data
    from pah_opt.workflow.loading import Weights


@dataclass(frozen=True)
class Source:
    """A dense model and its images.

    Args:
        model: the dense model, in ``eval`` mode.
        name: hub id or path it came from.
        weights_origin: where its weights came from; accuracy of random ones is not measured.
        data: images, preprocessed by the model's own processor; None without data.
        notes: what the reader of a report must know, such as a classifier that was newly initialised.
    """

    model: nn.Module
    name: str
    weights_origin: WeightsOrigin
    data: Data | None
    notes: tuple[str, ...] = ()

    @classmethod
    def load(
        cls,
        model: str,
        data: str | None,
        *,
        weights: Weights = "pretrained",
        device: str = "cpu",
        seed: int = 0,
        **choice: Unpack[ImageChoice],
    ) -> Source:
        """Load both by hub id or local path; ``digits`` names the model, and the images, that need no download.

        Args:
            model: hub id or local folder of an image classifier in transformers' form, or ``digits``.
            data: hub id or local folder of labelled images, or ``digits``; None for none.
            weights: ``random`` where the weights cannot be had: for sizes and speed; no accuracy is measured.
            device: where the model goes, such as ``cuda``.
            seed: chooses among the images, and seeds random weights.
            **choice: which images, as :func:`pah_opt.data.load_data` takes it: ``test_limit=500``.

        Raises:
            DataError: the images cannot be read or do not fit the model's input or head.
            UnsupportedModelError: the model cannot be loaded, or no ModelAdapter knows it.
        """
        loaded = Loaded.dense(model, weights=weights, device=device, seed=seed)
        images = None
        if data is not None and weights != "random":
            images = loaded.images(data, seed=seed, **choice)
        return cls(loaded.model, loaded.name, loaded.weights_origin, images, loaded.notes)


def empty_model(source: str) -> nn.Module:
    """Return the model of a hub id or folder without weights, on the ``meta`` device; only its config is read.

    Raises:
        UnsupportedModelError: the config cannot be read, or the folder is an artifact's.
    """
    refuse_artifact(source)
    if is_digits(source):
        from pah_opt.adapt.digits import digits_vit

        return digits_vit().to("meta")
    return load_model(source, weights="random", device="meta").model
