"""Measure models side by side: the one entry to everything in :mod:`pah_opt.measure`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pah_opt.data import as_data, check_order
from pah_opt.errors import MeasurementError
from pah_opt.measure.assemble import assemble
from pah_opt.measure.candidate import candidates_of, class_names_of
from pah_opt.measure.environment import describe
from pah_opt.measure.session import Session
from pah_opt.measure.settings import MeasureSettings
from pah_opt.measure.sharing import ProcessGroup
from pah_opt.progress import Progress, default_progress
from pah_opt.registry import Registry, default_registry
from pah_opt.report.gates import model_gates, with_gates
from pah_opt.report.schema import Report

if TYPE_CHECKING:
    from pah_opt.measure.model_report import Env

CONTENDED = (
    "other processes used the device meanwhile: latencies are higher than on a quiet machine; ratios of models that "
    "took turns hold better, with wider intervals"
)
THROTTLED = "the GPU lowered its clock meanwhile ({}): absolute figures are lower than at full clock"
FLAGGED_THROTTLES = frozenset(
    {"sw_power_cap", "hw_slowdown", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown"}
)


def compare(
    models: Mapping[str, Any],
    data: Any = None,
    *,
    settings: MeasureSettings | None = None,
    baseline: str | None = None,
    weights_origin: str | None = None,
    shared: bool = False,
    registry: Registry | None = None,
    progress: Progress | None = None,
) -> Report:
    """Measure models under one protocol and put them side by side.

    Models take turns, so that ratios survive a machine whose speed drifts; accuracy is compared image by image. Give
    the strongest baseline there is: besides the dense model, its bf16 and compiled versions.

    Args:
        models: modules or Artifacts by name, on one device, in the precision to be measured. Gates of an Artifact's
            recipe are checked; of the baseline only those that need no baseline.
        data: labelled test images, as :func:`pah_opt.data.as_data` takes them; without them there is no accuracy.
        settings: what to measure and for how long; by default what figures to publish need (minutes), see
            :meth:`~pah_opt.measure.settings.MeasureSettings.quick`.
        baseline: name of the model to compare with; the first by default.
        weights_origin: ``pretrained``, ``fine-tuned`` or ``random``, for models that do not say; the accuracy of random
            weights is not measured.
        shared: share the images among the processes of one ``accelerate launch`` or ``torchrun``, with the accuracy of
            one process. All of them must call this; the first times the models too, the others' reports hold nothing
            but accuracy.
        registry: adapters and metrics; those of every installed plugin by default.
        progress: shows progress; by default a bar on a terminal, nothing elsewhere.

    Returns:
        The report. After ctrl-C it holds what was measured until then, and ``complete`` is False.

    Raises:
        MeasurementError: a model cannot be measured, or ``models`` is no mapping.
        DataError: the images do not fit, or their classes come in another order than a model's label names.
        UnsupportedModelError: no ModelAdapter knows a model.
    """
    _check_named(models)
    registry = registry or default_registry()
    settings = settings or MeasureSettings()
    group = ProcessGroup.launched() if shared else ProcessGroup()
    if group.rank > 0:
        settings = settings.model_copy(update={"groups": settings.groups & {"accuracy"}})
    split = None if data is None else as_data(data, class_names=class_names_of(models, registry.adapters)).test
    candidates = candidates_of(models, registry.adapters, split)
    if split is not None:
        for candidate in candidates.values():
            check_order(split, candidate.model)
    session = Session(
        candidates=candidates, settings=settings,
        baseline=baseline or next(iter(models)), split=split, metrics=registry.metrics, weights_origin=weights_origin,
        group=group, progress=progress or default_progress(),
    )  # fmt: skip
    session.run()
    return _checked_gates(_report(session, registry), models)


def _check_named(models: object) -> None:
    if not isinstance(models, Mapping):
        raise MeasurementError(
            f"models must come with their names, as in compare({{'dense': model, 'int8': artifact}}, data); got a "
            f"{type(models).__name__}"
        )
    if not models:
        raise MeasurementError("there are no models to measure; give at least one")


def measure_model(model: Any, data: Any = None, *, name: str = "model", **options: Any) -> Report:
    """Measure one model; takes what :func:`compare` takes.

    Args:
        model: a module or an Artifact.
        data: labelled test images.
        name: its name in the report.
        **options: passed on to :func:`compare`.
    """
    return compare({name: model}, data, **options)


def _report(session: Session, registry: Registry) -> Report:
    samples = [
        timed.samples
        for each in session.collected.values()
        for timed in each.timings.values()
        if timed.samples is not None
    ]
    env = describe(
        session.device, session.gpu, plugins=_plugin_versions(registry), watch=session.watch, samples=samples
    )  # fmt: skip
    reports = sorted(assemble(session), key=lambda report: report.id != session.baseline)
    return Report(
        env=env, baseline_id=session.baseline, models=tuple(reports), settings=session.settings.model_dump(mode="json"),
        complete=not session.interrupted, notes=tuple(_notes(env, session)),
    )  # fmt: skip


def _plugin_versions(registry: Registry) -> dict[str, str]:
    return {plugin.origin.name: plugin.origin.version or "unknown" for plugin in registry.plugins.loaded}


def _notes(env: Env, session: Session) -> list[str]:
    notes = [CONTENDED] if env.contended else []
    if throttles := sorted(FLAGGED_THROTTLES & set(env.throttle_reasons or ())):
        notes.append(THROTTLED.format(", ".join(throttles)))
    if session.interrupted:
        notes.append("the run was interrupted: figures that are null for that reason were not reached")
    return notes


def _checked_gates(report: Report, models: Mapping[str, Any]) -> Report:
    recipes = {name: getattr(model, "recipe", None) for name, model in models.items()}
    gates = {name: recipe.gates for name, recipe in recipes.items() if recipe is not None and recipe.gates}
    results = {
        name: model_gates(report.model(name), limits, is_baseline=name == report.baseline_id)
        for name, limits in gates.items()
    }
    return with_gates(report, results)
