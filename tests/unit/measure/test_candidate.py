from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from pah_opt.data import TensorSplit
from pah_opt.errors import MeasurementError, UnsupportedModelError
from pah_opt.measure.candidate import Candidate, candidates_of, class_names_of
from pah_opt.registry import default_registry


@pytest.fixture
def adapters() -> Any:
    return default_registry().adapters


def test_a_module_is_taken_as_it_is(model: nn.Module, adapters: Any) -> None:
    found = Candidate.of("x", model, adapters)
    assert (found.model, found.artifact, found.input_shape) == (model, None, (3, 16, 16))
    assert (found.device.type, found.dtype) == ("cpu", torch.float32)


def test_an_artifact_is_taken_for_its_model_and_record(model: nn.Module, adapters: Any) -> None:
    artifact = SimpleNamespace(model=model, recipe=None, adapter="hf-vit")
    found = Candidate.of("x", artifact, adapters)
    assert (found.model, found.artifact) == (model, artifact)


def test_a_compiled_model_is_measured_compiled_and_read_uncompiled(model: nn.Module, adapters: Any) -> None:
    compiled = torch.compile(model)
    found = Candidate.of("x", compiled, adapters)
    assert found.model is compiled
    assert found.layout is not None


def test_inputs_are_seeded_and_in_the_models_type(model: nn.Module, adapters: Any) -> None:
    found = Candidate.of("x", model.bfloat16(), adapters)
    assert found.pixels(4).shape == (4, 3, 16, 16)
    assert found.pixels(4).dtype == torch.bfloat16
    assert torch.equal(found.pixels(4, seed=1), found.pixels(4, seed=1))


def test_a_call_runs_without_gradients(candidate: Candidate) -> None:
    assert candidate.call(2)().logits.is_inference()  # type: ignore[attr-defined]


def test_something_that_is_no_model_is_refused(adapters: Any) -> None:
    with pytest.raises(MeasurementError, match=r"x is a str; give a torch\.nn\.Module or an Artifact"):
        Candidate.of("x", "model.pt", adapters)


def test_an_unknown_family_is_refused(adapters: Any) -> None:
    with pytest.raises(UnsupportedModelError):
        Candidate.of("x", nn.LSTM(3, 4), adapters)


def test_a_model_without_values_is_refused(model: nn.Module, adapters: Any) -> None:
    with pytest.raises(MeasurementError, match="x is on the meta device and holds no values"):
        Candidate.of("x", model.to("meta"), adapters)


def test_logits_that_are_not_finite_are_refused(candidate: Candidate) -> None:
    with torch.no_grad():
        candidate.model.classifier.bias.fill_(float("nan"))
    with pytest.raises(MeasurementError, match="logits of dense hold NaN"):
        candidate.check(1)


def test_a_forward_pass_that_fails_is_named(candidate: Candidate) -> None:
    candidate.input_shape = (5, 16, 16)
    with pytest.raises(
        MeasurementError, match=r"forward pass of dense failed on random images of shape \(1, 5, 16, 16\)"
    ):
        candidate.check(1)


def test_no_models_are_refused(adapters: Any) -> None:
    with pytest.raises(MeasurementError, match="no models to measure"):
        candidates_of({}, adapters)


def test_models_on_different_devices_are_refused(
    model: nn.Module, adapters: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = iter((torch.device("cpu"), torch.device("cuda", 0)))

    def there(candidate: Candidate) -> None:
        candidate.device, candidate.dtype = next(devices), torch.float32

    monkeypatch.setattr(Candidate, "__post_init__", there)
    with pytest.raises(MeasurementError, match="different devices"):
        candidates_of({"a": model, "b": model}, adapters)


class Engine(nn.Module):
    """Runs the whole graph at once: no blocks to be found."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean(dim=(2, 3))


def test_an_engine_without_blocks_takes_its_input_shape_from_the_data(model: nn.Module, adapters: Any) -> None:
    split = TensorSplit(torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]), ("a", "b", "c"))
    artifact = SimpleNamespace(model=Engine(), adapter="hf-vit")
    found = Candidate.of("x", artifact, adapters, split)
    assert (found.layout, found.input_shape) == (None, (3, 8, 8))
    with pytest.raises(MeasurementError, match="input shape of x cannot be read from the model; pass data"):
        Candidate.of("x", artifact, adapters)


def test_classes_of_the_head_name_those_of_nameless_data(model: nn.Module, adapters: Any) -> None:
    assert class_names_of({"x": model}, adapters) == tuple("0123456789")
    named = SimpleNamespace(model=model, class_names=("cat", "dog"), adapter="hf-vit")
    assert class_names_of({"x": named}, adapters) == ("cat", "dog")
