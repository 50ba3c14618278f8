"""Cut coupled layers with torch-pruning's dependency graph, checked against what the Layout says.

The graph finds every layer that depends on a width, those that no Layout names included (a norm inside a feed-forward
network). It is traced from autograd, and some operations confuse it; so a group of layers is cut only after it was
compared with what the Layout knows must be cut. Where they disagree nothing is touched, and the caller falls back on
:mod:`pah_opt.models.narrowing`.

References:
    Fang et al., DepGraph: towards any structural pruning (arXiv 2301.12900).
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pah_opt.errors import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from pah_opt.layout import Attention, Layout, Mlp, ModelAdapter

Cuts = dict[str, tuple[str, tuple[int, ...]]]
"""Layer path to the side that is cut (``out`` or ``in``) and the indices that go."""


class PruningGraph:
    """torch-pruning's dependency graph of one model.

    Args:
        model: in ``eval`` mode; any device, ``meta`` too.
        adapter: takes the logits out of the model's output.
        layout: of ``model``.
        unwrapped: parameters outside layers, with the dimension that embedding channels run along.
    """

    def __init__(
        self,
        model: nn.Module,
        adapter: ModelAdapter,
        layout: Layout,
        unwrapped: Sequence[tuple[nn.Parameter, int]] = (),
    ) -> None:
        import torch_pruning

        self.model = model
        self.layout = layout
        self._paths = {module: path for path, module in model.named_modules()}
        like = next(model.parameters())
        # A tuple: given a bare tensor, torch-pruning first calls the model with its rows and swallows the error.
        example = (torch.zeros(1, layout.in_channels, *layout.image_size, dtype=like.dtype, device=like.device),)
        with _differentiable(model), _quiet():
            self._graph = torch_pruning.DependencyGraph().build_dependency(
                model, example, output_transform=adapter.logits, unwrapped_parameters=list(unwrapped), verbose=False
            )

    def group(self, path: str, side: str, indices: Sequence[int]) -> Any:
        """Return torch-pruning's group for cutting ``indices`` of one side of a layer."""
        module = self.model.get_submodule(path)
        pruner = self._graph.get_pruner_of_module(module)
        function = pruner.prune_out_channels if side == "out" else pruner.prune_in_channels
        with _quiet():
            return self._graph.get_pruning_group(module, function, list(indices))

    def cuts(self, group: Any) -> Cuts:
        """Return what a group would cut, for the layers that are modules of the model."""
        found: Cuts = {}
        for dependency, indices in group:
            path = self._paths.get(dependency.target.module)
            if path is not None:
                side = "out" if self._graph.is_out_channel_pruning_fn(dependency.handler) else "in"
                found[path] = (side, tuple(sorted(indices)))
        return found

    def cut(self, path: str, expected: Cuts) -> bool:
        """Cut the group of one layer if it is what the Layout expects; otherwise leave everything as it is.

        Args:
            path: the layer in ``expected`` to start from.
            expected: what must be cut; other layers of the same block may depend on it and are cut too.

        Returns:
            Whether it was cut.
        """
        side, indices = expected[path]
        try:
            group = self.group(path, side, indices)
        except ValueError:  # the layer was replaced after the graph was traced
            return False
        found = self.cuts(group)
        if not _agrees(found, expected, self._block_of(path)):
            return False
        with _kept_flags(self.model), _quiet():
            group.prune(record_history=False)
        return True

    def cut_stream(
        self, root: str, removed: Sequence[int], expected: Mapping[str, str], own: Collection[str]
    ) -> set[str]:
        """Cut channels of the embedding from every layer that the graph finds, except some.

        Args:
            root: the patch projection.
            removed: channels that go.
            expected: layers that must be found, with their side.
            own: layers that the caller cuts itself.

        Returns:
            The paths of all layers that the graph found.

        Raises:
            UnsupportedModelError: an expected layer was not found.
        """
        group = self.group(root, "out", removed)
        found = {path: side for path, (side, _) in self.cuts(group).items()}
        for path, side in expected.items():
            if found.get(path) != side:
                raise UnsupportedModelError(
                    f"torch-pruning's graph does not see that {path} depends on the embedding, so its width cannot be "
                    "cut; use structured-pruning or depth-pruning instead"
                )
        for position in range(len(group)):
            dependency = group[position].dep
            if self._paths.get(dependency.target.module) in own:
                group[position] = (dependency, [])
        with _kept_flags(self.model), _quiet():
            group.prune(record_history=False)
        return set(found)

    def _block_of(self, path: str) -> str:
        return next((block.path for block in self.layout.blocks if path.startswith(f"{block.path}.")), path)


def head_cuts(attention: Attention, removed: Sequence[int]) -> Cuts:
    """Return what removing heads cuts."""
    rows = [head * attention.head_dim + i for head in sorted(removed) for i in range(attention.head_dim)]
    values = [head * attention.value_dim + i for head in sorted(removed) for i in range(attention.value_dim)]
    cuts: Cuts = {attention.output: ("in", tuple(values))}
    if attention.fused:
        width = attention.num_heads * attention.head_dim
        joined = (*rows, *(width + row for row in rows), *(2 * width + row for row in values))
        return cuts | {attention.query: ("out", joined)}
    pairs = ((attention.query, rows), (attention.key, rows), (attention.value, values))
    return cuts | {path: ("out", tuple(kept)) for path, kept in pairs}


def unit_cuts(mlp: Mlp, removed: Sequence[int]) -> Cuts:
    """Return what removing hidden units cuts."""
    indices = tuple(sorted(removed))
    cuts: Cuts = {mlp.fc2: ("in", indices), mlp.fc1: ("out", indices)}
    return cuts if mlp.gate is None else cuts | {mlp.gate: ("out", indices)}


def traced(model: nn.Module, adapter: ModelAdapter, layout: Layout) -> tuple[PruningGraph | None, str]:
    """Trace a model, or say why torch-pruning cannot."""
    try:
        return PruningGraph(model, adapter, layout), "torch-pruning's dependency graph"
    except Exception as error:  # noqa: BLE001  # tracing runs foreign forward code; the layout can do without it
        return None, f"the layout alone (torch-pruning cannot trace the model: {type(error).__name__}: {error})"


def _agrees(found: Cuts, expected: Mapping[str, object], block: str) -> bool:
    complete = all(found.get(path) == cut for path, cut in expected.items())
    return complete and all(path.startswith(f"{block}.") for path in found)


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # torch-pruning warns of every parameter outside a layer; none of them depends on the width of a head or unit.
        warnings.filterwarnings("ignore", message="Unwrapped parameters detected")
        # Of a model whose sizes it cannot follow (tokens merged on the way) it says so before it raises; that is told.
        warnings.filterwarnings("ignore", message="Maximum recursive depth reached")
        yield


@contextmanager
def _differentiable(model: nn.Module) -> Iterator[None]:
    """Let every parameter take part in autograd, from which the graph is traced; frozen ones are frozen again."""
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        with torch.enable_grad():
            yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


@contextmanager
def _kept_flags(model: nn.Module) -> Iterator[None]:
    """Keep ``requires_grad``: torch-pruning makes new parameters, which always want gradients."""
    wanted = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    yield
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(wanted[name])


def as_indices(kept: Tensor, width: int) -> list[int]:
    """Return the indices below ``width`` that are not in ``kept``, ascending."""
    return sorted(set(range(width)) - set(kept.tolist()))
