"""What the contract's tests share: the strategy, what it made, and how a failure is said."""

from __future__ import annotations

import unittest
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import torch
from torch import nn

from pah_opt.environment import Environment
from pah_opt.errors import PahOptError
from pah_opt.recipe.mistakes import read_strictly
from pah_opt.registry.needs import Supply
from pah_opt.testing.models import TINY_MODELS, tiny_images
from pah_opt.testing.trial import Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pah_opt.artifact import Artifact
    from pah_opt.optimizer import Needs
    from pah_opt.recipe import Step


class Harness:
    """Runs one strategy for :class:`~pah_opt.testing.OptimizerContract`, which describes the class attributes."""

    optimizer: ClassVar[str]
    parameters: ClassVar[Mapping[str, Any]] = {}
    compatible_layouts: ClassVar[tuple[str, ...]] = tuple(TINY_MODELS)
    mends: ClassVar[tuple[Step, ...]] = ()
    partners: ClassVar[Mapping[str, Mapping[str, Any]] | None] = None
    plugin: ClassVar[object | None] = None
    _made: ClassVar[dict[str, Artifact]]
    _trials: ClassVar[dict[str, Trial]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Give each subclass its own store of what was made."""
        super().__init_subclass__(**kwargs)
        cls._made, cls._trials = {}, {}

    # What subclasses may replace.

    def make_model(self, layout: str) -> nn.Module:
        """Return a fresh model of a kind, in ``eval`` mode; replace it where tiny models do not suit the strategy."""
        return TINY_MODELS[layout]()

    @property
    def trial(self) -> Trial:
        """The strategy, ready to run."""
        kept = self._trials
        if self.optimizer not in kept:
            kept[self.optimizer] = Trial(self.optimizer, self.parameters, self.plugin)
        return kept[self.optimizer]

    def model(self) -> nn.Module:
        """Return a fresh model of the first compatible layout."""
        return self.make_model(self.compatible_layouts[0])

    def made(self, layout: str | None = None) -> Artifact:
        """Return the artifact of one run on a layout; made once, to be looked at only."""
        self.available()
        layout = layout or self.compatible_layouts[0]
        if layout not in self._made:
            try:
                self._made[layout] = self.trial.apply(self.make_model(layout))
            except PahOptError as error:
                self.fail(f"it does not run on {layout}: {error}")
        return self._made[layout]

    def require(self, holds: bool, otherwise: str) -> None:
        """Fail with a message that says what to do."""
        if not holds:
            self.fail(otherwise)

    def fail(self, message: str) -> NoReturn:
        """Fail."""
        raise AssertionError(f"{self.optimizer}: {message}")

    def config(self) -> Any:
        """Return the typed config of ``parameters``."""
        config = read_strictly(self.trial.optimizer.config_type, dict(self.parameters))
        self.require(not isinstance(config, list), f"`parameters` of {type(self).__name__} are wrong: {config}")
        return config

    def available(self) -> None:
        """Skip what this machine cannot run, with the reason."""
        made, environment = self.trial.optimizer, Environment()
        needs: Needs = made.needs(self.config())
        reasons = [str(o) for o in made.available(environment)] + [
            f"{a}; {b}" for a, b in Supply(environment).unmet_hardware(needs)
        ]
        if reasons:
            raise unittest.SkipTest("; ".join(reasons))  # pytest reports it as a skip

    def refusal(self, run: Callable[[], object], kind: type[PahOptError], what: str = "") -> str:
        """Return the message with which ``run`` is refused; fail when it is not, or with another kind of error."""
        try:
            run()
        except kind as error:
            return str(error)
        except Exception as error:  # noqa: BLE001  # whatever it raises instead
            instead = f"it raises {type(error).__name__} ({error}), not"
        else:
            instead = "it takes what it should refuse with"
        return self.fail(f"{instead} {kind.__name__}{what}")

    def same_logits(self, one: nn.Module, other: nn.Module, otherwise: str) -> None:
        """Fail unless two models give equal logits, bit for bit."""
        images = tiny_images(3, image=self.image_size(one))
        self.require(torch.equal(self.trial.logits(one, images), self.trial.logits(other, images)), otherwise)

    def image_size(self, model: nn.Module) -> int:
        """Return the height and width that a model takes, in pixels."""
        return self.trial.adapter(model).layout(model).image_size[0]
