"""Every form answers as the artifact does, in its own runtime, at a batch size that was never traced."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import pah_opt
from pah_opt import Recipe, Step
from pah_opt.errors import ArtifactError
from pah_opt.export import onnx_file as onnx_target
from pah_opt.export import read_export
from pah_opt.testing import tiny_images

from .conftest import LINEARS, NAMES, ArtifactOf, small_vit

BATCH = 7


def wanted(artifact: pah_opt.Artifact, images: torch.Tensor) -> NDArray[Any]:
    with torch.no_grad():
        logits: NDArray[Any] = artifact.model(images).logits.float().numpy()
    return logits


@pytest.mark.parametrize(
    ("kind", "operators"),
    [
        ("weight-only", {"DequantizeLinear": LINEARS}),
        ("dynamic", {"MatMulInteger": LINEARS}),
        ("qat", {"MatMulInteger": LINEARS}),
        ("static", {"QuantizeLinear": LINEARS, "DequantizeLinear": 2 * LINEARS}),
        ("fp16", {}),
        ("bf16", {}),
        ("uneven", {}),
        ("fused", {}),
    ],
)
@pytest.mark.usefixtures("needs_onnx")
def test_onnx_answers_the_same_in_onnx_runtime(
    kind: str, operators: dict[str, int], artifact_of: ArtifactOf, tmp_path: Path
) -> None:
    import onnx
    import onnxruntime

    artifact = artifact_of(kind)
    made = pah_opt.export(artifact, "onnx", tmp_path / "out").manifest
    assert made.operators == operators
    assert (made.top1_agreement, made.batch_sizes) == (1.0, (2, 1, 5))
    model = onnx.load(str(tmp_path / "out" / "model.onnx"))
    stored = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    assert sum(len(tensor.dims) == 2 for tensor in stored) == (LINEARS if operators else 0)
    images = tiny_images(BATCH, seed=3)
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"), providers=["CPUExecutionProvider"])
    found, right = session.run(None, {"pixel_values": images.numpy()})[0], wanted(artifact, images)
    assert np.abs(found - right).max() <= made.tolerance * np.abs(right).max()
    assert b"site-packages" not in (tmp_path / "out" / "model.onnx").read_bytes()


@pytest.mark.parametrize(
    ("kind", "operators"),
    [("dynamic", {"int8 constants": LINEARS}), ("static", {"int8 constants": LINEARS, "FakeQuantize": LINEARS})],
)
@pytest.mark.usefixtures("needs_onnx")
def test_openvino_answers_the_same_in_openvino(
    kind: str, operators: dict[str, int], artifact_of: ArtifactOf, tmp_path: Path
) -> None:
    openvino = pytest.importorskip("openvino", reason="needs the extra export")
    artifact = artifact_of(kind)
    made = pah_opt.export(artifact, "openvino", tmp_path / "out").manifest
    assert made.operators == operators
    images = tiny_images(BATCH, seed=3)
    found = openvino.Core().compile_model(str(tmp_path / "out" / "model.xml"), "CPU", made.settings)(images.numpy())[0]
    right = wanted(artifact, images)
    assert np.abs(found - right).max() <= made.tolerance * np.abs(right).max()
    assert any("OpenVINO decides" in note for note in made.notes) == (kind == "dynamic")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # the ONNX on the way is gone


RUN = """
import sys, torch
program = torch.export.load(sys.argv[1]).module()
torch.save(program(torch.load(sys.argv[2])), sys.argv[3])
print(*[name for name in ("torchao", "transformers", "pah_opt") if name in sys.modules])
"""


@pytest.mark.parametrize("kind", ["dynamic", "int4", "fp8"])
def test_a_torch_program_runs_where_only_torch_is(kind: str, artifact_of: ArtifactOf, tmp_path: Path) -> None:
    artifact = artifact_of(kind)
    made = pah_opt.export(artifact, "torch-export", tmp_path / "out").manifest
    assert made.operators["small matrices"] >= LINEARS
    images, given, taken = tiny_images(BATCH, seed=3), tmp_path / "given.pt", tmp_path / "taken.pt"
    torch.save(images, given)
    command = [sys.executable, "-c", RUN, str(tmp_path / "out" / "model.pt2"), str(given), str(taken)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
    right = wanted(artifact, images)
    assert np.abs(torch.load(taken).detach().numpy() - right).max() <= 1e-5 * np.abs(right).max()


def test_a_compiled_artifact_of_another_input_size_is_exported_as_it_was_before_compiling(
    artifact_of: ArtifactOf, tmp_path: Path
) -> None:
    artifact = artifact_of("compiled")
    made = pah_opt.export(artifact, "torch-export", tmp_path / "out").manifest
    assert made.input.shape == (3, 48, 48)
    assert made.difference < 1e-5


@pytest.mark.slow
def test_an_aoti_package_answers_the_same(artifact_of: ArtifactOf, tmp_path: Path) -> None:
    import torch._inductor

    artifact = artifact_of("dynamic")
    made = pah_opt.export(artifact, "aoti", tmp_path / "out").manifest
    assert made.operators == {"_int_mm": LINEARS, "small matrices": LINEARS}
    images = tiny_images(BATCH, seed=3)
    found = torch._inductor.aoti_load_package(str(tmp_path / "out" / "model.pt2"))(images).numpy()
    right = wanted(artifact, images)
    assert np.abs(found - right).max() <= made.tolerance * np.abs(right).max()


@pytest.mark.parametrize("kind", ["dense", "half", "bf16"])
def test_a_transformers_checkpoint_loads_with_the_auto_class(
    kind: str, artifact_of: ArtifactOf, tmp_path: Path
) -> None:
    from transformers import AutoModelForImageClassification

    artifact = artifact_of(kind)
    made = pah_opt.export(artifact, "transformers", tmp_path / "out").manifest
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out").eval()
    images = tiny_images(BATCH, seed=3)
    with torch.no_grad():
        found = model(images.to(model.dtype)).logits.float().numpy()
    right = wanted(artifact, images)
    assert np.abs(found - right).max() <= 1e-5 * np.abs(right).max()
    assert model.config.id2label == dict(enumerate(made.labels))
    assert made.computes == ("bf16" if kind == "bf16" else "fp32")
    if kind == "dense":
        assert made.labels == NAMES
        assert (tmp_path / "out" / "preprocessor_config.json").is_file()


@pytest.mark.usefixtures("needs_onnx")
def test_the_manifest_says_what_a_server_must_know(saved: Path, tmp_path: Path) -> None:
    exported = pah_opt.export(saved, "onnx", tmp_path / "out")
    made = read_export(tmp_path / "out")
    assert made == exported.manifest
    assert (made.input.shape, made.input.mean, made.input.std) == ((3, 32, 32), (0.5,) * 3, (0.25,) * 3)
    assert made.labels == NAMES
    assert made.opset == 18
    assert made.tensorrt == ()
    assert made.versions["onnxruntime"]
    assert set(made.source) == {p.name for p in saved.iterdir()} - {"manifest.json", "README.md"}
    assert set(made.files) == {"model.onnx", "preprocessor_config.json"}
    assert (
        exported.total_bytes
        == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
        - (tmp_path / "out" / "export.json").stat().st_size
    )


@pytest.mark.usefixtures("needs_onnx")
def test_weights_beyond_two_gibibytes_lie_beside_the_onnx_file(
    artifact_of: ArtifactOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_target, "LARGEST_BYTES", 0)
    made = pah_opt.export(artifact_of("dense"), "onnx", tmp_path / "out").manifest
    assert "model.onnx.data" in made.files
    assert made.difference < 1e-5


def test_an_export_with_other_files_in_it_is_not_replaced(artifact_of: ArtifactOf, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pah_opt.export(artifact_of("dense"), "transformers", out)
    pah_opt.export(artifact_of("dense"), "transformers", out, overwrite=True)
    (out / "other").mkdir()
    (out / "other" / "thesis.tex").write_text("years of work", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"not replaced.*thesis\.tex"):
        pah_opt.export(artifact_of("dense"), "transformers", out, overwrite=True)
    assert (out / "other" / "thesis.tex").exists()


def test_names_in_a_models_own_config_are_kept(tmp_path: Path) -> None:
    model: Any = small_vit()
    model.config.id2label = dict(enumerate(NAMES))
    model.config.label2id = {name: number for number, name in enumerate(NAMES)}
    artifact = pah_opt.apply(model, Recipe(name="t", steps=(Step.of("magnitude-pruning", sparsity=0.5),)))
    made = pah_opt.export(artifact, "transformers", tmp_path / "out")
    assert made.manifest.labels == NAMES
    assert json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))["id2label"]["0"] == NAMES[0]


def test_a_loaded_model_that_was_changed_is_exported_with_what_it_answers_now(
    artifact_of: ArtifactOf, tmp_path: Path
) -> None:
    artifact = pah_opt.load(artifact_of("dense").save(tmp_path / "a"))
    with torch.no_grad():
        artifact.model.get_submodule("classifier").get_parameter("weight").mul_(-3)
    pah_opt.export(artifact, "transformers", tmp_path / "out")
