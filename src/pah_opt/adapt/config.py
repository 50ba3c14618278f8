"""How to adapt a model to new classes: plain data, without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import Field, ValidationError

from pah_opt.adapt.settings import TrainSettings
from pah_opt.errors import Problem, RecipeError, nearest_name

if TYPE_CHECKING:
    from collections.abc import Mapping

Mode = Literal["full", "last-layers", "head", "lora"]
MODES: tuple[Mode, ...] = get_args(Mode)

DEFAULTS: Mapping[Mode, Mapping[str, Any]] = {
    "full": {"epochs": 3, "lr": 5e-5},
    "last-layers": {"epochs": 5, "lr": 1e-4},
    "head": {},
    "lora": {"epochs": 3, "lr": 5e-4, "weight_decay": 0.0},
}
"""What differs from mode to mode; the head is fitted first, so that one learning rate serves body and head."""


class AdaptConfig(TrainSettings):
    """Everything that decides the result of an adaptation, besides model, images and seed."""

    mode: Mode = "full"
    """``full`` trains every weight; ``last-layers`` the last blocks, the final norm and the head; ``head`` fits a
    linear classifier on frozen features in seconds; ``lora`` trains low-rank additions to the attention and merges
    them."""
    last_blocks: int = Field(default=3, ge=1)
    """How many blocks ``last-layers`` trains."""
    head_first: bool = True
    """Fit the head on frozen features before other weights are trained, so that gradients of a random head do not spoil
    them (A. Kumar et al., https://arxiv.org/abs/2202.10054)."""
    validation: float = Field(default=0.1, ge=0.0, le=0.5)
    """Share of the training images to judge epochs by; the best epoch's weights are kept."""
    views: int | None = Field(default=None, ge=1, le=100)
    """Augmented views of each image that ``last-layers`` caches; by default one for each of up to four epochs where
    images are flipped or cropped, else one."""
    lora_rank: int = Field(default=16, ge=1)
    """Rank of the additions of ``lora``."""
    lora_alpha: float = Field(default=16.0, gt=0.0)
    """The additions of ``lora`` are scaled by this over their rank."""

    @classmethod
    def of(cls, mode: str, options: Mapping[str, Any]) -> AdaptConfig:
        """Return the defaults of a mode with some options changed.

        Raises:
            RecipeError: the mode or an option is unknown or out of range.
        """
        if mode not in MODES:
            raise _refusal([Problem(f"mode is {mode!r}", allowed=", ".join(MODES), nearest=nearest_name(mode, MODES))])
        try:
            return cls(**{**DEFAULTS[mode], **options, "mode": mode})
        except ValidationError as error:
            raise _refusal([_problem(cls, entry) for entry in error.errors()]) from error

    @property
    def cached_views(self) -> int:
        """How many views of each image are cached."""
        changes = self.augmentation.flip or self.augmentation.crop > 0
        return self.views or (min(self.epochs, 4) if changes else 1)


def _problem(config: type[AdaptConfig], entry: Any) -> Problem:
    name = ".".join(map(str, entry["loc"]))
    if entry["type"] == "extra_forbidden":
        fields = config.model_fields
        return Problem(f"there is no option {name!r}", allowed=", ".join(fields), nearest=nearest_name(name, fields))
    return Problem(f"{name} is {entry['input']!r}: {entry['msg']}")


def _refusal(problems: list[Problem]) -> RecipeError:
    return RecipeError(problems, "the model cannot be adapted this way")
