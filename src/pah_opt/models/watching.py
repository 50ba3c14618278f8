"""See what goes into modules and what comes out of them, without leaving a hook or a gradient behind."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor, nn


@contextmanager
def watching_inputs(modules: Mapping[str, nn.Module], see: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Call ``see(path, input)`` whenever one of ``modules`` runs, until the ``with`` block ends."""

    def hook_for(path: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _module, args: see(path, args[0])

    handles = [module.register_forward_pre_hook(hook_for(path)) for path, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def watching_outputs(modules: Mapping[str, nn.Module], see: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Call ``see(path, output)`` whenever one of ``modules`` has run, until the ``with`` block ends.

    Of an output that is a tuple, the first part is seen.
    """

    def hook_for(path: str) -> Callable[[nn.Module, tuple[Tensor, ...], Any], None]:
        return lambda _module, _args, output: see(path, first_output(output))

    handles = [module.register_forward_hook(hook_for(path)) for path, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def frozen_parameters(model: nn.Module) -> Iterator[None]:
    """Let no parameter ask for a gradient until the ``with`` block ends: only those of activations are wanted."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def first_output(output: Any) -> Tensor:
    """Return what a module gave, or the first part of it where it gave a tuple."""
    result: Tensor = output[0] if isinstance(output, tuple) else output
    return result
