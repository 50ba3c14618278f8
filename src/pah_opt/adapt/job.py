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

    def rates(self) -> dict[str, float]:
        """Return the highest learning rate of each parameter that does not follow the ordinary one, by name.

        References:
            H. Bao et al.: BEiT, https://arxiv.org/abs/2106.08254 (a rate that decays layer by layer).
        """
        settings = self.settings
        rates = self._decayed_rates() if settings.layer_decay < 1.0 else {}
        if settings.head_lr is not None:
            heads = tuple(f"{path}." for path in self.adapter.layout(self.model).classifiers)
            names = (name for name, _ in self.model.named_parameters() if name.startswith(heads))
            rates |= dict.fromkeys(names, settings.head_lr)
        return rates

    def _decayed_rates(self) -> dict[str, float]:
        blocks = [f"{path}." for path in self.block_paths()]
        rates, passed = {}, 0
        # Parameters are registered in the order of the forward pass: what comes before the blocks embeds.
        for name, _ in self.model.named_parameters():
            passed = max([passed, *(at for at, path in enumerate(blocks, 1) if name.startswith(path))])
            inside = name.startswith(tuple(blocks))
            depth = passed if inside or passed < len(blocks) else len(blocks) + 1
            rates[name] = self.settings.lr * self.settings.layer_decay ** (len(blocks) + 1 - depth)
        return rates

    def block_paths(self) -> list[str]:
        """Return the paths of the model's blocks, first to last."""
        return [block.path for block in self.adapter.layout(self.model).blocks]
