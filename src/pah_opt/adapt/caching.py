"""Hidden states of frozen lower blocks, computed once: in memory, or on disk when they are too large for it."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import secrets
import shutil
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pah_opt.adapt.augment import augmented
from pah_opt.adapt.hidden import HiddenSplit, inputs_of
from pah_opt.adapt.isolation import seed_all
from pah_opt.adapt.settings import Augmentation
from pah_opt.adapt.snapshots import digest_of, state_of
from pah_opt.errors import DataError
from pah_opt.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from pah_opt.adapt.processes import Processes
    from pah_opt.layout import Layout
    from pah_opt.splits import Split

MEMORY_BYTES = 2 * 1024**3
"""Hidden states that are kept in memory; more go to disk."""
BATCH_SIZE = 32
NO_AUGMENTATION = Augmentation()
HALF_LIMIT = 30_000.0
"""States up to this are stored in half precision (float16 ends at 65,504), larger ones in float32."""
CANNOT_RESERVE = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
"""What a file system answers that cannot set disk space aside."""


@dataclass(frozen=True)
class Views:
    """How each image is seen.

    Args:
        augmentation: of each view.
        count: how many views of each image are kept; each epoch sees the next one.
        seed: of the augmentation.
    """

    augmentation: Augmentation = NO_AUGMENTATION
    count: int = 1
    seed: int = 0


@dataclass(frozen=True)
class HiddenStates:
    """Computes the inputs of a block, or reads those that an interrupted run has computed.

    Args:
        model: its modes are left in ``eval``.
        layout: of the model.
        first: number of that block.
        processes: gives device and precision, and shares the work.
        folder: where states are kept for later runs, shared by all processes; None for memory, or for a temporary file
            when they are too large.
        memory_bytes: how much may be kept in memory.
        progress: shows progress.
    """

    model: nn.Module
    layout: Layout
    first: int
    processes: Processes
    folder: Path | None = None
    memory_bytes: int = MEMORY_BYTES
    progress: Progress = Progress()  # noqa: RUF009  # it holds no state

    @contextmanager
    def of(self, split: Split, views: Views) -> Iterator[HiddenSplit]:
        """Give a split's hidden states; a temporary file is removed when the block ends.

        Raises:
            DataError: there is no room on the disk, the folder cannot be written, or several processes have no folder
                to share.
        """
        self.model.eval()
        key = self._key(split, views)
        shape, dtype = self._probe(split, views)
        size = math.prod(shape) * dtype.itemsize
        if self.folder is None and self.processes.count > 1:
            raise DataError("several processes share cached hidden states; give a folder that all of them can write to")
        if self.folder is None and size <= self.memory_bytes:
            states: NDArray[Any] = np.empty(shape, dtype)
            self._fill(states, split, views)
            yield HiddenSplit(states, split, key)
            return
        with _folder(self.folder) as folder:
            yield HiddenSplit(self._on_disk(folder / f"{key[:32]}.npy", shape, dtype, split, views), split, key)

    def _key(self, split: Split, views: Views) -> str:
        model = digest_of(self._frozen())
        seen = (split.fingerprint, views.augmentation.model_dump_json(), views.count, views.seed)
        parts = (*seen, model, self.first, self.processes.precision)
        return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()

    def _frozen(self) -> dict[str, Tensor]:
        """Return the weights that the states depend on: all but those from the block on."""
        blocks = (block.path for block in self.layout.blocks[self.first :])
        later = tuple(f"{path}." for path in (*blocks, self.layout.final_norm, *self.layout.classifiers))
        return {name: value for name, value in state_of(self.model).items() if not name.startswith(later)}

    def _probe(self, split: Split, views: Views) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Look at the first batch, in every process alike: shape and type of all states."""
        pixels = next(iter(split.batches(BATCH_SIZE))).pixel_values
        hidden = self._hidden(pixels)
        dtype = np.dtype(np.float16 if np.abs(hidden).max() <= HALF_LIMIT else np.float32)
        return (views.count, len(split), *hidden.shape[1:]), dtype

    def _hidden(self, pixels: Tensor) -> NDArray[Any]:
        block = self.model.get_submodule(self.layout.blocks[self.first].path)
        with self.processes.autocast():
            states = inputs_of(block, self.model, pixels.to(self.processes.device))
        values: NDArray[Any] = states.float().cpu().numpy()
        return values

    def _computed(self, split: Split, views: Views) -> Iterator[tuple[int, slice, NDArray[Any]]]:
        """Yield view, rows and float32 states of each batch that is this process's to compute."""
        for view in range(views.count):
            start = 0
            for number, (pixels, labels) in enumerate(split.batches(BATCH_SIZE)):
                rows = slice(start, start + len(labels))
                start = rows.stop
                if number % self.processes.count == self.processes.rank:
                    seed_all(views.seed, view, number)
                    seen = augmented(pixels, labels, views.augmentation, len(split.class_names)).pixels
                    yield view, rows, self._hidden(seen)

    def _fill(self, states: NDArray[Any], split: Split, views: Views) -> None:
        total = views.count * math.ceil(len(split) / BATCH_SIZE / self.processes.count)
        for view, rows, hidden in self.progress.track(self._computed(split, views), "caching hidden states", total):
            states[view, rows] = hidden

    def _on_disk(
        self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], split: Split, views: Views
    ) -> NDArray[Any]:
        token = self._token(path)
        if token:
            with ExitStack() as stack:
                partial = path.with_suffix(f".{token:x}.partial.npy")
                if self.processes.is_main:
                    stack.enter_context(_new_states(path, partial, shape, dtype))
                self.processes.wait()
                self._fill_file(partial, split, views)
                self.processes.wait()
        self.processes.wait()
        mapped: NDArray[Any] = np.load(path, mmap_mode="r")
        return mapped

    def _token(self, path: Path) -> int:
        """Draw a number for a new file's name, the same in all processes; 0 where the states are there already."""
        drawn = secrets.randbits(62) + 1 if self.processes.is_main and not path.exists() else 0
        return int(self.processes.sum(torch.tensor(drawn, device=self.processes.device)))

    def _fill_file(self, path: Path, split: Split, views: Views) -> None:
        states = np.lib.format.open_memmap(path, "r+")
        self._fill(states, split, views)
        states.flush()


@contextmanager
def _folder(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        with _named_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with _named_errors(None):
        made = tempfile.TemporaryDirectory(prefix="pah-opt-")
    with made as temporary:
        yield Path(temporary)


@contextmanager
def _named_errors(folder: Path | None) -> Iterator[None]:
    """Say of which folder an error of the operating system speaks, and what to do about it."""
    try:
        yield
    except OSError as error:
        where = "a temporary folder" if folder is None else str(folder)
        raise DataError(
            f"hidden states cannot be written to {where} ({error}); name another folder that can be written to and has "
            "room, or train without the cache (cache=False)"
        ) from error


@contextmanager
def _new_states(path: Path, partial: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[None]:
    """Make a file to be filled in, and give it its name when the block ends; remove it if the block fails.

    Other runs that share the folder may compute the same states at the same time: each fills in a file of its own.
    """
    _remove_left_behind(path)
    _check_room(path.parent, math.prod(shape) * dtype.itemsize)
    with _locked(partial):
        try:
            _make_file(partial, shape, dtype)
            yield
            if not path.exists():
                partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Make an empty file and lock it: other runs see that it is in use, until this process ends in whatever way."""
    with ExitStack() as stack:
        if os.name != "nt":  # Windows neither renames an open file nor removes one
            with _named_errors(path.parent):
                file = stack.enter_context(path.open("ab"))
            with suppress(OSError):  # a file system without locks
                _lock(file.fileno())
        yield


def _lock(descriptor: int) -> None:
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove_left_behind(path: Path) -> None:
    """Remove what killed runs have left of the same states."""
    for partial in path.parent.glob(f"{path.stem}*.partial.npy"):
        with suppress(OSError):  # another run has removed it, or it is locked
            if _is_left_behind(partial):
                partial.unlink()


def _is_left_behind(partial: Path) -> bool:
    """Tell whether nobody writes a file; an empty one is about to be locked.

    Raises:
        OSError: somebody does, or the file system cannot tell.
    """
    with partial.open("r+b") as file:
        if os.name != "nt":
            _lock(file.fileno())
        return partial.stat().st_size > 0


def _make_file(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Make an array file whose bytes are all on the disk: filling a sparse one up on a full disk kills the process."""
    with _named_errors(path.parent):
        try:
            np.lib.format.open_memmap(path, "w+", dtype, shape).flush()
            with path.open("r+b") as file:
                _reserve(file.fileno(), path.stat().st_size)
        except OSError:
            path.unlink(missing_ok=True)
            raise


def _reserve(descriptor: int, size: int) -> None:
    if not hasattr(os, "posix_fallocate"):
        return  # macOS and Windows
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in CANNOT_RESERVE:
            raise


def _check_room(folder: Path, wanted: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise DataError(
            f"the hidden states need {wanted / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} GB free; name a folder "
            "with more room, keep fewer views, or train without the cache (cache=False)"
        )
