"""``pah-opt demo``: the whole way through on an embedded model and real images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pah_opt.cli._help import examples
from pah_opt.cli._measuring import settings_of
from pah_opt.cli._results import result_options

if TYPE_CHECKING:
    from pathlib import Path


@click.command(epilog=examples("pah-opt demo --out out/demo"))
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of training.")
@result_options
def command(seed: int, out: Path, save_artifacts: bool, quick: bool, as_json: bool) -> None:
    """Train a small ViT on digits, run recipes on it, compare: no download, no GPU."""
    from pah_opt.cli._results import end, show
    from pah_opt.demo import run_demo
    from pah_opt.progress import default_progress
    from pah_opt.workflow import require_writable

    require_writable(out)
    settings = settings_of(quick=quick, batches=())
    outcome = run_demo(out, seed=seed, artifacts=save_artifacts, settings=settings, progress=default_progress())
    show(outcome, as_json=as_json)
    end(outcome, out)
