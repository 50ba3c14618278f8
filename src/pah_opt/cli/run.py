"""``pah-opt run``: recipes on a user's model, compared with the dense one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import click

from pah_opt.cli._help import complete_recipes, examples
from pah_opt.cli._images import image_options
from pah_opt.cli._measuring import BatchSize, settings_of
from pah_opt.cli._recipes import checked
from pah_opt.cli._results import result_options
from pah_opt.cli._sources import random_source_options

if TYPE_CHECKING:
    from pathlib import Path

    from pah_opt.pipeline import OnCollapse


@click.command(
    epilog=examples(
        "pah-opt run lossless balanced --model ./my-vit --data ./my-images",
        "pah-opt run lossless --model digits --data digits",
        "pah-opt run recipe.yaml --model digits --data digits --save-artifacts",
        "pah-opt run recipe.yaml --model ./my-vit --data ./my-images --ablate",
    )
)
@click.argument("recipes", nargs=-1, required=True, metavar="RECIPE...", shell_complete=complete_recipes)
@random_source_options()
@click.option("--device", default="cpu", show_default=True, help="Where the model runs, such as cuda.")
@image_options()
@click.option(
    "--calibration-images",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    metavar="N",
    help="Training images that calibrating steps observe.",
)
@click.option(
    "--on-collapse",
    type=click.Choice(["error", "warn", "ignore"]),
    default="error",
    show_default=True,
    help="What to do when a step brings the model to chance.",
)
@click.option(
    "--ablate",
    is_flag=True,
    help="Also measure each recipe after each of its steps, and without each of them; --json then prints report and "
    "ablations.",
)
@click.option(
    "--batch",
    "batches",
    multiple=True,
    type=BatchSize(),
    help="Images in a pass; repeatable; gates of latency mean the smallest, gates of energy the largest.",
)
@result_options
def command(
    recipes: tuple[str, ...],
    model: str,
    data: str | None,
    weights: Literal["pretrained", "random"],
    device: str,
    calibration_images: int,
    on_collapse: OnCollapse,
    ablate: bool,
    batches: tuple[int | str, ...],
    out: Path,
    save_artifacts: bool,
    quick: bool,
    as_json: bool,
    **choice: Any,
) -> None:
    """Run each RECIPE (a YAML or JSON file, or a preset) on a model; compare all with the dense one.

    Under accelerate launch, all processes share training and test images; the main one times and writes.
    """
    read = [checked(recipe) for recipe in recipes]
    from pah_opt.cli._results import end, show
    from pah_opt.workflow import Source, is_main, main_progress, require_writable, run_recipes, write_folder
    from pah_opt.workflow.ablation import Ablation

    require_writable(out)
    source = Source.load(model, data, weights=weights, device=device, **choice)
    trains = source.data is not None and source.data.train is not None
    ablations = [Ablation.of(recipe, source.model, calibration=trains, training=trains) for recipe in read if ablate]
    wanted = [variant for each in ablations for variant in each.variants] or read
    options: dict[str, Any] = {"calibration_images": calibration_images, "on_collapse": on_collapse}
    settings = settings_of(quick=quick, batches=batches)
    outcome = run_recipes(source, wanted, settings=settings, shared=True, progress=main_progress(), **options)
    if not is_main():
        return
    show(outcome, as_json=as_json, ablations=ablations)  # first: a full disk must not take the figures too
    end(write_folder(out, outcome, artifacts=save_artifacts), out)
