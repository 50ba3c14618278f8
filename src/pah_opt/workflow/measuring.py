"""Measure models by name: artifact folders, transformers folders, hub ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pah_opt.errors import MeasurementError
from pah_opt.report import compare
from pah_opt.report.baselines import strong_baselines
from pah_opt.workflow.loading import Loaded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Unpack

    from pah_opt.data import ImageChoice
    from pah_opt.measure.settings import MeasureSettings
    from pah_opt.progress import Progress
    from pah_opt.report import Report
    from pah_opt.workflow.loading import Weights


def measure_sources(
    sources: Mapping[str, str],
    data: str | None = None,
    *,
    settings: MeasureSettings | None = None,
    weights: Weights = "pretrained",
    device: str = "cpu",
    baselines: bool = False,
    shared: bool = False,
    progress: Progress | None = None,
    **choice: Unpack[ImageChoice],
) -> Report:
    """Load models and images, and measure them side by side; the first model is the baseline.

    Args:
        sources: folders or hub ids, by the name the model has in the report.
        data: hub id or folder of labelled images; they are preprocessed by the first model's processor.
        settings: how thoroughly.
        weights: ``random`` for the architecture alone; no accuracy is measured.
        device: where the models run.
        baselines: also measure the first model in bf16, and compiled in bf16.
        shared: share the images among the processes of one launch, see :func:`pah_opt.compare`.
        progress: shows progress.
        **choice: which images, as :func:`pah_opt.data.load_data` takes it: ``test_limit=500``.

    Raises:
        MeasurementError: nothing was given, or a model cannot be measured.
        DataError: the images cannot be read or do not fit.
    """
    if not sources:
        raise MeasurementError("there are no models to measure; name at least one")
    loaded = {name: Loaded.any(source, weights=weights, device=device) for name, source in sources.items()}
    first = next(iter(loaded))
    models: dict[str, Any] = {name: each.artifact or each.model for name, each in loaded.items()}
    if baselines:
        models = {**strong_baselines(models[first], name=first), **models}
    images = loaded[first].images(data, **choice) if data is not None and weights != "random" else None
    report = compare(
        models,
        images,
        settings=settings,
        baseline=first,
        weights_origin=loaded[first].weights_origin,
        shared=shared,
        progress=progress,
    )
    notes = [f"{name}: {note}" for name, each in loaded.items() for note in each.notes]
    return report.model_copy(update={"notes": (*report.notes, *notes)})
