"""The figures of each epoch as TensorBoard reads them."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from pah_opt.errors import ArtifactError, MissingBackendError
from pah_opt.models.quiet import quiet_imports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pah_opt.adapt.results import Epoch


@contextmanager
def epoch_log(folder: str | Path | None) -> Iterator[Callable[[Epoch], None] | None]:
    """Give a function that adds an epoch to the log in ``folder``: losses, accuracies (0 to 1) and the learning rate.

    Args:
        folder: made where it is not there; a resumed training adds to what it holds. None for no log and no function.

    Raises:
        MissingBackendError: tensorboard is not installed.
        ArtifactError: the folder cannot be written.
    """
    if folder is None:
        yield None
        return
    with closing(_writer(folder)) as writer:

        def write(epoch: Epoch) -> None:
            for name, value in _figures(epoch).items():
                writer.add_scalar(name, value, epoch.epoch)
            writer.flush()  # to be seen while the next epoch runs, and kept when it is killed

        yield write


def _figures(epoch: Epoch) -> dict[str, float]:
    figures = {
        "loss/training": epoch.train_loss,
        "loss/validation": epoch.validation_loss,
        "accuracy/training": epoch.train_accuracy,
        "accuracy/validation": epoch.validation_accuracy,
        "lr": epoch.lr,
    }
    return {name: value for name, value in figures.items() if value is not None}


def _writer(folder: str | Path) -> Any:
    try:
        with quiet_imports():
            from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingBackendError(
            "the log is written by tensorboard, which is not installed; pip install 'pah-opt[tensorboard]'"
        ) from error
    try:
        return SummaryWriter(str(folder))
    except OSError as error:
        raise ArtifactError(f"{folder} cannot be written ({error}); name another folder for TensorBoard") from error
