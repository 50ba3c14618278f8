from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pah_opt.adapt import Augmentation
from pah_opt.adapt.caching import HiddenStates, Views, _locked, _make_file
from pah_opt.adapt.hidden import HiddenSplit, inputs_of
from pah_opt.adapt.processes import Processes
from pah_opt.data import TensorSplit
from pah_opt.errors import DataError
from pah_opt.layout import ModelAdapter
from pah_opt.models.precision import Precision

Make = Callable[..., HiddenStates]


@pytest.fixture
def make(model: nn.Module, adapter: ModelAdapter) -> Make:
    def states(precision: Precision = "no", **options: Any) -> HiddenStates:
        return HiddenStates(model, adapter.layout(model), 1, Processes(torch.device("cpu"), precision), **options)

    return states


def values(split: HiddenSplit) -> torch.Tensor:
    return torch.cat([batch.pixel_values for batch in split.batches(20)])


@pytest.mark.parametrize("where", ["memory", "temporary file", "folder"])
def test_states_are_the_inputs_of_the_block(
    make: Make, model: nn.Module, train: TensorSplit, tmp_path: Path, where: str
) -> None:
    options: dict[str, Any] = {"memory": {}, "temporary file": {"memory_bytes": 10}, "folder": {"folder": tmp_path}}[
        where
    ]
    expected = inputs_of(model.get_submodule("vit.layers.1"), model, train.pixel_values)
    with make(**options).of(train, Views()) as split:
        torch.testing.assert_close(values(split), expected, atol=2e-3, rtol=1e-3)
        assert torch.equal(split.labels, train.labels)


def test_temporary_file_is_removed(
    make: Make, train: TensorSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with make(memory_bytes=10).of(train, Views()):
        assert len(list(tmp_path.glob("pah-opt-*/*.npy"))) == 1
    assert list(tmp_path.iterdir()) == []


def test_folder_keeps_states_for_the_next_run(
    make: Make, model: nn.Module, train: TensorSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make(folder=tmp_path).of(train, Views()) as split:
        first = values(split)
    monkeypatch.setattr(HiddenStates, "_fill", lambda *_: pytest.fail("computed again"))
    with make(folder=tmp_path).of(train, Views()) as split:
        assert torch.equal(values(split), first)


@pytest.mark.parametrize("change", ["weights", "images", "views", "seed", "augmentation", "precision"])
def test_states_of_something_else_are_not_taken(
    make: Make, model: nn.Module, train: TensorSplit, tmp_path: Path, change: str
) -> None:
    how = Augmentation(flip=True)
    with make(folder=tmp_path).of(train, Views(how, 1, 0)) as split:
        fingerprint = split.fingerprint
    if change == "weights":
        with torch.no_grad():
            model.get_submodule("vit.layers.0.mlp.fc1").get_parameter("bias").add_(0.1)
    views = {"views": Views(how, 2, 0), "seed": Views(how, 1, 1), "augmentation": Views(Augmentation(crop=0.1), 1, 0)}
    precision = "bf16" if change == "precision" else "no"
    images = train.subset(range(24)) if change == "images" else train
    with make(folder=tmp_path, precision=precision).of(images, views.get(change, Views(how, 1, 0))) as split:
        assert split.fingerprint != fingerprint
    assert len(list(tmp_path.iterdir())) == 2


def test_half_written_states_are_computed_again(make: Make, train: TensorSplit, tmp_path: Path) -> None:
    with make(folder=tmp_path).of(train, Views()) as split:
        first = values(split)
    (whole,) = tmp_path.iterdir()
    whole.rename(whole.with_suffix(".partial.npy"))
    with make(folder=tmp_path).of(train, Views()) as split:
        assert torch.equal(values(split), first)


def test_runs_that_share_a_folder_do_not_spoil_each_others_states(
    make: Make, train: TensorSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second run begins, and ends, while the first one has filled its file in and not yet given it its name."""
    fill, others = HiddenStates._fill, []

    def interrupted(self: HiddenStates, states: Any, split: TensorSplit, views: Views) -> None:
        fill(self, states, split, views)
        if not others:
            others.append("begun")
            with make(folder=tmp_path).of(train, Views()) as other:
                others.append(values(other))
        assert np.any(states), "the second run has truncated the file of the first"

    monkeypatch.setattr(HiddenStates, "_fill", interrupted)
    with make(folder=tmp_path).of(train, Views()) as split:
        assert torch.equal(values(split), others[1])
    assert len(list(tmp_path.iterdir())) == 1


def test_all_processes_write_to_one_new_file(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = make()
    drawn = states._token(tmp_path / "states.npy")
    monkeypatch.setattr(states.processes, "rank", 1)
    assert drawn > states._token(tmp_path / "states.npy") == 0, "the sum over all processes is what the main one drew"
    monkeypatch.undo()
    (tmp_path / "states.npy").touch()
    assert states._token(tmp_path / "states.npy") == 0


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such locks and needs none")
@pytest.mark.parametrize("living", [False, True])
def test_files_of_killed_runs_alone_are_removed(make: Make, train: TensorSplit, tmp_path: Path, living: bool) -> None:
    with make(folder=tmp_path).of(train, Views()):
        (whole,) = tmp_path.iterdir()
    left = whole.rename(whole.with_suffix(".123.partial.npy"))
    with _locked(left) if living else nullcontext(), make(folder=tmp_path).of(train, Views()):
        assert left.exists() == living


def test_failed_run_leaves_no_file(
    make: Make, train: TensorSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(HiddenStates, "_fill", fail)
    states = make(folder=tmp_path).of(train, Views())
    with pytest.raises(KeyboardInterrupt), states:
        pass
    assert list(tmp_path.iterdir()) == []


def test_states_do_not_depend_on_the_weights_above_them(
    make: Make, model: nn.Module, train: TensorSplit, tmp_path: Path
) -> None:
    """The last bits of a fitted head depend on the number of threads."""
    with make(folder=tmp_path).of(train, Views()) as split:
        fingerprint = split.fingerprint
    with torch.no_grad():
        for path in ("classifier", "vit.layernorm", "vit.layers.1.mlp.fc1"):
            model.get_submodule(path).get_parameter("bias").add_(1.0)
    with make(folder=tmp_path).of(train, Views()) as split:
        assert split.fingerprint == fingerprint


def test_augmented_views_differ_and_are_seeded(make: Make, train: TensorSplit) -> None:
    how = Augmentation(flip=True, crop=0.25)
    with make().of(train, Views(how, 2, 3)) as one, make().of(train, Views(how, 2, 3)) as same:
        first, second = (values(one.at_epoch(epoch)) for epoch in (0, 1))
        assert torch.equal(first, values(same.at_epoch(0)))
        assert torch.equal(second, values(same.at_epoch(1)))
    assert not torch.allclose(first, second, atol=1e-3)


def test_large_states_are_stored_in_full_precision(make: Make, model: nn.Module, train: TensorSplit) -> None:
    with torch.no_grad():
        model.get_submodule("vit.layers.0.mlp.fc2").get_parameter("bias").fill_(1e5)
    expected = inputs_of(model.get_submodule("vit.layers.1"), model, train.pixel_values)
    with make().of(train, Views()) as split:
        torch.testing.assert_close(values(split), expected)


def test_full_disk_is_named_before_anything_is_computed(
    make: Make, train: TensorSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=100))
    monkeypatch.setattr(HiddenStates, "_fill", lambda *_: pytest.fail("computed"))
    states = make(folder=tmp_path).of(train, Views())
    with pytest.raises(DataError, match=r"need 0.0 GB .* name a folder with more room, .*cache=False"), states:
        pass
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_made_is_named(make: Make, train: TensorSplit, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    states = make(folder=tmp_path / "file" / "cache").of(train, Views())
    with (
        pytest.raises(DataError, match=r"cannot be written to .*file/cache .*name another folder.*cache=False"),
        states,
    ):
        pass


def test_folder_that_cannot_be_written_to_is_named(
    make: Make, train: TensorSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(np.lib.format, "open_memmap", refuse)
    states = make(folder=tmp_path).of(train, Views())
    with pytest.raises(DataError, match=rf"cannot be written to {tmp_path} \(.*Permission denied\)"), states:
        pass


def test_missing_temporary_folder_is_said(make: Make, train: TensorSplit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/no/such/folder")
    states = make(memory_bytes=10).of(train, Views())
    with pytest.raises(DataError, match="cannot be written to a temporary folder"), states:
        pass


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this platform cannot set disk space aside")
def test_space_is_set_aside_before_states_are_computed(make: Make, train: TensorSplit, tmp_path: Path) -> None:
    _make_file(tmp_path / "states.npy", (1000, 1000), np.dtype(np.float32))
    assert (tmp_path / "states.npy").stat().st_blocks * 512 >= 4_000_000


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this platform cannot set disk space aside")
def test_disk_that_fills_in_the_meantime_is_named(
    make: Make, train: TensorSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    states = make(folder=tmp_path).of(train, Views())
    with pytest.raises(DataError, match=r"No space left on device.*name another folder.*cache=False"), states:
        pass
    assert list(tmp_path.iterdir()) == []


def test_file_systems_that_cannot_set_space_aside_serve_too(
    make: Make, train: TensorSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_args: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unsupported, raising=False)
    with make(folder=tmp_path).of(train, Views()) as split:
        assert len(split) == len(train)


def test_several_processes_need_a_folder(make: Make, train: TensorSplit) -> None:
    states = make()
    states.processes.count = 2
    with pytest.raises(DataError, match="several processes share cached hidden states"), states.of(train, Views()):
        pass
