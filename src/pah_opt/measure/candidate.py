"""A model that is about to be measured: where it is, what it takes, how a forward pass of it is run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pah_opt.errors import MeasurementError, PahOptError, UnsupportedModelError
from pah_opt.measure.shadow import input_dtype, uncompiled
from pah_opt.measure.tensors import held_tensors
from pah_opt.measure.trouble import is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pah_opt.layout import Layout, ModelAdapter
    from pah_opt.measure.timer import Call
    from pah_opt.splits import Split


@dataclass
class Candidate:
    """One model of a comparison.

    Args:
        id: its name in the report.
        model: an ordinary module.
        adapter: knows the model's family.
        input_shape: ``(channels, height, width)``.
        layout: where its parts are; None where they can no longer be found.
        artifact: what was handed in, when it was not a bare module; its record goes into the report.
    """

    id: str
    model: nn.Module
    adapter: ModelAdapter
    input_shape: tuple[int, int, int]
    layout: Layout | None = None
    artifact: Any = None
    device: torch.device = field(init=False)
    dtype: torch.dtype = field(init=False)

    def __post_init__(self) -> None:
        """Look where the model is and what it computes in."""
        self.device = next((tensor.device for tensor in held_tensors(self.model)), torch.device("cpu"))
        self.dtype = input_dtype(self.model)
        if self.device.type == "meta":
            raise MeasurementError(f"{self.id} is on the meta device and holds no values; load its weights first")

    @classmethod
    def of(cls, name: str, model: Any, adapters: Sequence[ModelAdapter], split: Split | None = None) -> Candidate:
        """Take a module, or anything with a ``model`` (an Artifact).

        Raises:
            MeasurementError: it is neither, or its input shape cannot be found.
            UnsupportedModelError: no adapter knows it.
        """
        from pah_opt.models import find_adapter

        module = model if isinstance(model, nn.Module) else getattr(model, "model", None)
        if not isinstance(module, nn.Module):
            raise MeasurementError(f"{name} is a {type(model).__name__}; give a torch.nn.Module or an Artifact")
        bare = uncompiled(module)
        adapter = _named(getattr(model, "adapter", None), adapters) or find_adapter(bare, adapters)
        layout = _layout(bare, adapter)
        shape = _input_shape(name, layout, split)
        return cls(name, module, adapter, shape, layout, None if model is module else model)

    def pixels(self, batch_size: int, seed: int = 0) -> Tensor:
        """Make a batch of random images, ``(batch, channels, height, width)``, on the model's device."""
        generator = torch.Generator().manual_seed(seed)
        values = torch.randn((batch_size, *self.input_shape), generator=generator, device="cpu")
        return values.to(self.device, self.dtype)

    def call(self, batch_size: int, seed: int = 0) -> Call:
        """Make a function that runs one forward pass on images that are on the device already."""
        pixels = self.pixels(batch_size, seed)
        model = self.model

        def forward() -> object:
            with torch.inference_mode():
                return model(pixels)

        return forward

    def check(self, batch_size: int) -> None:
        """Run one forward pass and look at its logits.

        Raises:
            MeasurementError: it fails, or there are no finite logits.
        """
        try:
            with torch.inference_mode():
                logits = self.adapter.logits(self.model(self.pixels(batch_size)))
        except PahOptError:
            raise
        except Exception as error:  # a forward pass of foreign modules may raise anything
            if is_out_of_memory(error):
                raise
            raise MeasurementError(
                f"the forward pass of {self.id} failed on random images of shape {(batch_size, *self.input_shape)}: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not torch.isfinite(logits).all():
            raise MeasurementError(
                f"the logits of {self.id} hold NaN or infinity; check the weights and the input type (fp16 overflows "
                "where bf16 does not)"
            )


def _named(name: object, adapters: Sequence[ModelAdapter]) -> ModelAdapter | None:
    return next((adapter for adapter in adapters if adapter.name == name), None)


def _layout(model: nn.Module, adapter: ModelAdapter) -> Layout | None:
    try:
        return adapter.layout(model)
    except UnsupportedModelError:
        return None  # an engine that runs the whole graph has no blocks any more


def _input_shape(name: str, layout: Layout | None, split: Split | None) -> tuple[int, int, int]:
    if layout is not None:
        return layout.in_channels, *layout.image_size
    if split is not None:
        channels, height, width = next(iter(split.batches(1))).pixel_values.shape[1:]
        return channels, height, width
    raise MeasurementError(f"the input shape of {name} cannot be read from the model; pass data")


def candidates_of(
    models: Mapping[str, Any], adapters: Sequence[ModelAdapter], split: Split | None = None
) -> dict[str, Candidate]:
    """Take models by name.

    Raises:
        MeasurementError: there are none, one cannot be measured, or they are on different devices.
    """
    if not models:
        raise MeasurementError("there are no models to measure; give at least one")
    found = {name: Candidate.of(name, model, adapters, split) for name, model in models.items()}
    devices = {str(candidate.device): name for name, candidate in found.items()}
    if len(devices) > 1:
        places = ", ".join(f"{name} on {device}" for device, name in devices.items())
        raise MeasurementError(f"models are on different devices ({places}); move them to one: a comparison needs it")
    return found


def class_names_of(models: Mapping[str, Any], adapters: Sequence[ModelAdapter]) -> tuple[str, ...] | None:
    """Return the classes of the first model's head, for data that does not name its own; None when it has none."""
    from pah_opt.models import find_adapter

    model = next(iter(models.values()))
    if names := getattr(model, "class_names", ()):
        return tuple(names)
    module = model if isinstance(model, nn.Module) else getattr(model, "model", None)
    if not isinstance(module, nn.Module):
        return None
    layout = _layout(uncompiled(module), find_adapter(uncompiled(module), adapters))
    return tuple(map(str, range(layout.num_classes))) if layout is not None and layout.num_classes else None
