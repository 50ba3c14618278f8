"""What a study starts from: the pretrained model and its images, loaded once and known by their content."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from pah_opt.data import DIGITS, ImageChoice, digits_processor, is_digits, load_data
from pah_opt.errors import DataError
from pah_opt.measure.provenance import config_sha256, weights_sha256
from pah_opt.models import find_adapter
from pah_opt.registry import default_registry
from pah_opt.workflow.loading import Loaded
from pah_opt.workflow.ranks import own_device

if TYPE_CHECKING:
    from torch import nn

    from pah_opt.layout import ModelAdapter
    from pah_opt.splits import Data
    from pah_opt.study.schema import Study


@dataclass(frozen=True)
class Origin:
    """The model before it is adapted, and the images.

    Args:
        model: in ``eval`` mode.
        processor: its image processor.
        data: training and test images.
        notes: what a reader must know, such as a classifier that was newly initialised.
    """

    model: nn.Module
    processor: Any
    data: Data
    notes: tuple[str, ...] = ()

    @classmethod
    def load(cls, study: Study, device: str) -> Origin:
        """Load what a study names.

        Raises:
            DataError: the images cannot be read, or there are none to train on.
            UnsupportedModelError: the model cannot be loaded.
        """
        if is_digits(study.model) or is_digits(study.data):
            return cls._embedded(study, device)
        loaded = Loaded.dense(study.model, device=device)
        data = load_data(study.data, loaded.processor, **_choice(study))
        if data.train is None:
            raise DataError(f"{study.data} has no training images, and a study adapts the model to them first")
        # A head that is newly initialised here is replaced by the adaptation; what else was noted stays.
        notes = tuple(note for note in loaded.notes if "classifier" not in note)
        return cls(loaded.model, loaded.processor, data, notes)

    @classmethod
    def _embedded(cls, study: Study, device: str) -> Origin:
        from pah_opt.adapt.digits import IMAGE_SIZE, digits_vit

        if study.model != study.data:
            raise DataError(
                f"model is {study.model!r} and data is {study.data!r}; {DIGITS!r} stands for both or none: the "
                "embedded model belongs to the embedded images"
            )
        place = own_device(device)  # refused before images are read
        processor = digits_processor(IMAGE_SIZE)
        data = load_data(DIGITS, processor, **_choice(study))
        return cls(digits_vit().to(place), processor, data)

    @cached_property
    def adapter(self) -> ModelAdapter:
        """Knows the model's family."""
        return find_adapter(self.model, default_registry().adapters)

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What the images and the model are, as JSON data."""
        train = self.data.train
        return {
            "weights": weights_sha256(self.model),
            "config": config_sha256(self.model),
            "test": self.data.test.fingerprint,
            "train": None if train is None else train.fingerprint,
        }


def _choice(study: Study) -> ImageChoice:
    return cast("ImageChoice", study.model_dump(include=set(ImageChoice.__annotations__)))
