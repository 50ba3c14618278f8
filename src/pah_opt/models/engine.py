"""A model whose forward pass runs in another engine, and which otherwise stays what it is.

The modules and weights stay in their places, so that layouts, figures and saving work as before; only *calling* the
model runs the engine. torch keeps what calling runs apart from the module (as ``module.compile()`` uses it), and a copy
of the model leaves it out: a copy runs in torch again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pah_opt.errors import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from pah_opt.layout import ModelAdapter

    Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]

GRAPH = "engine_graph"
"""Buffer that holds an engine's own file where it cannot be made again from the weights; saved like any tensor."""
_PIXELS = ("pixel_values", "x", "input")


class EngineCall:
    """What calling a model runs once an engine has taken over.

    Args:
        engine: its name, for messages.
        run: from float32 pixels ``(batch, channels, height, width)`` to logits ``(batch, classes)``.
        mapping: answer with an object with ``.logits``, as models of transformers do; else with the tensor alone.
    """

    def __init__(self, engine: str, run: Run, *, mapping: bool) -> None:
        self.engine = engine
        self.run = run
        self.mapping = mapping

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the logits of pixels, which come first or by their name.

        Raises:
            UnsupportedModelError: something else is asked for, which the engine's graph does not have.
        """
        pixels = self._pixels(args, kwargs)
        with torch.no_grad():
            logits = torch.from_numpy(self.run(pixels.detach().cpu().float().contiguous().numpy()))
        if not self.mapping:
            return logits
        from transformers.modeling_outputs import ImageClassifierOutput

        return ImageClassifierOutput(logits=logits)

    def _pixels(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        given = {**dict(zip(_PIXELS, args, strict=False)), **{name: v for name, v in kwargs.items() if v is not None}}
        pixels = [given.pop(name) for name in _PIXELS if name in given]
        if given or len(pixels) != 1 or not isinstance(pixels[0], Tensor):
            raise UnsupportedModelError(
                f"a model that runs in {self.engine} takes pixel_values and returns logits, nothing else; got "
                f"{', '.join([*map(str, given)]) or f'{len(pixels)} inputs'}; copy.deepcopy(model) runs in torch again"
            )
        return pixels[0]


def take_over(model: nn.Module, engine: str, run: Run, *, mapping: bool) -> nn.Module:
    """Have calling ``model`` run an engine, in place.

    Args:
        model: keeps its modules and weights.
        engine: name of the engine.
        run: from float32 pixels to float32 logits.
        mapping: see :class:`EngineCall`.
    """
    model._compiled_call_impl = EngineCall(engine, run, mapping=mapping)  # noqa: SLF001  # what module.compile() sets
    return model


def engine_call(model: nn.Module) -> EngineCall | None:
    """Return what calling a model runs, where that is an engine."""
    call = getattr(model, "_compiled_call_impl", None)
    return call if isinstance(call, EngineCall) else None


def answers_with_mapping(model: nn.Module, adapter: ModelAdapter) -> bool:
    """Tell whether a model answers with an object that has ``.logits``, by running it once on zeros."""
    layout = adapter.layout(model)
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    with torch.inference_mode():
        return not isinstance(model(torch.zeros(1, layout.in_channels, *layout.image_size, device=device)), Tensor)


def engine_state(model: nn.Module, threads: int | None) -> dict[str, Any]:
    """Return, as JSON data, what a loaded model needs to run in its engine again.

    Args:
        model: that runs in an engine, or does not yet.
        threads: that the engine may use; None for its own choice.
    """
    call = engine_call(model)
    return {"threads": threads, "mapping": call is not None and call.mapping}


def keep_graph(model: nn.Module, data: bytes) -> None:
    """Keep an engine's file with the model, as a buffer of bytes that is saved with the weights."""
    held = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    model.register_buffer(GRAPH, held.to(next(model.parameters()).device))


def expect_graph(model: nn.Module, size: int) -> None:
    """Make room for that file in a rebuilt model, before its tensors are loaded.

    Args:
        model: still empty.
        size: of the file, in bytes.
    """
    model.register_buffer(GRAPH, torch.empty(size, dtype=torch.uint8))


def kept_graph(model: nn.Module) -> bytes:
    """Return the file that :func:`keep_graph` kept, or that was loaded.

    Raises:
        UnsupportedModelError: there is none.
    """
    held = getattr(model, GRAPH, None)
    if not isinstance(held, Tensor):
        raise UnsupportedModelError(f"{type(model).__name__} holds no graph of an engine; run the recipe again")
    return held.cpu().numpy().tobytes()
