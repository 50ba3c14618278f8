from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch import nn

from pah_opt import Data
from pah_opt.adapt.adaptation import adapt
from pah_opt.adapt.processes import Processes
from pah_opt.adapt.results import Epoch
from pah_opt.adapt.tensorboard import epoch_log
from pah_opt.errors import ArtifactError, MissingBackendError
from pah_opt.progress import Progress
from pah_opt.testing.models import tiny_vit

from .conftest import MakeSplit

TAGS = ["loss/training", "loss/validation", "accuracy/training", "accuracy/validation", "lr"]


class Writer:
    """Stands in for torch's SummaryWriter."""

    made: list[Writer] = []  # noqa: RUF012  # emptied by the fixture

    def __init__(self, folder: str) -> None:
        self.folder, self.scalars, self.closed, self.flushes = folder, list[tuple[str, float, int]](), False, 0
        Writer.made.append(self)

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.scalars.append((tag, value, step))

    def flush(self) -> None:
        self.flushes += 1

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> list[Writer]:
    module: Any = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(Writer, "made", [])
    return Writer.made


@pytest.fixture
def data(make_split: MakeSplit) -> Data:
    return Data(test=make_split(12, seed=2), train=make_split(30))


@pytest.mark.parametrize(("mode", "epochs"), [("full", 2), ("head", 1)])
def test_every_epoch_is_written(writers: list[Writer], data: Data, tmp_path: Path, mode: Any, epochs: int) -> None:
    model = tiny_vit(classes=5, image=16)
    options: dict[str, Any] = {} if mode == "head" else {"epochs": epochs}
    result = adapt(model, data, mode, tensorboard=tmp_path, progress=Progress(), **options)
    (writer,) = writers
    assert writer.folder == str(tmp_path)
    assert [(tag, step) for tag, _, step in writer.scalars] == [(t, e) for e in range(1, epochs + 1) for t in TAGS]
    last = result.result.history[-1]
    assert writer.scalars[-4:-1] == [
        ("loss/validation", last.validation_loss, epochs),
        ("accuracy/training", last.train_accuracy, epochs),
        ("accuracy/validation", last.validation_accuracy, epochs),
    ]
    assert writer.flushes == epochs
    assert writer.closed


def test_only_the_main_process_writes(
    writers: list[Writer], data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Processes, "is_main", False)
    adapt(tiny_vit(classes=5, image=16), data, "head", tensorboard=tmp_path, progress=Progress())
    assert writers == []


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with epoch_log(tmp_path) as write:
        assert write is not None
        write(Epoch(1, 4, 0.5, 0.75, None, None, 1e-4, 2.0))
        write(Epoch(2, 8, 0.25, 1.0, None, None, 0.0, 2.0))
    events = EventAccumulator(str(tmp_path)).Reload()
    assert sorted(events.Tags()["scalars"]) == ["accuracy/training", "loss/training", "lr"]
    assert [(each.step, each.value) for each in events.Scalars("loss/training")] == [(1, 0.5), (2, 0.25)]


def test_missing_tensorboard_names_the_extra_before_any_work(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setattr("pah_opt.adapt.modes.fit_head", lambda *_: pytest.fail("work was done first"))
    model: nn.Module = tiny_vit(classes=5, image=16)
    with pytest.raises(MissingBackendError, match=r"pip install 'pah-opt\[tensorboard\]'"):
        adapt(model, data, "head", tensorboard=tmp_path, progress=Progress())


def test_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_folder: str) -> None:
        raise PermissionError("denied")

    module: Any = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = refuse
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    with pytest.raises(ArtifactError, match=r"cannot be written .*another folder for TensorBoard"), epoch_log(tmp_path):
        pass
