from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from pah_opt.adapt import TrainSettings
from pah_opt.adapt.augment import Example
from pah_opt.adapt.objective import Objective, distillation_loss, feature_loss, matching_blocks, watching_outputs
from pah_opt.errors import UnsupportedModelError
from pah_opt.layout import ModelAdapter

LOGITS = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(6) % 3


def example(size: int = 16) -> Example:
    return Example(torch.randn(6, 3, size, size, generator=torch.Generator().manual_seed(1)), LABELS, LABELS)


def test_same_logits_have_no_distillation_loss() -> None:
    assert float(distillation_loss(LOGITS, LOGITS + 5.0, 2.0)) == pytest.approx(0.0, abs=1e-5)


def test_distillation_loss_is_the_scaled_divergence_of_softened_distributions() -> None:
    teacher = LOGITS.flip(0)
    p, q = (teacher / 3.0).softmax(1), (LOGITS / 3.0).softmax(1)
    expected = 9.0 * (p * (p / q).log()).sum()
    assert float(distillation_loss(LOGITS, teacher, 3.0)) == pytest.approx(float(expected), rel=1e-5)


def test_feature_loss_is_the_share_of_variance_that_is_missed() -> None:
    teacher = [torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    assert float(feature_loss(teacher, teacher)) == 0.0
    means = [state.mean(dim=(1, 2), keepdim=True).expand_as(state) for state in teacher]
    # The variance is the unbiased one, of 30 values.
    assert float(feature_loss(means, teacher)) == pytest.approx(4.0 * 29 / 30, rel=1e-5), (
        "one for each image, where nothing fits"
    )


@pytest.mark.parametrize(("student", "teacher"), [(12, 12), (10, 12), (1, 12), (3, 4)])
def test_fewer_blocks_match_later_ones_in_order_and_the_last_the_last(student: int, teacher: int) -> None:
    matched = matching_blocks(student, teacher)
    assert matched == sorted(set(matched))
    assert matched[-1] == teacher - 1


def test_without_teacher_the_loss_is_the_labels(adapter: ModelAdapter) -> None:
    objective = Objective(TrainSettings(label_smoothing=0.1), adapter)
    expected = functional.cross_entropy(LOGITS, LABELS, label_smoothing=0.1, reduction="sum")
    assert float(objective(LOGITS, example())) == pytest.approx(float(expected))


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_teacher_and_labels_are_weighed(model: nn.Module, adapter: ModelAdapter, share: float) -> None:
    given = example()
    objective = Objective(TrainSettings(distill=share), adapter, model)
    teacher = adapter.logits(model(given.pixels)).detach()
    labels = functional.cross_entropy(LOGITS, LABELS, reduction="sum")
    expected = (1 - share) * labels + share * distillation_loss(LOGITS, teacher, 2.0)
    assert float(objective(LOGITS, given)) == pytest.approx(float(expected), rel=1e-5)


def test_teacher_of_another_input_size_sees_the_images_at_its_size(model: nn.Module, adapter: ModelAdapter) -> None:
    objective = Objective(TrainSettings(distill=1.0), adapter, model, teacher_size=(16, 16))
    assert torch.isfinite(objective(LOGITS, example(size=8)))


def test_hidden_states_of_other_shapes_are_refused_with_the_remedy(adapter: ModelAdapter, model: nn.Module) -> None:
    settings = TrainSettings(distill_features=1.0)
    objective = Objective(settings, adapter, model, None, {"a": torch.zeros(6, 5, 8)}, {"a": torch.zeros(6, 5, 4)})
    with pytest.raises(UnsupportedModelError, match="set distill_features to 0"):
        objective(LOGITS, example())


def test_watching_leaves_no_hook(model: nn.Module) -> None:
    with watching_outputs(model, ["vit.layers.0"]) as seen:
        model(example().pixels)
    assert seen["vit.layers.0"].shape == (6, 5, 32)
    assert not model.get_submodule("vit.layers.0")._forward_hooks


def test_feature_loss_does_not_depend_on_how_a_batch_is_cut() -> None:
    student, teacher = ([torch.randn(6, 5, 8, generator=torch.Generator().manual_seed(seed))] for seed in (0, 1))
    parts = sum(float(feature_loss([student[0][rows]], [teacher[0][rows]])) for rows in (slice(0, 2), slice(2, 6)))
    assert parts == pytest.approx(float(feature_loss(student, teacher)), rel=1e-5)
