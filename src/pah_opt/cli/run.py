"""``pah-opt run``: recipes on a user's model, compared with the dense one."""

from __future__ import annotations

import click

from pah_opt.cli._output import report_options


@click.command
@click.argument("recipes", nargs=-1, required=True, type=click.Path(dir_okay=False))
@click.option(
    "--model",
    default="google/vit-base-patch16-224",
    show_default=True,
    metavar="ID_OR_PATH",
    help="A hub id, or a local folder in transformers' form.",
)
@click.option(
    "--data",
    default="uoft-cs/cifar10",
    show_default=True,
    metavar="ID_OR_PATH",
    help="A hub id, or a local folder of images.",
)
@click.option(
    "--weights",
    type=click.Choice(["pretrained", "random"]),
    default="pretrained",
    show_default=True,
    help="random: sizes and speed where the weights cannot be had; no accuracy is measured.",
)
@click.option("--device", default="cpu", show_default=True, help="Where the model runs, such as cuda.")
@click.option("--train-limit", type=click.IntRange(1), metavar="N", help="At most so many training images.")
@click.option("--test-limit", type=click.IntRange(1), metavar="N", help="At most so many test images.")
@click.option(
    "--calibration-images", type=click.IntRange(1), default=256, show_default=True, metavar="N",
    help="Training images that calibrating steps observe.",
)  # fmt: skip
@click.option(
    "--on-collapse", type=click.Choice(["error", "warn", "ignore"]), default="error", show_default=True,
    help="What to do when a step brings the model to chance.",
)  # fmt: skip
@click.option("--save-artifacts", is_flag=True, help="Also save every optimized model, under OUT/artifacts.")
@report_options
def command(
    recipes: tuple[str, ...], model: str, data: str, weights: str, device: str, train_limit: int | None,
    test_limit: int | None, calibration_images: int, on_collapse: str, save_artifacts: bool, out: str, full: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Run each of RECIPES on a model, measure them beside the dense one, and write a report folder."""
    from pathlib import Path

    from pah_opt.cli._output import show_outcome
    from pah_opt.measure.settings import MeasureSettings
    from pah_opt.progress import default_progress
    from pah_opt.recipe import Recipe
    from pah_opt.workflow import Source, run_recipes, write_folder

    read = [Recipe.from_yaml(Path(recipe)) for recipe in recipes]
    source = Source.load(
        model, data, weights=weights, device=device, train_limit=train_limit, test_limit=test_limit  # type: ignore[arg-type]  # click checked the choice
    )
    settings = MeasureSettings() if full else MeasureSettings.quick()
    outcome = run_recipes(
        source, read, settings=settings, progress=default_progress(), calibration_images=calibration_images,
        on_collapse=on_collapse,
    )  # fmt: skip
    folder = write_folder(Path(out), outcome, artifacts=save_artifacts)
    show_outcome(outcome, folder, as_json=as_json)
