from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pah_opt.data import TensorSplit
from pah_opt.errors import DataError, MeasurementError, UnsupportedModelError
from pah_opt.measure.accuracy import Predictions, at_chance, predict
from pah_opt.splits import Batch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pah_opt.layout import ModelAdapter


class Fixed(nn.Module):
    """Answers with the logits it was given, image after image."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits
        self.at = 0

    def forward(self, pixels: Tensor) -> Any:
        start, self.at = self.at, self.at + len(pixels)
        return SimpleNamespace(logits=self.logits[start : self.at])


class FakeSplit:
    """Labels that no check has seen."""

    name = "fake"
    fingerprint = "f" * 16

    def __init__(self, labels: Sequence[int], classes: int, announced: int | None = None, pixels: int = 2) -> None:
        self.labels = torch.tensor(labels, dtype=torch.int64)
        self.class_names = tuple(map(str, range(classes)))
        self.announced = announced
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.labels) if self.announced is None else self.announced

    def batches(self, batch_size: int, *, shuffle_seed: int | None = None) -> Iterator[Batch]:
        for labels in self.labels.split(batch_size):
            yield Batch(torch.zeros(len(labels), 3, self.pixels, self.pixels), labels)

    def subset(self, indices: Sequence[int]) -> FakeSplit:
        return FakeSplit(self.labels[list(indices)].tolist(), len(self.class_names))

    def resized(self, height: int, width: int) -> FakeSplit:
        return self


def answers(labels: Sequence[int], predicted: Sequence[int], classes: int = 10) -> Predictions:
    count = len(labels)
    return Predictions(
        np.array(labels), np.array(predicted), None, np.full(count, 0.5), np.ones(count), classes, "same images"
    )


def test_top1_counts_images_that_are_right(model: nn.Module, adapter: ModelAdapter, split: TensorSplit) -> None:
    found = predict(model, adapter, split)
    assert found.top1 == 0.75
    assert len(found) == 40
    assert found.fingerprint == split.fingerprint


@pytest.mark.parametrize("batch_size", [1, 7, 40, 100])
def test_batch_size_does_not_matter(
    batch_size: int, model: nn.Module, adapter: ModelAdapter, split: TensorSplit
) -> None:
    whole, parts = predict(model, adapter, split), predict(model, adapter, split, batch_size=batch_size)
    assert np.array_equal(whole.predicted, parts.predicted)
    np.testing.assert_allclose(whole.nll, parts.nll, rtol=1e-4)


def test_figures_agree_with_their_definitions(adapter: ModelAdapter) -> None:
    logits = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)) * 2
    labels = torch.arange(50) % 8
    found = predict(Fixed(logits), adapter, FakeSplit(labels.tolist(), 8), batch_size=16)
    assert found.nll.mean() == pytest.approx(float(nn.functional.cross_entropy(logits, labels)), rel=1e-5)
    best = logits.softmax(dim=1).max(dim=1)
    assert found.top1 == pytest.approx(float((best.indices == labels).float().mean()))
    in_five = (logits.topk(5).indices == labels[:, None]).any(dim=1).float().mean()
    assert found.top5 == pytest.approx(float(in_five))
    np.testing.assert_allclose(found.confidences, best.values.numpy(), rtol=1e-5)


def test_ece_of_a_confident_and_wrong_model_is_its_confidence(adapter: ModelAdapter) -> None:
    logits = torch.zeros(20, 2)
    logits[:, 0] = torch.log(torch.tensor(9.0))  # says 90 %
    assert predict(Fixed(logits), adapter, FakeSplit([1] * 20, 2)).ece == pytest.approx(0.9)
    assert predict(Fixed(logits), adapter, FakeSplit([0] * 18 + [1] * 2, 2)).ece == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("classes", "has_top5"), [(2, False), (5, False), (6, True)])
def test_top5_needs_six_classes(classes: int, has_top5: bool, adapter: ModelAdapter) -> None:
    found = predict(Fixed(torch.randn(12, classes)), adapter, FakeSplit([0] * 12, classes))
    assert (found.top5 is not None) == has_top5


def test_a_model_in_training_mode_is_judged_in_eval_mode_and_put_back(
    model: nn.Module, adapter: ModelAdapter, split: TensorSplit
) -> None:
    model.train()
    model.vit.layers[0].eval()
    assert predict(model, adapter, split).top1 == 0.75
    assert model.training
    assert not model.vit.layers[0].mlp.training


def test_a_half_precision_model_is_given_half_precision_images(
    model: nn.Module, adapter: ModelAdapter, split: TensorSplit
) -> None:
    assert predict(model.bfloat16(), adapter, split).top1 > 0.6


def test_a_model_that_returns_a_tuple_is_judged_or_refused_by_name(adapter: ModelAdapter) -> None:
    class Tuple(nn.Module):
        def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
            return torch.zeros(len(pixels), 3), torch.zeros(len(pixels), 3)

    with pytest.raises((UnsupportedModelError, MeasurementError), match="logits"):
        predict(Tuple(), adapter, FakeSplit([0, 1], 3))


def test_a_dataset_with_other_classes_is_refused(model: nn.Module, adapter: ModelAdapter) -> None:
    with pytest.raises(DataError, match="head has 10 classes, fake has 7"):
        predict(model, adapter, FakeSplit([0, 1], 7, pixels=16))


def test_labels_out_of_range_are_refused(adapter: ModelAdapter) -> None:
    with pytest.raises(DataError, match="labels of fake run from 0 to 3"):
        predict(Fixed(torch.zeros(2, 3)), adapter, FakeSplit([0, 3], 3))
    with pytest.raises(DataError, match="from -1 to 0"):
        predict(Fixed(torch.zeros(2, 3)), adapter, FakeSplit([0, -1], 3))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_refused(bad: float, adapter: ModelAdapter) -> None:
    logits = torch.zeros(4, 3)
    logits[2, 1] = bad
    with pytest.raises(MeasurementError, match="logits of 1 of 4 images"):
        predict(Fixed(logits), adapter, FakeSplit([0] * 4, 3))


def test_no_images_are_refused(adapter: ModelAdapter) -> None:
    with pytest.raises(DataError, match="holds no images"):
        predict(Fixed(torch.zeros(1, 3)), adapter, FakeSplit([], 3))


def test_a_split_that_gives_fewer_images_than_it_announces_is_refused(adapter: ModelAdapter) -> None:
    with pytest.raises(DataError, match="announces 5 images and gave 2"):
        predict(Fixed(torch.zeros(2, 3)), adapter, FakeSplit([0, 1], 3, announced=5))


def test_one_image_is_enough_for_accuracy(adapter: ModelAdapter) -> None:
    assert predict(Fixed(torch.eye(3)[:1]), adapter, FakeSplit([0], 3)).top1 == 1.0


def test_a_failing_forward_pass_is_named(model: nn.Module, adapter: ModelAdapter) -> None:
    wrong = TensorSplit(torch.zeros(2, 1, 16, 16), torch.tensor([0, 1]), tuple("abcdefghij"))
    with pytest.raises(MeasurementError, match="failed on images of shape"):
        predict(model, adapter, wrong)


def test_logits_of_the_wrong_shape_are_refused(adapter: ModelAdapter) -> None:
    with pytest.raises((MeasurementError, UnsupportedModelError), match=r"shape|logits"):
        predict(Fixed(torch.zeros(2, 3, 4)), adapter, FakeSplit([0, 1], 3))


class TestAtChance:
    def test_a_constant_answer_is_at_chance(self) -> None:
        assert at_chance(answers([0, 1, 2, 3, 4] * 20, [0] * 100, 5), 5)

    def test_a_constant_answer_on_unbalanced_labels_is_at_chance(self) -> None:
        """70 % right, by always giving the most frequent class."""
        assert at_chance(answers([0] * 70 + [1] * 30, [0] * 100, 2), 2)

    def test_a_good_model_is_not(self) -> None:
        labels = [0, 1, 2, 3, 4] * 20
        assert not at_chance(answers(labels, labels[:90] + [0] * 10, 5), 5)

    def test_a_mediocre_model_is_not(self) -> None:
        """30 % of 128 images and 10 classes cannot be luck."""
        labels = [index % 10 for index in range(128)]
        predicted = [label if index < 38 else (label + 5) % 10 for index, label in enumerate(labels)]
        assert not at_chance(answers(labels, predicted), 10)

    def test_random_answers_are_at_chance_in_nearly_all_trials(self) -> None:
        random = np.random.default_rng(0)
        trials = [answers(random.integers(0, 10, 128), random.integers(0, 10, 128)) for _ in range(300)]
        assert sum(at_chance(trial, 10) for trial in trials) >= 297

    def test_a_right_answer_on_a_split_of_one_class_is_not(self) -> None:
        """The first images of a split that is sorted by class."""
        assert not at_chance(answers([3] * 64, [3] * 62 + [1, 2]), 10)

    def test_too_few_images_never_say_so(self) -> None:
        assert not at_chance(answers([0, 1], [1, 0], 2), 2)

    def test_worse_than_chance_is_at_chance(self) -> None:
        labels = [index % 10 for index in range(100)]
        assert at_chance(answers(labels, [(label + 1) % 10 for label in labels]), 10)
