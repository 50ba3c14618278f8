"""Small saved artifacts, and how to change their files with checksums that fit again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pah_opt.artifact import Artifact, StepRecord
from pah_opt.artifact.files import MANIFEST
from pah_opt.artifact.manifest import Manifest
from pah_opt.recipe import Recipe, Step
from pah_opt.storage.digest import Digest
from pah_opt.testing import tiny_vit

RECIPE = Recipe(name="tiny", description="A test.", seed=3, steps=(Step.of("magnitude-pruning", sparsity=0.5),))


def tiny_artifact(**changes: object) -> Artifact:
    """Return an artifact of a tiny ViT, half of its linear weights zero."""
    model = tiny_vit(hidden=32, mlp=64, blocks=2, heads=2)
    for module in model.modules():
        if hasattr(module, "in_features"):
            module.weight.data *= module.weight.data.abs() >= module.weight.data.abs().median()
    figures = {"params": 20_000, "macs": 300_000, "weights_bytes": 80_000}
    step = StepRecord(
        "magnitude-pruning", {"sparsity": 0.5}, {"sparsity": 0.5, "skipped": {}}, figures, figures, seconds=0.25
    )
    whole = {
        "model": model, "recipe": RECIPE, "steps": (step,), "adapter": "hf-vit", "weights_origin": "random",
        "source": "user/dense-vit", "class_names": tuple("abcdefghij"),
        "processor": {"image_processor_type": "ViTImageProcessor", "do_normalize": True, "image_mean": [0.5] * 3},
        "tags": frozenset({"weights:float", "weights:sparse"}), "report": {"anything": [1, 2.5, None]},
    }  # fmt: skip
    return Artifact(**{**whole, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact's folder, never to be changed."""
    return tiny_artifact().save(tmp_path_factory.mktemp("artifact") / "saved")


@pytest.fixture(scope="session")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with compressed weights, never to be changed."""
    pytest.importorskip("zstandard", reason="needs the extra zstd")
    return tiny_artifact().save(tmp_path_factory.mktemp("artifact") / "compressed", compress=True)


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of ``saved`` that a test may damage."""
    return shutil.copytree(saved, tmp_path / "artifact")


def seal(folder: Path) -> None:
    """Write a manifest that fits whatever the files now hold, as somebody with bad intentions would."""
    kept = Manifest.from_bytes((folder / MANIFEST).read_bytes()).files
    digests = {name: Digest.of((folder / name).read_bytes()) for name in kept}
    (folder / MANIFEST).write_bytes(Manifest.of(digests).to_bytes())


def change(folder: Path, name: str, how: Callable[[bytes], bytes]) -> None:
    """Change the content of one file, and make the checksums fit it."""
    (folder / name).write_bytes(how((folder / name).read_bytes()))
    seal(folder)
