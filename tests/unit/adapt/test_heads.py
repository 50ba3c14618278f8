from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from pah_opt.adapt.heads import Features, fit_linear, replace_head
from pah_opt.data import label_names
from pah_opt.errors import DataError, UnsupportedModelError
from pah_opt.models import find_adapter
from pah_opt.registry import default_registry
from pah_opt.testing.models import TINY_MODELS, tiny_vit


def blobs(count: int = 300, seed: int = 0) -> Features:
    """Three overlapping clouds of points in eight dimensions, of very unequal scales."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    inputs = torch.randn(count, 8, generator=generator)
    inputs[torch.arange(count), labels] += 2.5
    return Features(inputs * 10.0 ** torch.arange(-3.0, 5.0) + 50.0, labels)


def accuracy(inputs: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> float:
    return float((functional.linear(inputs, weight, bias).argmax(1) == labels).float().mean())


def test_agrees_with_scikit_learn_on_standardised_features() -> None:
    from sklearn.linear_model import LogisticRegression

    train = blobs()
    fitted = fit_linear(train, None, 3, penalties=[0.01])
    scaled = ((train.inputs - train.inputs.mean(0)) / train.inputs.std(0, correction=0)).numpy()
    reference = LogisticRegression(C=1 / (0.01 * 300), max_iter=1000, tol=1e-8).fit(scaled, train.labels.numpy())
    own = functional.linear(train.inputs.double(), fitted.weight.double(), fitted.bias.double()).softmax(1)
    torch.testing.assert_close(own.float(), torch.tensor(reference.predict_proba(scaled)).float(), atol=2e-3, rtol=0)


def test_features_of_unequal_scale_are_classified() -> None:
    fitted, held_out = fit_linear(blobs(), None, 3), blobs(seed=1)
    found = accuracy(held_out.inputs, held_out.labels, fitted.weight, fitted.bias)
    assert found > 0.85
    assert fitted.train_accuracy == pytest.approx(accuracy(blobs().inputs, blobs().labels, fitted.weight, fitted.bias))


def test_penalty_is_chosen_on_held_out_features() -> None:
    few, held_out = blobs(30), blobs(300, seed=1)
    losses = {}
    for penalty in (1e-6, 1e-2, 1e2):
        fitted = fit_linear(few, None, 3, penalties=[penalty])
        logits = functional.linear(held_out.inputs, fitted.weight, fitted.bias)
        losses[penalty] = float(functional.cross_entropy(logits, held_out.labels))
    chosen = fit_linear(few, held_out, 3, penalties=[1e-6, 1e-2, 1e2])
    assert chosen.penalty == min(losses, key=losses.__getitem__) == 1e-2
    found = accuracy(held_out.inputs, held_out.labels, chosen.weight, chosen.bias)
    assert chosen.validation_accuracy == pytest.approx(found, abs=1e-6)


def test_constant_features_do_no_harm() -> None:
    train = blobs()
    train.inputs[:, 3] = 7.0
    fitted = fit_linear(train, None, 3)
    assert torch.isfinite(fitted.weight).all()
    assert fitted.train_accuracy > 0.7


def test_loss_falls() -> None:
    losses = fit_linear(blobs(), None, 3).losses
    assert losses[0] == pytest.approx(torch.tensor(3.0).log().item(), rel=1e-5)
    assert losses[-1] < 0.5


def test_features_that_are_not_finite_are_refused() -> None:
    train = blobs()
    train.inputs[0, 0] = float("nan")
    with pytest.raises(DataError, match="features hold NaN or infinity"):
        fit_linear(train, None, 3)


@pytest.mark.parametrize("kind", list(TINY_MODELS))
def test_replaced_head_has_the_new_width_and_true_attributes(kind: str) -> None:
    model = TINY_MODELS[kind](classes=7)
    adapter = find_adapter(model, default_registry().adapters)
    names = ("red", "green", "blue")
    replace_head(model, adapter, names, seed=0)
    assert adapter.layout(model).num_classes == 3
    assert adapter.disagreements(model) == []
    assert adapter.logits(model(torch.zeros(1, 3, 32, 32))).shape == (1, 3)
    if hasattr(model, "config"):
        assert label_names(model) == names
        config = model.config
        assert config.label2id == {"red": 0, "green": 1, "blue": 2}  # type: ignore[union-attr]  # a transformers config
        assert model.num_labels == 3


def test_new_head_depends_on_the_seed_alone() -> None:
    heads = []
    for seed in (1, 1, 2):
        model = tiny_vit(classes=7)
        replace_head(model, find_adapter(model, default_registry().adapters), ("a", "b"), seed)
        heads.append(model.get_submodule("classifier").get_parameter("weight").detach().clone())
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_label_names_survive_saving(tmp_path: object) -> None:
    from transformers import ViTForImageClassification

    model = tiny_vit(classes=7)
    replace_head(model, find_adapter(model, default_registry().adapters), ("cat", "dog"), seed=0)
    model.save_pretrained(tmp_path)  # type: ignore[operator]  # a transformers model
    again = ViTForImageClassification.from_pretrained(tmp_path)
    assert again.config.id2label == {0: "cat", 1: "dog"}


def test_backbone_without_classifier_says_how_to_load_one() -> None:
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32)
    backbone: nn.Module = ViTModel(config, add_pooling_layer=False)
    adapter = find_adapter(backbone, default_registry().adapters)
    with pytest.raises(UnsupportedModelError, match=r"has no classifier to replace; load it as .*num_labels=2"):
        replace_head(backbone, adapter, ("a", "b"), seed=0)
