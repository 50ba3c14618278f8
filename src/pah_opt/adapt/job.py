"""What decides the result of a training, together."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pah_opt.adapt.snapshots import digest_of, state_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

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
        teacher: to learn from, where the settings distil.
        origin: what the weights come from, hashed, where they cannot be computed again to the last bit; None for the
            weights themselves.
    """

    model: nn.Module
    adapter: ModelAdapter
    train: Split
    validation: Split | None
    settings: TrainSettings
    seed: int
    teacher: nn.Module | None = None
    origin: str | None = None

    @property
    def distils(self) -> bool:
        """Whether the settings make use of a teacher."""
        return bool(self.settings.distill or self.settings.distill_features)

    def identity(self, trained: Iterable[str], processes: int) -> str:
        """Hash everything, before the first update.

        Args:
            trained: names of the parameters that are trained.
            processes: how many share the work, which decides how many updates an epoch has.
        """
        validation = "" if self.validation is None else self.validation.fingerprint
        origin = self.origin or digest_of(state_of(self.model))
        teacher = digest_of(state_of(self.teacher)) if self.teacher is not None and self.distils else ""
        images = (self.train.fingerprint, validation)
        parts = (self.settings.model_dump_json(), self.seed, *images, origin, teacher, processes, *sorted(trained))
        return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()

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
