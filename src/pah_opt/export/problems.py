"""Why an artifact and a target do not go together, found before anything is started."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from pah_opt.environment import Environment
from pah_opt.errors import Problem
from pah_opt.export.subject import Subject
from pah_opt.export.targets import Target, target_named
from pah_opt.models.state import stored_type

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

    from torch import nn

    from pah_opt.artifact import Artifact

INT8 = "quantize with torchao, scheme int8-weight-only, int8-dynamic, int8-static or int8-qat"
UNQUANTIZED = "export the artifact of the same recipe without its quantizing step"
COMPILERS = ("g++", "clang++", "c++", "cl")


def check(artifact: Artifact | str | PathLike[str], target: str) -> list[Problem]:
    """Return everything that keeps an artifact from being exported to a target; empty when nothing does.

    Args:
        artifact: it, its folder, or its name on the hub.
        target: name of the target, one of :data:`pah_opt.export.TARGETS`.

    Raises:
        ExportRefusedError: there is no such target.
        ArtifactError: the artifact cannot be loaded.
    """
    found = target_named(target)
    return problems(Subject.of(artifact), found)


def problems(subject: Subject, target: Target, environment: Environment | None = None) -> list[Problem]:
    """Return what stands in the way; see :func:`check`."""
    found = [*_missing(target, environment or Environment()), *_weights(subject.model, target)]
    if target.name == "transformers":
        from pah_opt.export.transformers_folder import shape_problems

        found += shape_problems(subject)
    return found


def _missing(target: Target, environment: Environment) -> Iterator[Problem]:
    """Yield libraries and compilers that are not here."""
    for obstacle in environment.missing(target.backends):
        yield Problem(obstacle.reason, remedy=obstacle.remedy)
    if target.compiler and not (os.environ.get("CXX") or any(map(shutil.which, COMPILERS))):
        yield Problem("no C++ compiler is installed, AOTInductor needs one", remedy="install g++, or set CXX to one")


def _weights(model: nn.Module, target: Target) -> Iterator[Problem]:
    """Yield each kind of quantized weight that the target cannot hold, with an example."""
    refused: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path, module in model.named_modules():
        reason = _refusal(module, target)
        if reason is not None:
            refused[reason].append(path)
    for (why, remedy), paths in refused.items():
        count = f"{len(paths)} layers" if len(paths) > 1 else "a layer"
        yield Problem(f"{target.name} refuses {count} ({paths[0]}): {why}", remedy=remedy)


def _refusal(module: nn.Module, target: Target) -> tuple[str, str] | None:
    """Return why a module cannot be exported, and the remedy."""
    stored = stored_type(module)
    if stored is None:
        return None
    if type(module).__module__.startswith("bitsandbytes"):
        return (
            f"bitsandbytes computes {stored} in kernels of its own, which no other runtime has",
            INT8 if target.storages else UNQUANTIZED,
        )
    if stored == "2:4":
        return (
            "2:4 sparse tensors belong to kernels of one kind of GPU",
            "save the artifact and export its folder: loaded without such a GPU, the same weights are dense",
        )
    name = "fp8" if stored.startswith("fp8") else stored
    if name not in target.storages:
        return _not_kept(name, target)
    return _particular(module.weight, name)


def _not_kept(stored: str, target: Target) -> tuple[str, str]:
    if not target.storages:
        return f"it holds floating-point weights only, and these are {stored}", UNQUANTIZED
    why = f"its operators for {stored} weights are not in every runtime that takes the file"
    also = " (torch-export and aoti keep it)" if stored in {"int4", "fp8"} else ""
    return why + also, INT8


def _particular(weight: Any, stored: str) -> tuple[str, str] | None:
    """Return what is wrong with a weight of a type that the target knows."""
    if stored == "fp8" and getattr(weight, "act_quant_kwargs", None) is not None:
        return "fp8 products run on a GPU only, so that the result cannot be checked here", "use scheme fp8-weight-only"
    block = getattr(weight, "block_size", None)
    if stored == "int8" and block is not None and block[-1] != weight.shape[-1]:
        return f"groups of {block[-1]} weights share a scale, and only whole rows may", INT8
    if stored == "int8" and type(weight).__name__ != "Int8Tensor":
        return f"its weight is a {type(weight).__name__}, which is not known here", INT8
    return None
