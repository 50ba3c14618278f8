"""What a target refuses is said before anything is started, with the reason and what to do instead."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import pah_opt
from pah_opt import environment
from pah_opt.errors import ArtifactError, ExportError, ExportRefusedError, MissingBackendError
from pah_opt.export import TARGETS, agreement, check, export_all, read_export, transformers_folder
from pah_opt.export.exporting import folder_beside
from pah_opt.export.subject import Subject

from .conftest import ArtifactOf


@pytest.mark.parametrize(
    ("kind", "target", "message"),
    [
        ("nf4", "onnx", r"6 layers \(vit.*q_proj\): bitsandbytes computes nf4 in kernels .*; quantize with torchao"),
        ("nf4", "aoti", r"bitsandbytes computes nf4"),
        ("int4", "onnx", r"operators for int4 weights .* \(torch-export and aoti keep it\); quantize with torchao"),
        ("fp8", "openvino", r"operators for fp8 weights"),
        (
            "dynamic",
            "transformers",
            r"floating-point weights only, and these are int8; export the artifact of the same",
        ),
        ("timm", "transformers", r"timm_vit.VisionTransformer is no class of transformers; load the artifact with"),
        ("fused", "transformers", r"cannot describe vit.layers.0, whose attention is fused"),
        ("uneven", "transformers", r"cannot describe vit.layers.1 with \d+ .* beside vit.layers.0 with \d+ \(prune"),
    ],
)
def test_what_does_not_go_together_is_refused_with_reason_and_remedy(
    kind: str, target: str, message: str, artifact_of: ArtifactOf, tmp_path: Path
) -> None:
    artifact = artifact_of(kind)
    (problem,) = check(artifact, target)
    with pytest.raises(ExportRefusedError, match=message):
        pah_opt.export(artifact, target, tmp_path / "out")
    assert problem.remedy
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_started_when_one_of_several_targets_refuses(artifact_of: ArtifactOf, tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("torch-export", "transformers")}
    with pytest.raises(ExportRefusedError, match="transformers was not exported"):
        export_all(artifact_of("dynamic"), tuple(folders), folders)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_target_names_the_nearest(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportRefusedError, match=r"no target 'onxx'; allowed: onnx, openvino, .*mean 'onnx'\?"):
        pah_opt.export(saved, "onxx", tmp_path / "out")


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_a_missing_library_is_named_with_the_command_that_installs_it(
    target: str, artifact_of: ArtifactOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = environment.installed_version
    monkeypatch.setattr(environment, "installed_version", lambda name: None if name == "onnxscript" else found(name))
    with pytest.raises(MissingBackendError, match=r"onnxscript is not installed; pip install 'pah-opt\[export\]'"):
        pah_opt.export(artifact_of("dense"), target, tmp_path / "out")


def test_a_missing_compiler_is_found_beforehand(artifact_of: ArtifactOf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert [problem.remedy for problem in check(artifact_of("dense"), "aoti")] == ["install g++, or set CXX to one"]


def test_every_target_says_what_it_is() -> None:
    assert set(TARGETS) == {"onnx", "openvino", "torch-export", "aoti", "transformers"}
    assert all(target.summary.endswith(".") for target in TARGETS.values())


def shifted(logits: NDArray[Any]) -> NDArray[Any]:
    return logits + 0.01 * np.abs(logits).max()


def other_class(logits: NDArray[Any]) -> NDArray[Any]:
    return np.roll(logits, 1, axis=1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shifted, r"differ by up to 0\.01.* of the largest logit, 0\.001 is allowed; nothing was kept"),
        (other_class, r"other logits"),
        (lambda logits: logits * np.nan, r"other logits"),
        (lambda logits: logits[:, :3], r"gives logits of shape \(2, 3\), the artifact gives \(2, 10\)"),
        (lambda logits: logits[1000], r"does not run with 2 images: index 1000 is out of bounds"),
    ],
)
def test_what_answers_differently_is_not_kept(
    damage: Any, message: str, artifact_of: ArtifactOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = transformers_folder.runner

    def damaged(folder: Path) -> Any:
        run = runner(folder)
        return lambda pixels: damage(run(pixels))

    monkeypatch.setattr(transformers_folder, "runner", damaged)
    with pytest.raises(ExportError, match=message):
        pah_opt.export(artifact_of("dense"), "transformers", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_another_class_is_no_agreement_unless_both_led_by_a_hair() -> None:
    agreement.refuse_other_classes(np.array([0.0, 0.0014]), tolerance=0.001)
    with pytest.raises(ExportError, match=r"predicts other classes for 1 of 3 images; nothing was kept"):
        agreement.refuse_other_classes(np.array([0.0, 0.0014, 0.0016]), tolerance=0.001)


def test_int8_is_allowed_what_rounding_does_to_this_very_model(
    artifact_of: ArtifactOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = Subject.of(artifact_of("dynamic"))
    assert 0 < agreement.rounding_effect(subject) < 0.05
    for effect, allowed in ((0.001, 0.02), (0.1, 0.15), (0.9, 0.25)):
        monkeypatch.setattr(agreement, "rounding_effect", lambda _, effect=effect: effect)
        assert agreement.tolerance_for(subject) == pytest.approx(allowed)
    assert agreement.tolerance_for(Subject.of(artifact_of("dense"))) == 0.001
    assert agreement.tolerance_for(Subject.of(artifact_of("bf16"))) == 0.05


@pytest.mark.parametrize("target", ["transformers", "torch-export", "onnx", "openvino"])
def test_a_full_disk_leaves_nothing_and_the_old_export_whole(
    artifact_of: ArtifactOf, tmp_path: Path, full_disk: Any, target: str
) -> None:
    if "not installed" in " ".join(map(str, check(artifact_of("dense"), target))):
        pytest.skip(f"the libraries of {target} are not installed")
    out = tmp_path / "out"
    pah_opt.export(artifact_of("dense"), "transformers", out)
    before = read_export(out)
    with full_disk(), pytest.raises(ExportError, match=rf"{target} could not be written to .*out: File too large"):
        pah_opt.export(artifact_of("dense"), target, out, overwrite=True)
    assert read_export(out) == before
    assert list(tmp_path.iterdir()) == [out]


def test_an_export_is_replaced_when_asked_and_nothing_else_ever_is(artifact_of: ArtifactOf, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "thesis"
    pah_opt.export(artifact_of("dense"), "transformers", out)
    with pytest.raises(ArtifactError, match=r"out exists already; pass overwrite=True"):
        pah_opt.export(artifact_of("half"), "transformers", out)
    smaller = pah_opt.export(artifact_of("half"), "transformers", out, overwrite=True)
    assert read_export(out) == smaller.manifest
    other.mkdir()
    (other / "chapter.txt").write_text("years of work")
    with pytest.raises(ArtifactError, match=r"thesis is not replaced, because it is not a whole exported model"):
        pah_opt.export(artifact_of("half"), "transformers", other, overwrite=True)
    assert (other / "chapter.txt").read_text() == "years of work"


@pytest.mark.parametrize("inside", ["", "onnx", "deep/er"])
def test_nothing_is_exported_into_the_artifacts_own_folder(saved: Path, inside: str) -> None:
    before = sorted(saved.iterdir())
    with pytest.raises(ArtifactError, match=r"lies in the artifact's own folder"):
        pah_opt.export(saved, "transformers", saved / inside, overwrite=True)
    assert sorted(saved.iterdir()) == before


def test_a_folder_named_by_a_dot_is_exported_beside_itself(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shutil.copytree(saved, tmp_path / "tiny"))
    assert pah_opt.export(".", "transformers").folder == tmp_path / "tiny-transformers"
    with pytest.raises(ArtifactError, match=r"nothing can lie beside /"):
        folder_beside(Path("/"), "onnx")


def test_a_damaged_artifact_is_not_exported(saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved, tmp_path / "artifact")
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(ArtifactError, match=r"model.safetensors is damaged"):
        pah_opt.export(folder, "transformers", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_export_is_found_when_it_is_read(artifact_of: ArtifactOf, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pah_opt.export(artifact_of("dense"), "transformers", out)
    (out / "config.json").write_bytes((out / "config.json").read_bytes().replace(b"32", b"33", 1))
    with pytest.raises(ArtifactError, match=r"config.json is damaged"):
        read_export(out)
    (out / "config.json").unlink()
    with pytest.raises(ArtifactError, match=r"lacks config.json"):
        read_export(out)
    (out / "export.json").write_bytes(b"{}")
    with pytest.raises(ArtifactError, match=r"export.json is damaged"):
        read_export(out)


def test_the_folder_lies_beside_the_artifact_unless_said_otherwise(saved: Path, artifact_of: ArtifactOf) -> None:
    made = pah_opt.export(saved, "transformers")
    assert made.folder == saved.with_name("tiny-transformers")
    with pytest.raises(ArtifactError, match=r"out=FOLDER"):
        pah_opt.export(artifact_of("dense"), "transformers")
