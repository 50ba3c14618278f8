"""Hidden states in the place of images: end a forward pass at a block, start one there, and a split of them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from pah_opt.data import labels_of
from pah_opt.data.splits import batch_rows
from pah_opt.errors import DataError, UnsupportedModelError
from pah_opt.splits import Batch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from pah_opt.layout import Layout
    from pah_opt.splits import Split


class HiddenSplit:
    """A split whose ``pixel_values`` are hidden states, ``(batch, tokens, hidden_size)``, one view of each image.

    Args:
        states: ``(views, images, tokens, hidden_size)``, in memory or mapped from a file.
        source: the images they were computed from.
        fingerprint: of the images and of what computed the states.
        view: which view this is.
        rows: which images.
        labels: of all images of the source; read from it by default, which takes a pass over a split without any.
    """

    def __init__(
        self, states: NDArray[Any], source: Split, fingerprint: str, *, view: int = 0, rows: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> None:  # fmt: skip
        self.name = f"{source.name} (hidden states)"
        self.class_names = source.class_names
        self.fingerprint = fingerprint
        self._states, self._source, self._view = states, source, view
        self._rows = torch.arange(len(source), device="cpu") if rows is None else rows
        self._all_labels = labels_of(source) if labels is None else labels
        self.labels = self._all_labels[self._rows]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._rows)

    def at_epoch(self, epoch: int) -> HiddenSplit:
        """Return the view of each image that an epoch sees."""
        return self._part(epoch % len(self._states), self._rows)

    def batches(self, batch_size: int, *, shuffle_seed: int | None = None) -> Iterator[Batch]:
        """Yield every image's hidden states once, float32, in order or shuffled."""
        for places in batch_rows(len(self), batch_size, shuffle_seed):
            states = torch.from_numpy(np.ascontiguousarray(self._states[self._view, self._rows[places].numpy()]))
            yield Batch(states.float(), self.labels[places])

    def subset(self, indices: Sequence[int]) -> HiddenSplit:
        """Return the images at ``indices``, in that order."""
        rows = self._rows[torch.as_tensor(list(indices), dtype=torch.int64, device="cpu")]
        return self._part(self._view, rows)

    def _part(self, view: int, rows: Tensor) -> HiddenSplit:
        return HiddenSplit(
            self._states, self._source, self.fingerprint, view=view, rows=rows, labels=self._all_labels
        )  # fmt: skip

    def resized(self, height: int, width: int) -> HiddenSplit:
        """Refuse: hidden states belong to one input size.

        Raises:
            DataError: always.
        """
        raise DataError(f"{self.name} cannot be resized to {height} by {width}; compute them again at that size")


class StopForwardError(Exception):
    """Ends a forward pass at a block; :func:`inputs_of` catches it."""


@torch.no_grad()
def inputs_of(block: nn.Module, model: nn.Module, pixels: Tensor) -> Tensor:
    """Run ``model`` up to a block, and return what goes into it, ``(batch, tokens, hidden_size)``.

    Raises:
        UnsupportedModelError: the block did not run.
    """
    caught: list[Tensor] = []

    def stop(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        caught.append((args[0] if args else kwargs["hidden_states"]).detach())
        raise StopForwardError

    handle = block.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        model(pixels)
    except StopForwardError:
        return caught[0]
    finally:
        handle.remove()
    raise UnsupportedModelError(f"a {type(block).__name__} that should hold hidden states did not run")


@contextmanager
def starting_at(model: nn.Module, layout: Layout, first: int) -> Iterator[None]:
    """Let ``model(hidden)`` run from block ``first`` on, until the block ends.

    The lower blocks still run, on one blank image whose hidden states are then replaced: that costs next to nothing,
    and holds for every implementation, whatever it does before and after its blocks.
    """
    block = model.get_submodule(layout.blocks[first].path)
    forward, own = model.forward, vars(model).get("forward")
    given: list[Tensor] = []

    def replace(
        _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (given.pop(), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": given.pop()}

    def from_hidden(hidden: Tensor) -> Any:
        given[:] = [hidden]
        return forward(hidden.new_zeros(1, layout.in_channels, *layout.image_size))

    handle = block.register_forward_pre_hook(replace, with_kwargs=True)
    model.forward = from_hidden
    try:
        yield
    finally:
        handle.remove()
        del model.forward
        if own is not None:
            model.forward = own
