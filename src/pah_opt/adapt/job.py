"""What decides the result of a training, together."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pah_opt.adapt.snapshots import digest_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from pah_opt.adapt.settings import TrainSettings
    from pah_opt.layout import ModelAdapter
    from pah_opt.splits import Split


@dataclass(frozen=True)
class Job:
    """What decides the result of a training.

    Args:
        model: trained in place.
        adapter: of the model.
        train: training images.
        validation: images to judge each epoch by.
        settings: how to train.
        seed: of everything random.
    """

    model: nn.Module
    adapter: ModelAdapter
    train: Split
    validation: Split | None
    settings: TrainSettings
    seed: int

    def identity(self, values: Mapping[str, Tensor]) -> str:
        """Hash settings, seed, images, and the ``values`` that training starts from."""
        validation = "" if self.validation is None else self.validation.fingerprint
        parts = (self.settings.model_dump_json(), str(self.seed), self.train.fingerprint, validation, digest_of(values))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def head_names(self) -> list[str]:
        """Return the names of the classifier's parameters; none when they follow the same rate as the others."""
        if self.settings.head_lr is None:
            return []
        heads = tuple(f"{path}." for path in self.adapter.layout(self.model).classifiers)
        return [name for name, _ in self.model.named_parameters() if name.startswith(heads)]

    def block_paths(self) -> list[str]:
        """Return the paths of the model's blocks, first to last."""
        return [block.path for block in self.adapter.layout(self.model).blocks]
