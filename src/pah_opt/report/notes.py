"""What the reader of any rendering must be told."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pah_opt.report.schema import Report

RANDOM = "The weights of {} are random: sizes and speeds are real, accuracy would mean nothing and is not shown."


def all_notes(report: Report) -> list[str]:
    """Return the notes of the run, of its models and of their timings, each once."""
    random = [model.id for model in report.models if model.provenance.weights_origin == "random"]
    notes = [RANDOM.format(", ".join(random))] if random else []
    notes += [f"Compared with {report.baseline_id}."] if report.candidates else []
    notes += report.notes
    for model in report.models:
        notes += [f"{model.id}: {note}" for note in model.notes]
        notes += [
            f"{model.id}, batch {timing.workload.batch_size}: {note}"
            for timing in model.timings
            for note in timing.notes
        ]
    return list(dict.fromkeys(notes))


def conditions(report: Report) -> list[tuple[str, str]]:
    """Return where and how it was measured, as pairs of a label and a value."""
    env, base = report.env, report.baseline
    software = ", ".join(
        f"{name} {version}"
        for name, version in (("torch", env.torch), ("transformers", env.transformers), ("pah_opt", env.pah_opt))
        if version
    )
    images = base.provenance.split
    pairs = [
        ("device", env.device_name),
        ("driver, CUDA", " / ".join(text for text in (env.driver, env.cuda) if text) or None),
        ("CPU", f"{env.cpu_model}, {env.threads} threads"),
        ("software", software),
        ("images", f"{base.provenance.n_images:,} of {images}" if images and base.provenance.n_images else None),
        ("baseline", report.baseline_id),
        ("measured", f"{report.run.timestamp_utc}, run {report.run.run_id[:8]}, schema {report.run.schema_version}"),
    ]
    return [(label, value) for label, value in pairs if value]
