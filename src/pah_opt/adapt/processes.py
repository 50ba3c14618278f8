"""One process or several: accelerate underneath, and each process its own part of every batch."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pah_opt.data.prefetch import ahead, default_workers
from pah_opt.errors import DataError, MissingBackendError
from pah_opt.models.precision import mixed
from pah_opt.models.quiet import quiet_imports

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pah_opt.models.precision import Precision
    from pah_opt.splits import Batch, Split


class Processes:
    """Runs a model on this process's device, together with the others that ``accelerate launch`` started.

    A single process trains where the model is; several train each on the device that accelerate gives them.

    Args:
        device: of the model.
        precision: ``bf16`` runs matrix products in bfloat16, where the device has it.

    Raises:
        MissingBackendError: accelerate is not installed.
    """

    def __init__(self, device: torch.device, precision: Precision) -> None:
        try:
            with quiet_imports():
                from accelerate import Accelerator, DistributedDataParallelKwargs
        except ImportError as error:
            raise MissingBackendError(
                "training runs through accelerate, which is not installed; pip install 'pah-opt[train]'"
            ) from error
        # Some parameters take no part in classification (DINOv2's mask token): without this, gradients never complete.
        unused = DistributedDataParallelKwargs(find_unused_parameters=True)
        # Devices are chosen here: accelerate would move a model that the user keeps on the CPU. Precision is chosen
        # here too: accelerate keeps it for the life of the process, and the next training may want another.
        self._accelerator = Accelerator(device_placement=False, kwargs_handlers=[unused])
        # `accelerate launch` hands over the precision of accelerate's own config, which would wrap the model as well.
        self._accelerator.native_amp, self._accelerator.scaler = False, None
        self.count: int = self._accelerator.num_processes
        self.rank: int = self._accelerator.process_index
        self.device: torch.device = self._accelerator.device if self.count > 1 else device
        self.precision: Precision = precision

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    @contextlib.contextmanager
    def holding(self, model: nn.Module) -> Iterator[None]:
        """Keep a model on this process's device, and take it back to where it was when the block ends."""
        home = next(model.parameters()).device
        if home == self.device:  # quantized models refuse to be moved, even to where they are
            yield
            return
        model.to(self.device)
        try:
            yield
        finally:
            model.to(home)

    def prepare(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """Wrap model and optimizer for training in all processes; call :meth:`release` at the end."""
        wrapped, stepper = self._accelerator.prepare(model, optimizer)
        return wrapped, stepper

    def release(self, wrapped: nn.Module) -> None:
        """Take off what :meth:`prepare` put on the model, and forget it."""
        self._accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
        for module in wrapped.modules():
            # Left in place, this mark would keep a second training from wrapping the model at all.
            vars(module).pop("_is_accelerate_prepared", None)
        self._accelerator.free_memory()

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Run what follows in the precision asked for, where the device has it."""
        return mixed(self.precision, self.device)

    def backward(self, loss: Tensor) -> None:
        """Add gradients; processes average theirs, so a sum over the batch is scaled up by their number."""
        self._accelerator.backward(loss * self.count)

    def without_exchange(self, wrapped: nn.Module, *, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Exchange gradients between processes only for the ``last`` part of a batch."""
        return contextlib.nullcontext() if last else self._accelerator.no_sync(wrapped)

    def clip(self, parameters: list[nn.Parameter], max_norm: float) -> float:
        """Scale gradients down to ``max_norm`` and return the norm they had."""
        return float(self._accelerator.clip_grad_norm_(parameters, max_norm))

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over all processes."""
        summed: Tensor = self._accelerator.reduce(values, reduction="sum")
        return summed

    def wait(self) -> None:
        """Wait until every process is here."""
        self._accelerator.wait_for_everyone()

    def check(self, batch_size: int) -> None:
        """Refuse a batch that is too small to be shared.

        Raises:
            DataError: there are more processes than images in a batch.
        """
        if batch_size < self.count:
            raise DataError(
                f"batch_size {batch_size} cannot be shared by {self.count} processes; give at least {self.count}"
            )


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """Return the order of images in one epoch: a function of the seed and the epoch alone."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    return torch.randperm(count, generator=generator, device="cpu")


def updates_in_epoch(count: int, batch_size: int, processes: int) -> int:
    """Return how many batches an epoch has; a last batch too small to share is left out."""
    full, rest = divmod(count, batch_size)
    return full + (rest >= processes and rest > 0)


def shared_batches(
    split: Split, order: Tensor, batch_size: int, processes: Processes, *, skip: int = 0
) -> Iterator[tuple[Batch, int]]:
    """Yield this process's part of each batch, with the number of images in the whole batch.

    Args:
        split: the images.
        order: in which they are taken.
        batch_size: images in a whole batch.
        processes: who shares them.
        skip: batches to leave out at the start, when training is resumed.
    """

    def prepare(index: int) -> tuple[Batch, int]:
        whole = order[index * batch_size : (index + 1) * batch_size]
        mine = whole[processes.rank :: processes.count]
        return next(iter(split.subset(mine.tolist()).batches(len(mine)))), len(whole)

    updates = updates_in_epoch(len(order), batch_size, processes.count)
    yield from ahead(prepare, range(skip, updates), default_workers())
