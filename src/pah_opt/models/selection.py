"""Choose linear layers by name: glob patterns over module paths, or the names of the usual groups.

A pattern is matched against the whole path, as :func:`fnmatch.fnmatchcase` does (``*.fc1``,
``vit.layers.[0-3].*``). These names stand for groups of layers in every architecture:

==================== ==========================================================
``attention``        query, key, value and output projections
``qkv``              query, key and value projections
``attention-output`` output projections
``mlp``              feed-forward layers, the gate of SwiGLU networks included
``classifier``       the layers that give logits
==================== ==========================================================
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pah_opt.layout import Block, Layout

GROUPS = ("attention", "qkv", "attention-output", "mlp", "classifier")
"""Names that stand for groups of layers."""


def groups(layout: Layout) -> dict[str, frozenset[str]]:
    """Return the module paths of each group in :data:`GROUPS`."""
    attentions = [block.attention for block in layout.blocks]
    qkv = frozenset(path for a in attentions for path in (a.query, a.key, a.value))
    output = frozenset(a.output for a in attentions)
    members = (qkv | output, qkv, output, frozenset(layout.mlp_layers), frozenset(layout.classifiers))
    return dict(zip(GROUPS, members, strict=True))


def by_role(layout: Layout, paths: Iterable[str]) -> list[list[str]]:
    """Group layers that do the same in every block, each group in the order given.

    The roles are: query, key and value together, attention output, first feed-forward layer, its gate, second
    feed-forward layer, classifiers. A layer without one of them is alone.
    """
    roles: dict[str, str] = dict.fromkeys(layout.classifiers, "classifier")
    for block in layout.blocks:
        attention, mlp = block.attention, block.mlp
        roles |= dict.fromkeys((attention.query, attention.key, attention.value), "qkv")
        roles |= {attention.output: "attention-output", mlp.fc1: "fc1", mlp.fc2: "fc2"}
        roles |= {} if mlp.gate is None else {mlp.gate: "gate"}
    grouped: dict[str, list[str]] = {}
    for path in paths:
        grouped.setdefault(roles.get(path, path), []).append(path)
    return list(grouped.values())


def all_linears(model: nn.Module, layout: Layout) -> dict[str, nn.Linear]:
    """Return every linear layer inside the blocks, then the classifiers, by path, in the order of the model."""
    within = tuple(f"{block.path}." for block in layout.blocks)
    found = {p: m for p, m in model.named_modules() if isinstance(m, nn.Linear) and p.startswith(within)}
    heads = {path: model.get_submodule(path) for path in layout.classifiers}
    return found | {path: head for path, head in heads.items() if isinstance(head, nn.Linear)}


def select_linears(
    model: nn.Module, layout: Layout, *, include: Sequence[str] = ("*",), skip: Sequence[str] = ()
) -> dict[str, nn.Linear]:
    """Choose among the linear layers inside the blocks and the classifiers.

    Patch embeddings, norms and poolers are never chosen. Strategies skip ``classifier`` by default: it is small, and
    accuracy depends on it more than on any other layer.

    Args:
        model: the model.
        layout: of ``model``.
        include: patterns or group names; a layer that matches any of them is chosen.
        skip: patterns or group names; a layer that matches any of them is left out, whatever ``include`` says.

    Returns:
        The chosen layers by path, in the order of the model; empty when nothing matches
        (:func:`unmatched_patterns` says which pattern is to blame).
    """
    linears = all_linears(model, layout)
    wanted, unwanted = _matches(linears, layout, include), _matches(linears, layout, skip)
    return {path: module for path, module in linears.items() if path in wanted - unwanted}


def unmatched_patterns(model: nn.Module, layout: Layout, patterns: Iterable[str]) -> list[str]:
    """Return the patterns that match no linear layer of ``model``, in the order given.

    A group name is never reported: ``classifier`` is a sound thing to skip in a bare backbone too.
    """
    linears = all_linears(model, layout)
    return [p for p in patterns if p not in GROUPS and not _matches(linears, layout, (p,))]


def _matches(linears: Mapping[str, nn.Linear], layout: Layout, patterns: Sequence[str]) -> frozenset[str]:
    members = groups(layout)
    named = frozenset().union(*(members[p] for p in patterns if p in members))
    globs = [p for p in patterns if p not in members]
    return frozenset(path for path in linears if path in named or any(fnmatchcase(path, glob) for glob in globs))


def inputs_shared(block: Block, paths: Iterable[str]) -> dict[str, list[str]]:
    """Group a block's layers by the input they share: the first path of each group, and all of them.

    Query, key and value read the same tokens, and so do a gate and its partner: they are observed once.
    """
    attention, mlp = block.attention, block.mlp
    leaders = {attention.key: attention.query, attention.value: attention.query, mlp.gate: mlp.fc1}
    grouped: dict[str, list[str]] = {}
    for path in paths:
        grouped.setdefault(leaders.get(path, path), []).append(path)
    return {members[0]: members for members in grouped.values()}
