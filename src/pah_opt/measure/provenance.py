"""Where a model and its images come from, so that a figure can be traced."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from pah_opt.measure.nvml import Reading
from pah_opt.measure.schema import Provenance
from pah_opt.measure.tensors import inner_tensors

if TYPE_CHECKING:
    from torch import nn

    from pah_opt.measure.candidate import Candidate
    from pah_opt.splits import Split

NO_RECIPE = "the model was not made by a recipe"
VOLATILE = ("_name_or_path", "_commit_hash", "transformers_version")
"""Entries of a config that say where it was read, and by what, rather than what the model computes."""


def provenance(candidate: Candidate, split: Split | None, weights_origin: str | None) -> Provenance:
    """Say where a candidate and the images come from."""
    recipe = getattr(candidate.artifact, "recipe", None)
    commit = git_commit()
    known: dict[str, Any] = {
        "weights_sha256": weights_sha256(candidate.model), "weights_origin": origin_of(candidate, weights_origin),
        "git_commit": commit.value,
    }  # fmt: skip
    if recipe is not None:
        known |= {"recipe_sha256": recipe.sha256, "seed": recipe.seed}
    if split is not None:
        known |= {"dataset_revision": split.fingerprint, "split": split.name, "n_images": len(split)}
    reasons = {
        "recipe_sha256": NO_RECIPE, "seed": NO_RECIPE, "git_commit": commit.reason,
        "weights_origin": "not said: pass weights_origin",
    }  # fmt: skip
    return Provenance.having("no images were given", reasons, **known)


def origin_of(candidate: Candidate, given: str | None) -> str | None:
    """Return where the weights come from: what the artifact says, else what the caller says."""
    recorded = getattr(candidate.artifact, "weights_origin", None)
    return recorded if recorded not in (None, "unknown") else given


def weights_sha256(model: nn.Module) -> str:
    """Hash the name, type, shape and bytes of every parameter and buffer."""
    digest = hashlib.sha256()
    for name, tensor in sorted({**dict(model.named_parameters()), **dict(model.named_buffers())}.items()):
        for part in inner_tensors(tensor.detach()):
            digest.update(f"{name} {part.dtype} {tuple(part.shape)}".encode())
            # The tensor's own buffer is hashed, not a copy of it: a ViT-B is 343 MB.
            digest.update(part.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def config_sha256(model: nn.Module) -> str | None:
    """Hash what a model's config says: heads, epsilons and activations are no part of its weights.

    Returns:
        None for a model without one.
    """
    to_dict = getattr(getattr(model, "config", None), "to_dict", None)
    if to_dict is None:
        return None
    told = {name: value for name, value in to_dict().items() if name not in VOLATILE}
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


@lru_cache(maxsize=1)
def git_commit() -> Reading[str]:
    """Return the commit of the repository that the working directory is in."""
    git = shutil.which("git")
    if git is None:
        return Reading(None, "git is not installed")
    try:
        found = subprocess.run(  # noqa: S603  # the arguments are fixed
            (git, "rev-parse", "HEAD"), capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return Reading(None, "the working directory is in no git repository")
    return Reading(found.stdout.strip())
