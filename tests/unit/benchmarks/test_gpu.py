"""``benchmarks/gpu.py`` without a GPU: the same code on a tiny model."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from pah_opt.report import Report

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "gpu.py"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_gpu", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_rows_are_written_one_by_one_and_a_second_run_goes_on(
    gpu: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--device", "cpu", "--tiny", "--batch", "2", "--out", str(tmp_path), "--rows"]
    assert gpu.main([*arguments, "fp32", "fp8-compiled"]) == 0
    own = json.loads((tmp_path / "fp32.json").read_text(encoding="utf-8"))
    assert [timing["workload"]["batch_size"] for timing in own["report"]["models"][0]["timings"]] == [1, 2]
    assert own["turns"] is None
    capsys.readouterr()
    assert gpu.main([*arguments, "fp32", "bf16"]) == 0
    assert "fp32: there already" in capsys.readouterr().out
    turns = json.loads((tmp_path / "bf16.json").read_text(encoding="utf-8"))["turns"]
    assert [model.id for model in Report.from_json(json.dumps(turns)).models] == ["fp32", "bf16"]
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "| 160px-compiled | not measured |" in table


@pytest.mark.skipif(torch.cuda.is_available(), reason="this is about machines without a GPU")
def test_a_row_that_needs_a_gpu_keeps_its_reason(gpu: ModuleType, tmp_path: Path) -> None:
    arguments = ["--device", "cpu", "--tiny", "--batch", "1", "--out", str(tmp_path), "--rows", "fp8-compiled"]
    assert gpu.main(arguments) == 0
    assert "CUDA" in json.loads((tmp_path / "fp8-compiled.json").read_text(encoding="utf-8"))["skipped"]
    assert gpu.main(["--out", str(tmp_path)]) == 2


def test_other_conditions_make_a_row_run_again(gpu: ModuleType, tmp_path: Path) -> None:
    row = gpu.ROWS[0]
    path = tmp_path / "fp32.json"
    identity = gpu.identity(row, 2, "tiny")
    path.write_text(json.dumps({"identity": identity, "report": {}, "turns": None}), encoding="utf-8")
    assert gpu.is_done(path, identity)
    assert not gpu.is_done(path, gpu.identity(row, 4, "tiny"))
    path.write_text("{broken", encoding="utf-8")
    assert not gpu.is_done(path, identity)
