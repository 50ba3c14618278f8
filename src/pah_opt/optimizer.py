"""The Optimizer protocol: what a strategy declares about itself, and the one thing it does.

A strategy speaks only of itself, never of its rivals. What it needs of a model and what it leaves behind are *state
tags*; the pipeline walks them over a whole recipe before anything is touched, verifies after each step that the
promised :class:`Effect` is there, and measures. Strategies never time, and never measure accuracy, except where a limit
of their own asks for it on calibration images (``guarded`` of ``torchao``).

State tags that the built-in strategies use (a plugin may add its own):

=================== ====================================================================================
``weights:float``   linear weights are plain floating-point tensors (a fresh model has this)
``graph:eager``     modules can still be inspected and replaced (a fresh model has this)
``shapes:free``     widths may still change (a fresh model has this)
``weights:sparse``  weights hold zeros on purpose; later training must keep them, and steps that cut or refit layers
                    exclude it, because the zeros would be lost
``linear:int8``     linear weights are stored as int8 (likewise ``linear:int4``, ``linear:fp8``, …)
``linear:2:4``      linear weights are stored in the 2:4 format of sparse tensor cores
``dtype:bf16``      floating-point tensors are bfloat16 (likewise ``dtype:fp16``)
``tokens:merged``   blocks hand on fewer tokens than they take (the plugin ``pah-opt-tome``)
``compiled``        the forward pass is compiled
=================== ====================================================================================
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel, ConfigDict

from pah_opt.progress import Progress

if TYPE_CHECKING:
    from torch import nn

    from pah_opt.environment import Backend, Environment, Obstacle
    from pah_opt.layout import ModelAdapter
    from pah_opt.splits import Split

API_VERSION = 1
"""Version of the plugin contract (this module, :mod:`pah_opt.hookspecs`, :mod:`pah_opt.layout`)."""

FRESH_TAGS = frozenset({"weights:float", "graph:eager", "shapes:free"})
"""The tags of a model that nothing was done to."""

Goal = Literal["memory", "latency", "both", "accuracy"]


class OptimizerConfig(BaseModel):
    """An Optimizer's parameters: frozen, typed, unknown keys refused.

    Give every field a ``description``; it is shown by ``pah-opt list NAME`` and in the generated reference.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @classmethod
    def without_effect(cls, parameters: Mapping[str, Any]) -> frozenset[str]:  # noqa: ARG003  # overrides look at them
        """Return the parameters that would do nothing beside these, such as those of another scheme; by default none.

        A validator may refuse them where they are written. Defaults that several steps share leave them out.

        Args:
            parameters: JSON data as a recipe gives them; not validated yet.
        """
        return frozenset()


ConfigT = TypeVar("ConfigT", bound=OptimizerConfig)


@dataclass(frozen=True)
class Tags:
    """How a step changes the state tags of a model.

    Args:
        requires: tags the model must have before.
        provides: tags it has after.
        removes: tags it no longer has after.
        excludes: tags the model must not have before, because the step would undo what they stand for.
    """

    requires: frozenset[str] = FRESH_TAGS
    provides: frozenset[str] = frozenset()
    removes: frozenset[str] = frozenset()
    excludes: frozenset[str] = frozenset()

    def admits(self, now: frozenset[str]) -> bool:
        """Tell whether the step can start on a model with the tags ``now``."""
        return self.requires <= now and not self.excludes & now

    def after(self, now: frozenset[str]) -> frozenset[str]:
        """Return the tags of a model that had ``now`` before the step."""
        return (now - self.removes) | self.provides


@dataclass(frozen=True)
class Needs:
    """What a step needs besides the model.

    Args:
        calibration: images (labels unused) to observe activations on.
        labels: the calibration images' labels too (for gradients).
        optional_calibration: calibration images when there are any; the step does without them otherwise.
        training: training images with labels.
        cuda: a CUDA device holding the model.
        capability: minimum CUDA compute capability, such as ``(8, 9)``; None for any.
        instead: what to use where this cannot run; shown as the remedy.
    """

    calibration: bool = False
    labels: bool = False
    optional_calibration: bool = False
    training: bool = False
    cuda: bool = False
    capability: tuple[int, int] | None = None
    instead: str | None = None

    @property
    def observes(self) -> bool:
        """Whether calibration images are looked at where there are any."""
        return self.calibration or self.labels or self.optional_calibration


@dataclass(frozen=True)
class Effect:
    """What a step promises; the pipeline verifies it afterwards, and plans with it beforehand.

    Args:
        fewer_parameters: the number of parameters falls.
        fewer_bytes: the bytes of the tensors in memory fall.
        zeros_at_least: share of zeros among the weights the step works on, 0 to 1; counted in the weights, and compared
            with what the step records under ``"sparsity"``, where it does (see :meth:`Context.record`).
        linear_dtype: storage type that linear weights now have, such as ``"int8"``.
        same_shapes: inputs, logits and all parameter shapes are unchanged.
        same_logits: logits are unchanged up to rounding.
        new_type: other code computes the output (runtimes, compile): the model or some modules have another class, a
            ``forward`` or a compiled call of their own, or another implementation of attention.
    """

    fewer_parameters: bool = False
    fewer_bytes: bool = False
    zeros_at_least: float | None = None
    linear_dtype: str | None = None
    same_shapes: bool = True
    same_logits: bool = False
    new_type: bool = False


@dataclass(frozen=True)
class Context:
    """What the pipeline hands to a running step.

    Args:
        adapter: knows where the parts of this model are.
        environment: the machine.
        seed: seeds everything random in this step; torch's global generator is already seeded with it.
        align: pruned widths should be multiples of this (the most that the steps after it ask for; at least 1).
        calibration: images to observe, never from the test set; None unless the config needs them.
        training: training images; None unless the config needs them.
        reference: the dense model the recipe started from, in ``eval`` mode (the teacher, for distillation).
        progress: shows progress of long loops.
        planning: True on a dry run: the model is on the ``meta`` device and holds no values.
        planned_calibration: on a dry run, how many images there will be to calibrate on; see ``calibration_count``.
        planned_training: the same of training images; see ``training_count``.
        achieved: what the step reports about itself; filled through :meth:`record`.
    """

    adapter: ModelAdapter
    environment: Environment
    seed: int = 0
    align: int = 1
    calibration: Split | None = None
    training: Split | None = None
    reference: nn.Module | None = None
    progress: Progress = field(default_factory=Progress)
    planning: bool = False
    planned_calibration: int = 0
    planned_training: int = 0
    achieved: dict[str, Any] = field(default_factory=dict)

    @property
    def calibration_count(self) -> int:
        """How many images there are to observe; on a dry run, will be (very many where that is not known yet)."""
        return self.planned_calibration if self.calibration is None else len(self.calibration)

    @property
    def training_count(self) -> int:
        """How many training images there are; on a dry run, will be (very many where that is not known yet)."""
        return self.planned_training if self.training is None else len(self.training)

    def record(self, name: str, value: Any) -> None:
        """Report an achieved figure (JSON data), such as ``record("sparsity", 0.5)``; tuples become lists.

        Raises:
            TypeError: ``value`` is not JSON data.
            ValueError: ``value`` holds NaN or infinity.
        """
        self.achieved[name] = json.loads(json.dumps(value, allow_nan=False))


@runtime_checkable
class Optimizer(Protocol[ConfigT]):
    """One way to make a model smaller or faster. Subclass it; write only what differs from the defaults.

    Class attributes:
        name: what recipes say after ``use:``; lower case with hyphens.
        config_type: the strategy's :class:`OptimizerConfig`.
        summary: one sentence.
        goal: what it is for: ``memory``, ``latency``, ``both``, or ``accuracy`` (recovery).
        references: papers or pages the method comes from.
        backends: the libraries it needs, with tested version ranges.
    """

    name: ClassVar[str]
    config_type: type[ConfigT]
    summary: ClassVar[str]
    goal: ClassVar[Goal]
    references: ClassVar[tuple[str, ...]] = ()
    backends: ClassVar[tuple[Backend, ...]] = ()

    @abstractmethod
    def apply(self, model: nn.Module, config: ConfigT, context: Context) -> nn.Module:
        """Change ``model`` (already a private copy, in ``eval`` mode) and return it, or return its replacement.

        Leave no hooks, masks or gradients behind. On a dry run (``context.planning``) the model is on the ``meta``
        device: change shapes and types the same way, choosing *which* weights go arbitrarily.
        """

    @abstractmethod
    def expects(self, config: ConfigT) -> Effect:
        """Return the effect this config promises; :class:`~pah_opt.errors.NoEffectError` if it is not there."""

    def tags(self, config: ConfigT) -> Tags:
        """Return how this config changes the model's state tags; by default it needs a fresh model's tags."""
        return Tags()

    def needs(self, config: ConfigT) -> Needs:
        """Return what this config needs besides the model; by default nothing."""
        return Needs()

    def alignment(self, config: ConfigT) -> int:
        """Return the multiple that widths should have when they reach this step; by default any."""
        return 1

    def available(self, environment: Environment) -> tuple[Obstacle, ...]:
        """Return what stands in the way on this machine, each with its remedy; by default checks ``backends``."""
        return environment.missing(self.backends)

    def check(self, model: nn.Module, config: ConfigT, context: Context) -> list[str]:
        """Return what is wrong with this config for this very model, before any step runs; by default nothing.

        ``model`` may be on the ``meta`` device and shaped by the steps before this one: look at names and shapes only.
        """
        return []

    def state(self, model: nn.Module, config: ConfigT) -> dict[str, Any]:
        """Return, as JSON data, what :meth:`restore` needs besides shapes and tensors; by default nothing."""
        return {}

    def restore(self, model: nn.Module, state: dict[str, Any]) -> nn.Module:
        """Give a rebuilt, still empty model the structure this step left, before tensors are loaded into it."""
        return model

    def finish(self, model: nn.Module, state: dict[str, Any]) -> nn.Module:
        """Do what must wait until the tensors of a restored model are loaded, such as compiling; by default nothing."""
        return model


AnyOptimizer = Optimizer[Any]
Factory = Callable[[], AnyOptimizer]
