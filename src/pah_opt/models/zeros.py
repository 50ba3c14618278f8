"""Keep pruned weights at zero while a model is trained further."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from pah_opt.errors import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from torch.utils.hooks import RemovableHandle
    from typing_extensions import Self

SPARSE_SHARE = 0.01
"""From this share of exact zeros on, a model of unknown origin counts as pruned: training alone leaves next to none."""


def zero_share(weight: Tensor) -> float:
    """Return the share of exact zeros in a tensor, 0 to 1 (0 for an empty one)."""
    return 1.0 - int(torch.count_nonzero(weight)) / weight.numel() if weight.numel() else 0.0


def sparse_linears(model: nn.Module) -> list[str]:
    """Return the paths of linear layers that hold zeros on purpose, in order.

    A layer of nothing but zeros was initialised so (a new classifier, a LoRA branch) and is left out.
    """
    linears = ((path, module) for path, module in model.named_modules() if isinstance(module, nn.Linear))
    return [path for path, module in linears if SPARSE_SHARE <= zero_share(module.weight.detach()) < 1.0]


def zeroed_linears(model: nn.Module, inside: Iterable[str] = ()) -> list[str]:
    """Return the paths of linear layers that hold any exact zero, in order.

    However few there are, they may be there on purpose, and to hold a chance one or two costs nothing. A layer of
    nothing but zeros was initialised so, and is left out, unless it lies inside the modules named.

    Args:
        model: any model.
        inside: modules, such as the blocks of a trained model, in which only pruning leaves a whole layer of zeros.
    """
    trained = tuple(f"{path}." for path in inside)
    linears = ((path, module) for path, module in model.named_modules() if isinstance(module, nn.Linear))
    shares = {path: zero_share(module.weight.detach()) for path, module in linears}
    return [path for path, share in shares.items() if share > 0.0 and (share < 1.0 or path.startswith(trained))]


class ZeroKeeper:
    """Sets weights that are zero now back to zero after every optimizer step, until the ``with`` block ends.

    Any ``torch.optim.Optimizer`` made before or inside the block is covered, wrapped (accelerate, a gradient scaler)
    or not. Weights may move to another device meanwhile. Nothing stays behind on the model or on the optimizer.

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.0, 1.0]]))
    >>> optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    >>> with ZeroKeeper(layer, [""]):
    ...     layer(torch.ones(1, 2)).sum().backward()
    ...     optimizer.step()
    >>> layer.weight.tolist()
    [[0.0, 0.0]]

    Args:
        model: the model that is trained.
        paths: linear layers whose zeros are kept; by default :func:`zeroed_linears`.

    Raises:
        UnsupportedModelError: a path has no weight tensor (on entering the block).

    Attributes:
        paths: the layers that are kept, in order; empty when the model is dense, and then nothing is done.
    """

    def __init__(self, model: nn.Module, paths: Iterable[str] | None = None) -> None:
        self.paths = tuple(zeroed_linears(model) if paths is None else paths)
        self._model = model
        self._zeros: dict[str, Tensor] = {}
        self._handle: RemovableHandle | None = None

    def __enter__(self) -> Self:
        """Remember where the zeros are and start keeping them."""
        self._zeros = {path: self._weight(path).detach() == 0 for path in self.paths}
        if self._zeros:
            self._handle = register_optimizer_step_post_hook(self._after_step)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, and forget the zeros."""
        if self._handle is not None:
            self._handle.remove()
        self._handle = None
        self._zeros = {}

    @torch.no_grad()
    def restore(self) -> None:
        """Set the remembered weights to zero now."""
        for path, zeros in self._zeros.items():
            weight = self._weight(path)
            if zeros.device != weight.device:
                zeros = self._zeros[path] = zeros.to(weight.device)  # noqa: PLW2901  # moved once, with its weight
            weight.detach().masked_fill_(zeros, 0)

    def _after_step(self, _optimizer: torch.optim.Optimizer, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
        self.restore()

    def _weight(self, path: str) -> Tensor:
        weight = self._model.get_submodule(path).weight
        if not isinstance(weight, Tensor):
            raise UnsupportedModelError(
                f"{path}.weight is a {type(weight).__name__}, not a tensor; name linear layers only"
            )
        return weight
