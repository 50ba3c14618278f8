"""Large sets of images: the processes of one launch each classify their part, and all know every answer."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pah_opt.errors import MeasurementError, MissingBackendError
from pah_opt.models.quiet import quiet_imports

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Variables in which launchers tell how many processes there are, as accelerate reads them."""


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that ``accelerate launch`` or ``torchrun`` started together; one by itself is a group too.

    Args:
        rank: number of this process, from 0.
        count: of processes.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def launched(cls) -> ProcessGroup:
        """Join the processes that were started with this one; every one of them must call it.

        Raises:
            MissingBackendError: there are several, and accelerate is not installed.
        """
        if all((os.environ.get(name) or "1") == "1" for name in SIZES):
            return cls()
        try:
            with quiet_imports():
                from accelerate import PartialState
        except ImportError as error:
            raise MissingBackendError(
                "several processes share their work through accelerate, which is not installed; "
                "pip install 'pah-opt[train]'"
            ) from error
        state = PartialState()
        return cls(state.process_index, state.num_processes)

    def rows(self, images: int, batch_size: int) -> list[int]:
        """Return which of so many images are this process's: every ``count``-th batch.

        Batches hold the images that they would hold in one process, so that logits are the same to the last bit.
        """
        starts = range(self.rank * batch_size, images, self.count * batch_size)
        return [row for start in starts for row in range(start, min(start + batch_size, images))]

    def gather(self, what: str, make: Callable[[], Any]) -> list[Any]:
        """Call ``make`` in every process, and return what each one made, by rank.

        Args:
            what: is made, the same in every process.
            make: makes something that can be pickled.

        Raises:
            MeasurementError: it failed in another process, or processes are not doing the same.
        """
        if self.count == 1:
            return [make()]
        made, failure = None, None
        try:
            made = make()
        except Exception as error:  # noqa: BLE001  # the others wait: they have to hear of it, whatever it is
            failure = error
        answers = self._exchange((what, made, None if failure is None else f"{type(failure).__name__}: {failure}"))
        if failure is not None:
            raise failure
        for rank, (theirs, _, message) in enumerate(answers):
            if message is not None:
                raise MeasurementError(f"{theirs} failed in process {rank}: {message}")
            if theirs != what:
                raise MeasurementError(
                    f"processes are not doing the same: {what} here, {theirs} in process {rank}; start all with the "
                    "same models, images and settings"
                )
        return [made for _, made, _ in answers]

    def _exchange(self, answer: Any) -> list[Any]:
        import torch.distributed

        answers: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(answers, answer)
        return answers
