"""Measure models by name: artifact folders, transformers folders, hub ids."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pah_opt.artifact import load
from pah_opt.artifact.files import DESCRIPTION, PROCESSOR
from pah_opt.data import load_data, load_processor
from pah_opt.errors import DataError, MeasurementError
from pah_opt.models import load_model
from pah_opt.report import compare
from pah_opt.report.baselines import strong_baselines

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pah_opt.measure.settings import MeasureSettings
    from pah_opt.progress import Progress
    from pah_opt.report import Report


@dataclass(frozen=True)
class Measurable:
    """A loaded model.

    Args:
        model: a module, or the Artifact it came in.
        processor: its image processor; None when there is none.
        weights_origin: where its weights come from, when that is known.
        notes: what a reader of the report must know.
    """

    model: Any
    processor: Any
    weights_origin: str | None
    notes: tuple[str, ...] = ()

    @classmethod
    def load(
        cls, source: str, *, weights: Literal["pretrained", "random"] = "pretrained", device: str = "cpu", seed: int = 0
    ) -> Measurable:
        """Load an artifact's folder, a folder in transformers' form, or a hub id.

        Raises:
            ArtifactError: the artifact is damaged.
            UnsupportedModelError: it is no model that is known.
        """
        if (Path(source) / DESCRIPTION).is_file():
            artifact = load(source, device=device)
            processor = load_processor(source) if (Path(source) / PROCESSOR).is_file() else None
            return cls(artifact, processor, artifact.weights_origin)
        loaded = load_model(source, weights=weights, device=device, seed=seed)
        return cls(loaded.model, loaded.processor, loaded.weights_origin, tuple(loaded.notes))


def measure_sources(
    sources: Mapping[str, str],
    data: str | None = None,
    *,
    settings: MeasureSettings | None = None,
    weights: Literal["pretrained", "random"] = "pretrained",
    device: str = "cpu",
    test_limit: int | None = None,
    baselines: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Load models and images, and measure them side by side; the first model is the baseline.

    Args:
        sources: folders or hub ids, by the name the model has in the report.
        data: hub id or folder of labelled images; they are preprocessed by the first model's processor.
        settings: how thoroughly.
        weights: ``random`` for the architecture alone; no accuracy is measured.
        device: where the models run.
        test_limit: at most so many test images.
        baselines: also measure the first model in bf16, and compiled in bf16.
        progress: shows progress.

    Raises:
        MeasurementError: nothing was given, or a model cannot be measured.
        DataError: the images cannot be read or do not fit.
    """
    if not sources:
        raise MeasurementError("there are no models to measure; name at least one")
    loaded = {
        name: Measurable.load(source, weights=weights, device=device) for name, source in sources.items()
    }  # fmt: skip
    first = next(iter(loaded))
    models = {name: each.model for name, each in loaded.items()}
    if baselines:
        models = {**strong_baselines(models[first], name=first), **models}
    images = _images(data, loaded[first], first, test_limit) if data is not None and weights != "random" else None
    report = compare(
        models,
        images,
        settings=settings,
        baseline=first,
        weights_origin=loaded[first].weights_origin,
        progress=progress,
    )
    notes = [f"{name}: {note}" for name, each in loaded.items() for note in each.notes]
    return report.model_copy(update={"notes": (*report.notes, *notes)})


def _images(data: str, first: Measurable, name: str, limit: int | None) -> Any:
    if first.processor is None:
        raise DataError(
            f"{name} comes without an image processor, so its preprocessing is not known; save it with "
            "preprocessor_config.json, or measure without data"
        )
    return load_data(data, first.processor, test_limit=limit)
