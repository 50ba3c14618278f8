"""A model repository that fits the model in it, and the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import pah_opt
from pah_opt.cli import main
from pah_opt.errors import ExportRefusedError
from pah_opt.export import read_export

from .conftest import NAMES, ArtifactOf

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}:,]|[^\s\[\]{}:,]+')


def parsed(text: str) -> dict[str, Any]:
    """Read protobuf's text format, as far as Triton's configurations use it."""
    tokens = iter(TOKEN.findall(text))
    found = message(tokens)
    assert next(tokens, None) is None
    return found


def message(tokens: Iterator[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in tokens:
        if name == "}":
            break
        first = next(tokens)
        assert first in ":[{"
        found[name] = value(tokens, next(tokens) if first == ":" else first)
    return found


def value(tokens: Iterator[str], first: str) -> Any:
    if first == "{":
        return message(tokens)
    if first == "[":
        items = []
        for token in tokens:
            if token == "]":
                return items
            if token != ",":
                items.append(value(tokens, token))
    return json.loads(first) if first[0] in '"-0123456789' else first


@pytest.mark.parametrize(
    ("target", "backend", "kind", "files"),
    [
        ("onnx", "onnxruntime", "KIND_AUTO", {"model.onnx"}),
        ("openvino", "openvino", "KIND_CPU", {"model.xml", "model.bin"}),
    ],
)
@pytest.mark.usefixtures("needs_onnx")
def test_tritons_configuration_says_what_the_model_takes_and_gives(
    target: str, backend: str, kind: str, files: set[str], artifact_of: ArtifactOf, tmp_path: Path
) -> None:
    pytest.importorskip("openvino" if target == "openvino" else "onnx", reason="needs the extra export")
    pah_opt.export(artifact_of("dense"), target, tmp_path / "repo", layout="triton", name="animals-v1", max_batch=16)
    home = tmp_path / "repo" / "animals-v1"
    config = parsed((home / "config.pbtxt").read_text())
    assert (config["name"], config["backend"], config["max_batch_size"]) == ("animals-v1", backend, 16)
    assert config["instance_group"] == [{"count": 1, "kind": kind}]
    assert config["dynamic_batching"]["max_queue_delay_microseconds"] > 0
    assert {path.name for path in (home / "1").iterdir()} == files
    assert (home / "labels.txt").read_text().splitlines() == list(NAMES)
    made = read_export(tmp_path / "repo")
    assert made.file == f"animals-v1/1/{'model.onnx' if target == 'onnx' else 'model.xml'}"
    (given,), (taken,) = config["input"], config["output"]
    assert given == {"name": "pixel_values", "data_type": "TYPE_FP32", "dims": [3, 32, 32]}
    assert taken == {"name": "logits", "data_type": "TYPE_FP32", "dims": [10], "label_filename": "labels.txt"}
    if target == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(tmp_path / "repo" / made.file), providers=["CPUExecutionProvider"])
        (real_input,), (real_output,) = session.get_inputs(), session.get_outputs()
        assert (real_input.name, real_input.type, real_input.shape) == (
            "pixel_values",
            "tensor(float)",
            ["batch", 3, 32, 32],
        )
        assert (real_output.name, real_output.type, real_output.shape[1:]) == ("logits", "tensor(float)", [10])


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("transformers", {"layout": "triton", "name": "a"}, r"not written for transformers; allowed: onnx, openvino"),
        ("onnx", {"layout": "triton"}, r"the model's name is None; allowed: letters.*; add --name NAME"),
        ("onnx", {"layout": "triton", "name": "../../etc"}, r"the model's name is '\.\./\.\./etc'"),
        ("onnx", {"layout": "triton", "name": "a", "max_batch": 0}, r"max_batch is 0; allowed: 1 and more"),
        ("onnx", {"name": "a"}, r"a name belongs to the layout triton"),
        ("onnx", {"layout": "tritn"}, r"there is no layout 'tritn'; allowed: plain, triton"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(
    target: str, options: dict[str, Any], message: str, saved: Path, tmp_path: Path
) -> None:
    with pytest.raises(ExportRefusedError, match=message):
        pah_opt.export(saved, target, tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_the_command_exports_to_several_targets(saved: Path, tmp_path: Path) -> None:
    arguments = ["export", str(saved), "--to", "transformers", "--to", "torch-export", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    assert [one["target"] for one in json.loads(result.stdout)] == ["transformers", "torch-export"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"transformers", "torch-export"}
    again = CliRunner().invoke(main, [*arguments, "--overwrite"])
    assert again.exit_code == 0, again.output
    assert "same class:" in again.stdout
    assert CliRunner().invoke(main, arguments).exit_code == 2


def test_the_command_says_what_stands_in_the_way(artifact_of: ArtifactOf, saved: Path, tmp_path: Path) -> None:
    folder = artifact_of("int4").save(tmp_path / "int4")
    both = ("--to", "onnx", "--to", "torch-export", "--check")
    result = CliRunner().invoke(main, ["export", str(folder), *both, "--json"])
    assert result.exit_code == 2
    found = json.loads(result.stdout)
    assert "int4" in found["onnx"][0]
    assert found["torch-export"] == []
    fine = CliRunner().invoke(main, ["export", str(saved), "--to", "transformers", "--check"])
    assert fine.exit_code == 0
    assert "nothing" in fine.stdout
