"""What is exported: an artifact in memory or on disk, with everything that a target must know of it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pah_opt.artifact import Artifact, inspect, load
from pah_opt.artifact.examples import current_examples
from pah_opt.artifact.structure import adapter_named, without_compilation
from pah_opt.data import label_names
from pah_opt.registry import default_registry

if TYPE_CHECKING:
    from os import PathLike

    from pah_opt.artifact import Examples
    from pah_opt.layout import Layout, ModelAdapter
    from pah_opt.registry import Registry

_SHORT = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.float64: "fp64"}
_WRITTEN_IN_OPERATORS = ("eager", "sdpa", None)


@dataclass(frozen=True)
class Subject:
    """An artifact to be exported.

    Args:
        artifact: it.
        adapter: knows its model.
        checksums: of the files it was loaded from, by name; empty for one that was never saved.
    """

    artifact: Artifact
    adapter: ModelAdapter
    checksums: dict[str, tuple[str, ...]]

    @classmethod
    def of(cls, source: Artifact | str | PathLike[str], registry: Registry | None = None) -> Subject:
        """Take an artifact as it is, or load it: every file's checksum is compared.

        Raises:
            ArtifactError: it cannot be loaded.
        """
        known = registry or default_registry()
        if isinstance(source, Artifact):
            return cls(source, adapter_named(source.adapter, known), {})
        artifact = load(source, registry=known)
        files = inspect(source).manifest.files if Path(source).is_dir() else {}
        checksums = {name: record.sha256 for name, record in files.items()}
        return cls(artifact, adapter_named(artifact.adapter, known), checksums)

    @property
    def model(self) -> nn.Module:
        """The artifact's own model, which is never changed."""
        return without_compilation(self.artifact.model)

    @cached_property
    def layout(self) -> Layout:
        """What the model is made of."""
        return self.adapter.layout(self.model)

    @cached_property
    def examples(self) -> Examples:
        """Inputs and logits: those of the files as they were stored, those of a model in memory as it answers now."""
        if self.checksums and self.artifact.examples is not None:
            return self.artifact.examples
        return current_examples(self.artifact.examples, self.model, self.adapter)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the input."""
        return (self.layout.in_channels, *self.layout.image_size)

    @property
    def dtype(self) -> str:
        """Short name of the floating-point type that the model computes in."""
        return _SHORT[self.model.get_submodule(self.layout.patch_embedding).weight.dtype]  # type: ignore[index]  # a tensor

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each class, on one line."""
        count, own = self.layout.num_classes, label_names(self.model)
        unnamed = [f"class {number}" for number in range(count)]
        names = self.artifact.class_names or (own if len(own) == count else unnamed)
        return tuple(" ".join(name.split()) for name in names)

    def private_copy(self) -> nn.Module:
        """Return a copy on the CPU that may be changed; it is not compiled, and no attention hides in a kernel."""
        made = copy.deepcopy(self.model).cpu().eval()
        made.requires_grad_(requires_grad=False)
        config: Any = getattr(made, "config", None)
        if getattr(config, "_attn_implementation", None) not in _WRITTEN_IN_OPERATORS:
            made.set_attn_implementation("sdpa")  # type: ignore[operator]  # transformers models with a config have it
        return made
