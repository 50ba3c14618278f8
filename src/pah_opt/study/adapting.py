"""The cells of adaptations: each variant with each seed, resumed where it was interrupted, its model kept."""

from __future__ import annotations

import itertools
import shutil
from typing import TYPE_CHECKING, Any

from pah_opt.errors import ArtifactError
from pah_opt.models import load_model
from pah_opt.models.quiet import quiet_transformers
from pah_opt.storage.atomic import replace_folder
from pah_opt.study.results import AdaptationResult

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from pah_opt.adapt import Adaptation
    from pah_opt.progress import Progress
    from pah_opt.study.origin import Origin

MOST_POINTS = 200
"""Points of a loss curve that are kept."""
CURVES = "curves.png"
"""Picture that an adaptation is saved with, where matplotlib is installed."""


def adapt_once(
    origin: Origin,
    name: str,
    settings: dict[str, Any],
    seed: int,
    *,
    folder: Path,
    checkpoint: Path,
    progress: Progress,
) -> AdaptationResult:
    """Adapt the model of a study one way, and keep it.

    Args:
        origin: model and images.
        name: of the variant.
        settings: ``mode`` and its settings.
        seed: of everything random.
        folder: where the adapted model goes.
        checkpoint: where the state of the training is kept until then.
        progress: shows progress.
    """
    from pah_opt.adapt.adaptation import adapt
    from pah_opt.measure.provenance import weights_sha256

    options = dict(settings)
    mode = options.pop("mode", "full")
    adapted = adapt(
        origin.model, origin.data, mode, checkpoint=checkpoint, adapter=origin.adapter, progress=progress, seed=seed,
        **options,
    )  # fmt: skip
    _keep(adapted, origin, folder)
    shutil.rmtree(checkpoint, ignore_errors=True)
    history = adapted.result.history
    return AdaptationResult(
        name=name,
        seed=seed,
        mode=mode,
        top1=adapted.test.accuracy,
        validation_top1=adapted.result.validation_accuracy,
        seconds=adapted.seconds,
        params=adapted.parameters,
        trained_params=adapted.trained_parameters,
        weights_bytes=adapted.weights_bytes,
        losses=_thinned(adapted.result.losses),
        train_accuracy=tuple(epoch.train_accuracy for epoch in history),
        validation_accuracy=tuple(e.validation_accuracy for e in history if e.validation_accuracy is not None),
        curves=f"{folder.parent.name}/{folder.name}/{CURVES}" if (folder / CURVES).is_file() else None,
        weights_sha256=weights_sha256(adapted.model),
        stopped=adapted.result.stopped,
    )


def _keep(adapted: Adaptation, origin: Origin, folder: Path) -> None:
    try:
        with quiet_transformers(), replace_folder(folder, overwrite=True) as new:
            adapted.save(new, origin.processor)
    except OSError as error:
        raise ArtifactError(f"{folder} cannot be written ({error}); free some space, or name another folder") from error


def kept_model(folder: Path, device: str) -> nn.Module:
    """Return the model that an adaptation kept.

    Raises:
        UnsupportedModelError: the folder was removed or damaged.
    """
    return load_model(str(folder), device=device).model.eval()


def _thinned(losses: tuple[float, ...]) -> tuple[float, ...]:
    """Take the mean of equal runs of updates, so that a long curve stays short and its noise is smoothed."""
    count = min(len(losses), MOST_POINTS)
    edges = [at * len(losses) // count for at in range(count + 1)] if count else []
    return tuple(
        sum(losses[a:b]) / (b - a) for a, b in itertools.pairwise(edges)
    )  # fmt: skip
