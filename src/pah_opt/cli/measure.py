"""``pah-opt measure``: standard figures of one model."""

from __future__ import annotations

from typing import Any

import click

from pah_opt.cli._help import examples
from pah_opt.cli._images import require_images
from pah_opt.cli._measuring import measuring_options, settings_of, show_report


@click.command(
    epilog=examples(
        "pah-opt measure out/artifacts/int8 --data ./my-images",
        "pah-opt measure ./my-vit --quick --batch 1 --batch best",
    )
)
@click.argument("model")
@measuring_options
def command(
    *, model: str, quick: bool, batches: tuple[Any, ...], strong_baselines: bool, out: str | None, as_json: bool,
    **options: Any,
) -> None:  # fmt: skip
    """Measure MODEL: an artifact's folder, a folder in transformers' form, a hub id, or digits.

    Under accelerate launch, all processes share the images; the main one times and writes.
    """
    from pathlib import Path

    require_images(options["data"])
    from pah_opt.workflow import is_main, main_progress
    from pah_opt.workflow.measuring import measure_sources

    report = measure_sources(
        {Path(model).name or model: model}, settings=settings_of(quick=quick, batches=batches),
        baselines=strong_baselines, shared=True, progress=main_progress(), **options,
    )  # fmt: skip
    if is_main():
        show_report(report, out, as_json=as_json)
