"""Train the embedded model, run the embedded recipes on it, compare them."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from pah_opt.adapt import train_digits_vit
from pah_opt.measure.settings import MeasureSettings
from pah_opt.progress import Progress
from pah_opt.recipe import packaged_recipes
from pah_opt.report import Curve
from pah_opt.workflow import Outcome, Source, run_recipes, write_folder

if TYPE_CHECKING:
    from pathlib import Path

    from pah_opt.recipe import Recipe


def demo_recipes() -> tuple[Recipe, ...]:
    """Return the recipes of the demo, by name."""
    return packaged_recipes(files("pah_opt.demo") / "recipes")


def run_demo(
    folder: Path,
    *,
    seed: int = 0,
    artifacts: bool = False,
    settings: MeasureSettings | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Train a small ViT on scikit-learn's digits, run every demo recipe on it, and write a folder of results.

    Args:
        folder: where the report goes.
        seed: of training.
        artifacts: also save each optimized model.
        settings: how thoroughly to measure; a look by default.
        progress: shows how far it is.

    Returns:
        What came of it, its report with the curves of training.

    Raises:
        MissingBackendError: scikit-learn, accelerate or matplotlib is missing; install ``pah-opt[demo]``.
    """
    progress = progress or Progress()
    progress.message("training a small ViT on 1,347 images of digits (450 more are held out)")
    trained = train_digits_vit(seed=seed, progress=progress)
    losses = trained.result.losses
    curve = Curve(x=tuple(range(1, len(losses) + 1)), y=losses)
    source = Source(trained.model, "digits ViT", "fine-tuned", trained.data)
    outcome = run_recipes(source, demo_recipes(), settings=settings or MeasureSettings.quick(), progress=progress)
    return write_folder(folder, outcome, curves={"loss of the dense model": curve}, artifacts=artifacts)
