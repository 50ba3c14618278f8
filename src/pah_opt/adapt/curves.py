"""Loss and accuracy over a training, as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from pah_opt.adapt.results import TrainResult


def save_curves(result: TrainResult, path: Path) -> bool:
    """Draw the loss of each update, and accuracy after each epoch, to a PNG file.

    Returns:
        False where matplotlib is not installed, and nothing was drawn.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(8.0, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_loss(left, result)
    _draw_accuracy(right, result)
    figure.savefig(path, dpi=150)
    return True


def _draw_loss(axes: Any, result: TrainResult) -> None:
    axes.plot(range(1, len(result.losses) + 1), result.losses, linewidth=0.8, label="training")
    validated = [(epoch.step, epoch.validation_loss) for epoch in result.history if epoch.validation_loss is not None]
    if validated:
        axes.plot(*zip(*validated, strict=True), "o-", label="validation")
    axes.set(xlabel="update", ylabel="loss")
    axes.legend()


def _draw_accuracy(axes: Any, result: TrainResult) -> None:
    epochs = [epoch.epoch for epoch in result.history]
    axes.plot(epochs, [100 * epoch.train_accuracy for epoch in result.history], "o-", label="training")
    validated = [
        (epoch.epoch, 100 * epoch.validation_accuracy)
        for epoch in result.history
        if epoch.validation_accuracy is not None
    ]
    if validated:
        axes.plot(*zip(*validated, strict=True), "o-", label="validation")
    axes.set(xlabel="epoch", ylabel="accuracy (%)")
    axes.legend()
