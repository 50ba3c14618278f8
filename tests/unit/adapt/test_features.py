from __future__ import annotations

import pytest
import torch
from torch import nn

from pah_opt.adapt.features import classifier_inputs, fit_head
from pah_opt.adapt.processes import Processes
from pah_opt.data import TensorSplit
from pah_opt.errors import UnsupportedModelError
from pah_opt.layout import ModelAdapter
from pah_opt.models import find_adapter
from pah_opt.registry import default_registry
from pah_opt.testing.models import tiny_deit

from .conftest import MakeSplit

CPU = Processes(torch.device("cpu"), "no")


def test_features_are_what_the_classifier_gets(model: nn.Module, adapter: ModelAdapter, train: TensorSplit) -> None:
    features = classifier_inputs(model, adapter.layout(model), train, CPU)["classifier"]
    with torch.no_grad():
        logits = model(train.pixel_values).logits
        torch.testing.assert_close(model.get_submodule("classifier")(features.inputs), logits)
    assert torch.equal(features.labels, train.labels)
    assert not model.get_submodule("classifier")._forward_pre_hooks


def test_distilled_model_gets_a_classifier_for_each_token(make_split: MakeSplit) -> None:
    model = tiny_deit(distilled=True, classes=3, image=16)
    adapter = find_adapter(model, default_registry().adapters)
    layout = adapter.layout(model)
    before = {path: model.get_submodule(path).get_parameter("weight").clone() for path in layout.classifiers}
    fitted = fit_head(model, layout, make_split(90), make_split(30, seed=1), CPU)
    weights = {path: model.get_submodule(path).get_parameter("weight") for path in layout.classifiers}
    assert len(weights) == 2
    assert all(not torch.equal(weights[path], before[path]) for path in weights)
    assert torch.equal(weights[layout.classifiers[0]], fitted.weight)
    assert fitted.validation_accuracy is not None
    assert fitted.validation_accuracy > 0.8


def test_classifier_that_does_not_run_is_named(model: nn.Module, adapter: ModelAdapter, train: TensorSplit) -> None:
    layout = adapter.layout(model)
    model.forward = lambda pixels: pixels  # type: ignore[method-assign]  # a model that never classifies
    with pytest.raises(UnsupportedModelError, match="the classifier classifier did not run"):
        classifier_inputs(model, layout, train, CPU)


def test_classifier_on_every_token_is_refused(model: nn.Module, adapter: ModelAdapter, train: TensorSplit) -> None:
    layout = adapter.layout(model)
    head = model.get_submodule("classifier")
    model.forward = lambda pixels: head(pixels.new_zeros(len(pixels), 5, 32))  # type: ignore[method-assign]  # as above
    with pytest.raises(UnsupportedModelError, match=r"ran on inputs of shape \(48, 5, 32\); one vector an image"):
        classifier_inputs(model, layout, train, CPU)
