"""Images shared among processes; whole launches of two are in tests/unit/workflow/test_ranks.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pah_opt.errors import DataError, MeasurementError
from pah_opt.measure.accuracy import joined, predict
from pah_opt.measure.sharing import ProcessGroup
from pah_opt.models import find_adapter
from pah_opt.registry import default_registry
from pah_opt.testing import tiny_data, tiny_vit


class Answered(ProcessGroup):
    """A process whose neighbour answers what a test says."""

    theirs: tuple[str, Any, str | None]

    def _exchange(self, answer: Any) -> list[Any]:
        return [answer, self.theirs]


def beside(theirs: tuple[str, Any, str | None]) -> ProcessGroup:
    group = Answered(0, 2)
    object.__setattr__(group, "theirs", theirs)
    return group


@pytest.mark.parametrize(("images", "batch", "count"), [(23, 5, 2), (23, 5, 3), (10, 5, 2), (4, 8, 3), (9, 1, 4)])
def test_every_image_belongs_to_one_process_and_batches_stay_whole(images: int, batch: int, count: int) -> None:
    parts = [ProcessGroup(rank, count).rows(images, batch) for rank in range(count)]
    assert sorted(row for part in parts for row in part) == list(range(images))
    for part in parts:
        for start in range(0, len(part), batch):
            together = part[start : start + batch]
            assert {row // batch for row in together} == {together[0] // batch}


def test_parts_put_together_are_the_whole_to_the_last_bit() -> None:
    model, images = tiny_vit(classes=7, image=16).eval(), tiny_data(classes=7, image=16).test
    adapter = find_adapter(model, default_registry().adapters)
    rows = [ProcessGroup(rank, 3).rows(len(images), 4) for rank in range(3)]
    parts = [predict(model, adapter, images.subset(mine), batch_size=4) for mine in rows]
    whole, found = predict(model, adapter, images, batch_size=4), joined(parts, [row for mine in rows for row in mine])
    for name in ("labels", "predicted", "top5_hits", "confidences", "nll"):
        assert np.array_equal(getattr(found, name), getattr(whole, name)), name


def test_one_process_has_all_images_and_needs_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    alone = ProcessGroup.launched()
    assert (alone.rank, alone.count) == (0, 1)
    assert alone.rows(5, 2) == [0, 1, 2, 3, 4]
    assert alone.gather("a number", lambda: 3) == [3]
    assert not torch.distributed.is_initialized()


def test_what_fails_in_another_process_is_told_with_its_rank() -> None:
    with pytest.raises(MeasurementError, match=r"accuracy of a failed in process 1: MeasurementError: NaN"):
        beside(("accuracy of a", None, "MeasurementError: NaN")).gather("accuracy of a", lambda: 1)


def test_what_fails_here_is_raised_as_it_is_once_the_others_know() -> None:
    def fail() -> None:
        raise DataError("no images")

    with pytest.raises(DataError, match="no images"):
        beside(("accuracy of a", 1, None)).gather("accuracy of a", fail)


def test_processes_that_measure_different_models_are_told_apart() -> None:
    with pytest.raises(MeasurementError, match="accuracy of a here, accuracy of b in process 1"):
        beside(("accuracy of b", 1, None)).gather("accuracy of a", lambda: 1)


@pytest.mark.parametrize("size", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"])
def test_the_processes_of_every_launcher_are_joined(monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    monkeypatch.setenv(size, "2")
    monkeypatch.setattr("accelerate.PartialState", lambda: SimpleNamespace(process_index=1, num_processes=2))
    group = ProcessGroup.launched()
    assert (group.rank, group.count) == (1, 2)
