"""Whole processes: two that share a training, and one that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from pah_opt.adapt.evaluation import evaluate
from pah_opt.adapt.processes import Processes, epoch_order, shared_batches, updates_in_epoch
from pah_opt.data import TensorSplit
from pah_opt.errors import DataError

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONWARNINGS": "ignore"}


def run(script: str, folder: Path, *launcher: str) -> dict[str, Any]:
    folder.mkdir()
    command = [sys.executable, *launcher, str(HERE / script), str(folder)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    facts: dict[str, Any] = json.loads((folder / "0.json").read_text())
    return facts


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    """Losses, validation, weights, zeros and cached states: all as in one process, up to rounding."""
    one = run("train_in_processes.py", tmp_path / "one")
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    two = run("train_in_processes.py", tmp_path / "two", *launcher)
    other = json.loads((tmp_path / "two" / "1.json").read_text())
    assert (one["processes"], two["processes"]) == (1, 2)
    for name in ("losses", "validation", "accuracy", "weights", "adapted", "test"):
        assert two[name] == pytest.approx(one[name], rel=1e-4), name
        assert two[name] == other[name], f"{name}: both processes hold the same model"
    assert two["zeros"] == one["zeros"] > 0
    assert two["attributes"] == one["attributes"]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["fit", "adapt"])
def test_training_killed_without_warning_goes_on_with_the_same_result(tmp_path: Path, way: str) -> None:
    script = [sys.executable, str(HERE / "train_until_killed.py")]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    subprocess.run([*script, str(whole), way], env=ENVIRONMENT, check=True, capture_output=True, timeout=300)
    victim = subprocess.Popen([*script, str(cut), way], env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (cut / "state" / "training.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    victim.send_signal(signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL, "it had ended before it could be killed"
    assert not (cut / "weights").exists()
    subprocess.run([*script, str(cut), way], env=ENVIRONMENT, check=True, capture_output=True, timeout=300)
    assert (cut / "weights").read_text() == (whole / "weights").read_text()


def fake(count: int, rank: int) -> Processes:
    processes = Processes(torch.device("cpu"), "no")
    processes.count, processes.rank = count, rank
    return processes


def numbered(count: int) -> TensorSplit:
    pixels = torch.arange(float(count)).reshape(-1, 1, 1, 1)
    return TensorSplit(pixels, torch.arange(count) % 2, ("a", "b"))


@pytest.mark.parametrize(("count", "size", "processes"), [(10, 4, 1), (10, 4, 2), (13, 5, 3), (9, 4, 2), (8, 8, 4)])
def test_processes_share_every_batch_without_overlap(count: int, size: int, processes: int) -> None:
    order = epoch_order(count, seed=0, epoch=0)
    parts = [list(shared_batches(numbered(count), order, size, fake(processes, rank))) for rank in range(processes)]
    assert {len(part) for part in parts} == {updates_in_epoch(count, size, processes)}
    for index in range(len(parts[0])):
        whole = order[index * size : (index + 1) * size]
        seen = [number for part in parts for number in part[index][0].pixel_values.flatten().int().tolist()]
        assert sorted(seen) == sorted(whole.tolist())
        assert all(part[index][1] == len(whole) for part in parts)
        assert all(len(part[index][0].labels) for part in parts), "every process has something to do"


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_test_images_than_processes_leave_some_without_work(count: int) -> None:
    """All of them take part in the sum, or the others would wait for ever."""
    model, adapter = nn.Flatten(), SimpleNamespace(logits=lambda output: output.expand(-1, 2))
    split = numbered(count)
    with torch.no_grad():
        scores = [evaluate(model, split, adapter, processes=fake(3, rank)) for rank in range(3)]  # type: ignore[arg-type]
    assert [score.loss > 0 for score in scores] == [rank < count for rank in range(3)]


def test_order_depends_on_seed_and_epoch_alone() -> None:
    assert torch.equal(epoch_order(50, 1, 2), epoch_order(50, 1, 2))
    assert not torch.equal(epoch_order(50, 1, 2), epoch_order(50, 1, 3))
    assert not torch.equal(epoch_order(50, 1, 2), epoch_order(50, 2, 2))


def test_skipped_batches_are_not_read() -> None:
    order = torch.arange(6)
    (batch, whole), *rest = shared_batches(numbered(6), order, 2, fake(1, 0), skip=2)
    assert batch.pixel_values.flatten().tolist() == [4.0, 5.0]
    assert (whole, rest) == (2, [])


def test_batch_too_small_to_share_is_refused() -> None:
    with pytest.raises(DataError, match="batch_size 2 cannot be shared by 4 processes; give at least 4"):
        fake(4, 0).check(2)


def test_the_precision_of_accelerates_own_config_is_left_aside(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``accelerate launch`` hands it over in an environment variable; it would wrap the model's forward."""
    from accelerate.state import AcceleratorState

    Processes(torch.device("cpu"), "no")  # makes the state that all share
    monkeypatch.setitem(AcceleratorState._shared_state, "_mixed_precision", "bf16")
    processes = Processes(torch.device("cpu"), "no")
    wrapped, _ = processes.prepare(model, torch.optim.AdamW(model.parameters()))
    try:
        assert "forward" not in vars(model)
        assert wrapped(torch.zeros(1, 3, 16, 16)).logits.dtype == torch.float32
    finally:
        processes.release(wrapped)
    assert "_original_forward" not in vars(model)
