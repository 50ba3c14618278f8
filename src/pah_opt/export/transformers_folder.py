"""A plain transformers checkpoint: what was done is in shapes and values, and this library is not needed to load it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from pah_opt.errors import Problem
from pah_opt.models.adapters.huggingface import UNEVEN
from pah_opt.models.disk import os_errors
from pah_opt.models.quiet import quiet_transformers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pah_opt.export.subject import Subject

KEEP_IT = "load the artifact with pah_opt.load, or export it to onnx"
_SIZES = {"num_heads": "heads", "head_dim": "wide heads", "value_dim": "wide value heads", "mlp_width": "MLP units"}


def shape_problems(subject: Subject) -> list[Problem]:
    """Return why transformers' own classes cannot be constructed in the shapes of a model."""
    import transformers

    model: Any = subject.model
    kind = type(model)
    if getattr(transformers, kind.__name__, None) is not kind:
        return [Problem(f"{kind.__module__}.{kind.__name__} is no class of transformers", remedy=KEEP_IT)]
    blocks = getattr(model.config, UNEVEN, None)
    if blocks is None:
        return []
    paths = [block.path for block in subject.layout.blocks]
    return [Problem(f"a config of transformers cannot describe {why}", remedy=KEEP_IT) for why in _odd(blocks, paths)]


def _odd(blocks: Sequence[Mapping[str, Any]], paths: Sequence[str]) -> Iterator[str]:
    """Yield the first thing that a config cannot say: one sentence, naming the block."""
    first = blocks[0]
    for block, path in zip(blocks, paths, strict=True):
        if block["attention"] != "native":
            yield f"{path}, whose attention is {block['attention']} (leave out the step that made it so)"
            return
        differing = next((name for name in _SIZES if block[name] != first[name]), None)
        if differing is not None:
            what = _SIZES[differing]
            yield f"{path} with {block[differing]} {what} beside {paths[0]} with {first[differing]} (prune evenly)"
            return
    sizes = ", ".join(f"{first[name]} {what}" for name, what in _SIZES.items())
    yield f"{paths[0]}, which has {sizes}"


def write(subject: Subject, folder: Path) -> dict[str, Any]:
    """Write configuration and weights, class names among them."""
    model: Any = subject.private_copy()
    names = dict(enumerate(subject.labels))
    model.config.id2label, model.config.label2id = names, {name: number for number, name in names.items()}
    with quiet_transformers(), os_errors():
        model.save_pretrained(folder)
    return {"operators": {}}


def runner(folder: Path) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return a function from pixels to logits that a freshly loaded transformers model computes."""
    from transformers import AutoModelForImageClassification

    with quiet_transformers():
        model: Any = AutoModelForImageClassification.from_pretrained(folder).eval()

    def run(pixels: NDArray[Any]) -> NDArray[Any]:
        with torch.no_grad():
            logits: NDArray[Any] = model(torch.from_numpy(pixels).to(model.dtype)).logits.float().numpy()
        return logits

    return run
