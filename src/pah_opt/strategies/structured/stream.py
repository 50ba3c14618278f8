"""What runs along the embedding: the layers that write the residual stream or read it, norms, tokens, positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from pah_opt.layout import Layout


def stream_layers(layout: Layout) -> dict[str, str]:
    """Return the layers that write the embedding (``out``) or read it (``in``), except norms and classifiers."""
    sides = {layout.patch_embedding: "out"}
    for block in layout.blocks:
        attention, mlp = block.attention, block.mlp
        readers = (attention.query, attention.key, attention.value, mlp.fc1, mlp.gate)
        sides |= {path: "in" for path in readers if path is not None}
        sides |= {attention.output: "out", mlp.fc2: "out"}
    return sides


def loose_parameters(model: nn.Module, hidden: int) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield parameters outside layers that run along the embedding: tokens, positions, LayerScale."""
    inside = (nn.Linear, nn.Conv2d, nn.LayerNorm)
    owned = {id(p) for m in model.modules() if isinstance(m, inside) for p in m.parameters(recurse=False)}
    for name, parameter in model.named_parameters():
        if id(parameter) not in owned and parameter.shape[-1:] == (hidden,):
            yield name, parameter


def along_embedding(model: nn.Module, layout: Layout) -> Iterator[Tensor]:
    """Yield every parameter that gets shorter when the embedding does, in proportion."""
    hidden = layout.hidden_size
    for path, side in stream_layers(layout).items():
        layer = model.get_submodule(path)
        yield layer.get_parameter("weight")
        if side == "out" and getattr(layer, "bias", None) is not None:
            yield layer.get_parameter("bias")
    for module in model.modules():
        if isinstance(module, nn.LayerNorm) and module.normalized_shape == (hidden,):
            yield from module.parameters(recurse=False)
    for path in layout.classifiers:
        yield model.get_submodule(path).get_parameter("weight")
    for _, parameter in loose_parameters(model, hidden):
        yield parameter
