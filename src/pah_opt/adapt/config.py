"""How to adapt a model to new classes: plain data, without torch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import Field, ValidationError

from pah_opt.adapt.settings import TrainSettings
from pah_opt.errors import Problem, RecipeError, nearest_name
from pah_opt.recipe.mistakes import mistakes
from pah_opt.recipe.schema import as_problems

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

HEAD_FIELDS = frozenset({"mode", "validation", "mixed_precision"})
"""All that ``head`` looks at: a linear classifier is fitted to its optimum on images as they are."""
TEACHER_FIELDS = frozenset({"distill", "temperature", "distill_features"})
"""Fields of the training loop that need a teacher, which an adaptation has not."""
OWN_FIELDS: Mapping[str, Mode] = {
    "last_blocks": "last-layers",
    "views": "last-layers",
    "lora_rank": "lora",
    "lora_alpha": "lora",
}
"""Fields that one mode alone looks at."""


class AdaptConfig(TrainSettings):
    """Everything that decides the result of an adaptation, besides model, images and seed.

    What is set and has no effect is refused: ``head`` takes ``validation`` and ``mixed_precision`` alone,
    ``last_blocks`` and ``views`` are for ``last-layers`` and ``lora_rank`` and ``lora_alpha`` for ``lora`` only,
    ``early_stop`` needs validation images, and no mode takes ``distill``, ``temperature`` or ``distill_features``,
    because an adaptation has no teacher.
    """

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
            RecipeError: the mode or an option is unknown, out of range, or without effect in this mode.
        """
        if mode not in MODES:
            raise refusal([Problem(f"mode is {mode!r}", allowed=", ".join(MODES), nearest=nearest_name(mode, MODES))])
        given = {**DEFAULTS[mode], **options, "mode": mode}
        try:
            config = cls(**given)
        except ValidationError as error:
            raise refusal(as_problems(mistakes(error, cls, given))) from error
        idle = [name for name in cls.model_fields if name in config.model_fields_set - config.used_fields]
        if idle:
            raise refusal([_without_effect(name, config) for name in idle])
        return config

    @property
    def used_fields(self) -> frozenset[str]:
        """Names of the fields that the mode looks at."""
        if self.mode == "head":
            return HEAD_FIELDS
        idle = {name for name, mode in OWN_FIELDS.items() if mode != self.mode}
        if not self.validation:
            idle.add("early_stop")
        return frozenset(type(self).model_fields) - TEACHER_FIELDS - idle

    def cached_views(self, images: int) -> int:
        """Return how many views of each image are cached: one for each epoch of augmented images, up to four.

        Args:
            images: that are trained on.
        """
        if self.views or not (self.augmentation.flip or self.augmentation.crop > 0):
            return self.views or 1
        epochs = self.epochs if self.steps is None else math.ceil(self.steps * self.batch_size / images)
        return min(epochs, 4)


def _without_effect(name: str, config: AdaptConfig) -> Problem:
    given = f"{name} is {getattr(config, name)!r}"
    if name in TEACHER_FIELDS:
        return Problem(
            f"{given} and an adaptation has no teacher; leave it out, or learn from one afterwards with "
            "pah_opt.adapt.fit(model, images, settings, teacher=…)"
        )
    if config.mode == "head":
        return Problem(f"{given} and mode 'head' does not use it; leave it out", allowed=", ".join(sorted(HEAD_FIELDS)))
    if name in OWN_FIELDS:
        theirs = OWN_FIELDS[name]
        return Problem(f"{given} and mode {config.mode!r} does not use it; leave it out, or choose mode {theirs!r}")
    return Problem(
        f"{given} and validation is {config.validation:g}: there is nothing to judge epochs by; leave it out, or give "
        "a share of the training images, such as validation=0.1"
    )


def refusal(problems: list[Problem]) -> RecipeError:
    """Return the error that says all that is wrong with how a model is to be adapted."""
    return RecipeError(problems, "the model cannot be adapted this way")
