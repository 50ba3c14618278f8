"""Load an image classifier with the processor that belongs to it, and say plainly what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from pah_opt.errors import UnsupportedHardwareError, UnsupportedModelError, nearest_name
from pah_opt.models.known import CLASSES, KNOWN, Published
from pah_opt.models.quiet import quiet_transformers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pah_opt.layout import ModelAdapter

Weights = Literal["pretrained", "random"]


@dataclass(frozen=True)
class LoadedModel:
    """A model, its processor, and what is known about both.

    Args:
        model: a classifier in ``eval`` mode.
        processor: the model's own image processor (its PIL implementation); None when there is none.
        weights_origin: ``pretrained`` or ``random``; accuracy of random weights means nothing.
        source: the hub id or folder it was loaded from.
        revision: commit of the hub repository, None for a folder or random weights.
        notes: what a user must know, such as a classifier that is newly initialised.
    """

    model: nn.Module
    processor: Any
    weights_origin: Weights
    source: str
    revision: str | None = None
    notes: tuple[str, ...] = ()


def load_model(
    source: str | Path,
    *,
    weights: Weights = "pretrained",
    num_labels: int | None = None,
    dtype: str | torch.dtype = "float32",
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> LoadedModel:
    """Load an image classifier and its processor.

    Weights are read from safetensors only, and no code from a repository is ever run.

    Args:
        source: a hub id such as ``google/vit-base-patch16-224``, or a local folder with ``config.json``.
        weights: ``pretrained``, or ``random`` for the architecture alone: seeded, offline for folders and for the
            checkpoints in :data:`pah_opt.models.known.KNOWN`. Good for speed and size, meaningless for accuracy.
        num_labels: classes that the model shall have; a classifier of another width is newly initialised.
        dtype: floating-point type of the parameters, such as ``bfloat16``.
        device: where the model shall be.
        seed: of random weights and of a newly initialised classifier.

    Returns:
        The model in ``eval`` mode, its processor, where both come from, and notes.

    Raises:
        UnsupportedModelError: there is no such model, it cannot be reached, or it is no image classifier; says what
            to do.
        UnsupportedHardwareError: there is no such device here.
    """
    if weights not in ("pretrained", "random"):
        raise UnsupportedModelError(f"weights is {weights!r}; allowed: pretrained, random")
    place = str(source)
    kind, problem = _dtype(dtype), _place_problem(place)
    if problem:
        raise UnsupportedModelError(problem)
    with quiet_transformers(), torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU too
        load = _pretrained if weights == "pretrained" else _random
        model, revision, notes = load(place, num_labels)
        processor, processor_notes = _processor(place, weights)
    model = _placed(model, device, kind).eval()
    notes += processor_notes + _match_input_size(model, processor)
    return LoadedModel(model, processor, weights, place, revision, tuple(notes))


def _place_problem(place: str) -> str | None:
    """Return why a path cannot be loaded; None for a good folder, and for what may be a hub id."""
    path = Path(place)
    if path.is_file():
        return f"{place} is a file; give the folder of a model (config.json and model.safetensors), or a hub id"
    if path.is_dir() and Path(path, "artifact.json").is_file():
        return f"{place} holds an artifact of this library; load it with pah_opt.load({place!r})"
    if path.is_dir() and not Path(path, "config.json").is_file():
        return f"the folder {place} has no config.json; give the folder of a transformers model, or a hub id"
    if not path.exists() and (path.is_absolute() or place.startswith((".", "~"))):
        return f"there is no folder {place}; give the folder of a transformers model, or a hub id"
    return None


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise UnsupportedModelError(f"dtype is {dtype!r}; allowed: float32, bfloat16, float16, float64")
    return found


def _placed(model: nn.Module, device: str | torch.device, dtype: torch.dtype) -> nn.Module:
    try:
        return model.to(device=device, dtype=dtype)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for the device
        first = str(error).partition("\n")[0]
        raise UnsupportedHardwareError(f"the model cannot be moved to {device}: {first}; use device='cpu'") from error


Loaded = tuple[nn.Module, "str | None", list[str]]


def _pretrained(place: str, num_labels: int | None) -> Loaded:
    from transformers import AutoModelForImageClassification

    from pah_opt.models.uneven import uneven_class

    config = _config(place, num_labels)
    loader = uneven_class(config) or AutoModelForImageClassification
    try:
        model, report = loader.from_pretrained(
            place, config=config, use_safetensors=True, ignore_mismatched_sizes=True, output_loading_info=True,
            dtype=torch.float32,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise UnsupportedModelError(_unreachable(place, error)) from error
    plain = model if loader is AutoModelForImageClassification else _as_base(model)
    return plain, getattr(config, "_commit_hash", None), _load_notes(report)


def _as_base(model: nn.Module) -> nn.Module:
    model.__class__ = type(model).__mro__[1]
    return model


def _random(place: str, num_labels: int | None) -> Loaded:
    from transformers import AutoModelForImageClassification

    config = _config(place, num_labels) if place not in KNOWN else _known_config(KNOWN[place], num_labels)
    try:
        model = AutoModelForImageClassification.from_config(config, dtype=torch.float32)
    except ValueError as error:
        raise UnsupportedModelError(f"{place} is no image classifier of transformers: {error}") from error
    note = f"the weights are random (not those of {place}): speed and size are meaningful, accuracy is not"
    return model, None, [note]


def _known_config(published: Published, num_labels: int | None) -> Any:
    from transformers import AutoConfig

    labels = num_labels or CLASSES
    architectures = [published.architecture]
    return AutoConfig.for_model(published.family, **published.config, num_labels=labels, architectures=architectures)


def _config(place: str, num_labels: int | None) -> Any:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(place)
    except (OSError, ValueError) as error:
        raise UnsupportedModelError(_unreachable(place, error)) from error
    if num_labels is not None and config.num_labels != num_labels:
        config.num_labels = num_labels
    return config


def _unreachable(place: str, error: Exception) -> str:
    first = str(error).strip().partition("\n")[0]
    if Path(place).exists():
        return f"{place} cannot be loaded as an image classifier: {first}"
    hint = nearest_name(place, KNOWN)
    remedies = ["download the model on a machine with a connection and give its folder"]
    remedies += [f"use weights='random' for {place}'s architecture"] if place in KNOWN else []
    remedies += [f"did you mean {hint!r}?"] if hint and hint != place else []
    return f"{place!r} is no local folder, and the hub did not give it: {first}; " + "; or ".join(remedies)


def _load_notes(report: dict[str, Any]) -> list[str]:
    mismatched = {name: (tuple(stored), tuple(wanted)) for name, stored, wanted in report["mismatched_keys"]}
    fresh = sorted({*report["missing_keys"], *mismatched})
    heads = [name for name in fresh if "classifier" in name]
    others = [name for name in fresh if name not in heads]
    if others:
        raise UnsupportedModelError(
            f"the checkpoint lacks {len(others)} tensors, or has them in other shapes: {', '.join(others[:5])}; it "
            "does not fit its config.json"
        )
    return [*_head_notes(heads, mismatched), *_unused_notes(report["unexpected_keys"])]


def _head_notes(heads: list[str], mismatched: dict[str, tuple[Any, Any]]) -> Iterator[str]:
    if heads:
        yield f"newly initialised, so predictions mean nothing before training: {', '.join(heads)}"
    for name, (stored, wanted) in sorted(mismatched.items()):
        yield f"{name} had shape {stored} in the checkpoint, {wanted} was wanted"


def _unused_notes(unexpected: Iterable[str]) -> Iterator[str]:
    names = sorted(unexpected)
    if names:
        yield f"the checkpoint holds {len(names)} tensors that the model has no place for: {', '.join(names[:5])}"


def _processor(place: str, weights: Weights) -> tuple[Any, list[str]]:
    import transformers

    if weights == "random" and place in KNOWN:
        kind, settings = KNOWN[place].processor
        return getattr(transformers, kind)(**settings), []
    try:
        # The PIL implementation needs no torchvision, and gives the same pixels on every machine.
        return transformers.AutoImageProcessor.from_pretrained(place, backend="pil"), []
    except (OSError, ValueError) as error:
        reason = "no preprocessor_config.json" if Path(place).is_dir() else str(error).strip().partition("\n")[0]
        return None, [f"{place} has no image processor ({reason}); give the data one, or images already preprocessed"]


def output_size(processor: Any) -> tuple[int, int] | None:
    """Return the height and width in pixels that a processor makes, or None when they depend on the image."""
    size = processor.crop_size if getattr(processor, "do_center_crop", None) else getattr(processor, "size", None)
    height, width = (getattr(size, name, None) if size is not None else None for name in ("height", "width"))
    return (int(height), int(width)) if height and width else None


def _match_input_size(model: nn.Module, processor: Any) -> list[str]:
    """Give a model that interpolates its position embeddings in every forward pass those of its processor's size."""
    from pah_opt.models.builtin import pah_opt_model_adapters

    adapters: tuple[ModelAdapter, ...] = tuple(pah_opt_model_adapters())
    adapter = next((adapter for adapter in adapters if adapter.matches(model)), None)
    size = None if processor is None else output_size(processor)
    if adapter is None or size is None or adapter.layout(model).image_size == size:
        return []
    trained = "x".join(map(str, adapter.layout(model).image_size))
    wanted = "x".join(map(str, size))
    if adapter.name != "hf-dinov2":
        return [f"the model takes {trained} pixels, its processor makes {wanted}: set one of them right"]
    adapter.resize(model, *size)
    return [f"position embeddings were interpolated once from {trained} to {wanted} pixels, which the processor makes"]
