"""The data of an Artifact: a model, and exactly how it was made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike
    from pathlib import Path

    from torch import Tensor, nn

    from pah_opt.recipe import Recipe

WeightsOrigin = Literal["pretrained", "fine-tuned", "random", "unknown"]
"""Where the weights came from before the recipe ran; accuracy of random weights means nothing."""


class Examples(NamedTuple):
    """A few inputs with the logits that the model gave for them when it was saved.

    Args:
        pixel_values: ``(batch, channels, height, width)``.
        logits: ``(batch, num_classes)``.
    """

    pixel_values: Tensor
    logits: Tensor


@dataclass(frozen=True)
class StepRecord:
    """One step of the recipe that was run: what was asked, and what came of it. All of it is JSON data.

    Args:
        use: the Optimizer.
        config: its validated parameters, defaults filled in.
        achieved: what the step recorded about itself.
        before: figures of the model before the step (``params``, ``params_nonzero``, ``macs``, ``weights_bytes``, …).
        after: the same figures after it.
        seconds: how long it took, in seconds.
        state: what the Optimizer's ``restore`` and ``finish`` need to rebuild the structure in a fresh process.
    """

    use: str
    config: Mapping[str, Any]
    achieved: Mapping[str, Any] = field(default_factory=dict)
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    state: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Artifact:
    """An optimized model and how it was made.

    Args:
        model: the model, in ``eval`` mode; an ordinary ``nn.Module``.
        recipe: what was asked.
        steps: what each step did, in order.
        adapter: name of the ModelAdapter that knows the model.
        weights_origin: where the weights came from before the recipe ran.
        source: the hub name or path of the dense model, if there is one.
        processor: configuration of the image processor that belongs to the model, as JSON data.
        class_names: names of the classes, in the order of the logits; empty when unknown.
        tags: the model's state tags after the last step.
        environment: versions and platform that made it; filled on saving when empty.
        report: a report as JSON data.
        examples: stored inputs with their logits; computed on saving when None.
    """

    model: nn.Module
    recipe: Recipe
    steps: tuple[StepRecord, ...]
    adapter: str
    weights_origin: WeightsOrigin = "unknown"
    source: str | None = None
    processor: Mapping[str, Any] | None = None
    class_names: tuple[str, ...] = ()
    tags: frozenset[str] = frozenset()
    environment: Mapping[str, Any] = field(default_factory=dict)
    report: Mapping[str, Any] | None = None
    examples: Examples | None = None

    @property
    def seed(self) -> int:
        """The seed of every random choice that was made."""
        return self.recipe.seed

    def save(self, folder: str | PathLike[str], *, overwrite: bool = False, compress: bool = False) -> Path:
        """Write the artifact to ``folder`` as safetensors and JSON; a crash leaves the old folder or the new one whole.

        Args:
            folder: where to; made, parents too.
            overwrite: replace an artifact that is there.
            compress: compress the weights losslessly with zstd (needs the extra ``zstd``).

        Returns:
            The folder.

        Raises:
            ArtifactError: it could not be written, or something is there already; nothing was lost.
            MissingBackendError: ``compress`` without zstandard.
        """
        from pah_opt.artifact.saving import save

        return save(self, folder, overwrite=overwrite, compress=compress)
