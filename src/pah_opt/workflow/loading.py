"""Load models by name, with the images that belong to them: artifact folders, transformers folders, hub ids."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pah_opt.artifact import Artifact, load
from pah_opt.artifact.files import DESCRIPTION, PROCESSOR
from pah_opt.data import DIGITS, check_fit, digits_processor, is_digits, load_data, load_processor
from pah_opt.errors import UnsupportedModelError
from pah_opt.models import find_adapter, load_model
from pah_opt.registry import default_registry
from pah_opt.workflow.ranks import own_device

if TYPE_CHECKING:
    from torch import nn
    from typing_extensions import Unpack

    from pah_opt.artifact import WeightsOrigin
    from pah_opt.data import ImageChoice
    from pah_opt.splits import Data

Weights = Literal["pretrained", "random"]


def _is_artifact(source: str) -> bool:
    return (Path(source) / DESCRIPTION).is_file()


def refuse_artifact(source: str) -> None:
    """Refuse the folder of an artifact where a dense model is needed.

    Raises:
        UnsupportedModelError: says what to give, and which commands take the artifact.
    """
    if _is_artifact(source):
        raise UnsupportedModelError(
            f"{source} holds an artifact, and recipes and adaptations start from a dense model: give the folder or hub "
            "id of the model that it was made from; pah-opt measure, compare and export take an artifact"
        )


@dataclass(frozen=True)
class Loaded:
    """A model that was loaded by name.

    Args:
        name: hub id or path it came from.
        model: in ``eval`` mode.
        processor: its image processor; None when there is none.
        weights_origin: where its weights come from.
        notes: what a reader of a report must know, such as a classifier that was newly initialised.
        artifact: what it came in, when that was an artifact's folder.
    """

    name: str
    model: nn.Module
    processor: Any
    weights_origin: WeightsOrigin
    notes: tuple[str, ...] = ()
    artifact: Artifact | None = None

    @classmethod
    def dense(cls, source: str, *, weights: Weights = "pretrained", device: str = "cpu", seed: int = 0) -> Loaded:
        """Load a folder in transformers' form, a hub id, or ``digits``, the small ViT that comes with the package.

        Raises:
            UnsupportedModelError: it is no model that is known, or an artifact.
        """
        refuse_artifact(source)
        if is_digits(source):
            return cls._digits(weights, device, seed)
        found = load_model(source, weights=weights, device=own_device(device), seed=seed)
        return cls(found.source, found.model.eval(), found.processor, found.weights_origin, tuple(found.notes))

    @classmethod
    def _digits(cls, weights: Weights, device: str, seed: int) -> Loaded:
        from pah_opt.adapt.digits import IMAGE_SIZE, digits_vit, trained_digits_vit

        model = digits_vit(seed) if weights == "random" else trained_digits_vit()
        return cls(DIGITS, model.to(own_device(device)), digits_processor(IMAGE_SIZE), weights)

    @classmethod
    def any(cls, source: str, *, weights: Weights = "pretrained", device: str = "cpu", seed: int = 0) -> Loaded:
        """Load an artifact's folder, or what :meth:`dense` loads.

        Raises:
            ArtifactError: the artifact is damaged.
            UnsupportedModelError: it is no model that is known.
        """
        if not _is_artifact(source):
            return cls.dense(source, weights=weights, device=device, seed=seed)
        artifact = load(source, device=own_device(device))
        processor = load_processor(source) if (Path(source) / PROCESSOR).is_file() else None
        return cls(source, artifact.model, processor, artifact.weights_origin, artifact=artifact)

    def images(self, data: str, *, seed: int = 0, **choice: Unpack[ImageChoice]) -> Data:
        """Load images by hub id or local path, or ``digits``, preprocessed by the model's own processor.

        Args:
            data: hub id or local folder of labelled images.
            seed: chooses among the images.
            **choice: which of them, as :func:`pah_opt.data.load_data` takes it: ``test_limit=500``.

        Raises:
            DataError: they cannot be read or do not fit the model's input or head, or there is no processor.
        """
        images = load_data(data, self.processor, seed=seed, **choice)
        layout = find_adapter(self.model, default_registry().adapters).layout(self.model)
        check_fit(images.test, layout, model=self.model)
        return images
