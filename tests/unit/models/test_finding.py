from __future__ import annotations

import subprocess
import sys

import pytest
from torch import nn

from pah_opt.errors import UnsupportedModelError
from pah_opt.models import find_adapter
from pah_opt.models.builtin import pah_opt_model_adapters
from pah_opt.testing import tiny_vit


class Cnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        self.classifier = nn.Linear(8, 10)


class Explosive(nn.Module):
    """A module whose attributes raise what nn.Module never does."""

    def __getattr__(self, name: str) -> object:
        raise ValueError(name)


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (Cnn(), r"Cnn \(with features: Sequential, classifier: Linear\)"),
        (nn.LSTM(8, 8), r"LSTM \(with no submodules\)"),
        (nn.Sequential(nn.Linear(2, 2)), r"Sequential \(with 0: Linear\)"),
        (nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2), 2, enable_nested_tensor=False), "TransformerEncoder"),
    ],
)
def test_other_models_are_refused_with_their_type_what_is_supported_and_how_to_add_a_family(
    model: nn.Module, named: str
) -> None:
    with pytest.raises(UnsupportedModelError, match=named) as caught:
        find_adapter(model, pah_opt_model_adapters())
    assert "supported: hf-vit, hf-deit, hf-dinov2, hf-vit-legacy, timm-vit, torchvision-vit" in str(caught.value)
    assert "pah_opt_model_adapters" in str(caught.value)


@pytest.mark.parametrize("nothing", [None, 5, "model"])
def test_what_is_no_model_at_all_is_refused_by_its_type(nothing: object) -> None:
    with pytest.raises(UnsupportedModelError, match=f"a builtins.{type(nothing).__name__}"):
        find_adapter(nothing, pah_opt_model_adapters())  # type: ignore[arg-type]


def test_a_model_whose_attributes_raise_matches_nothing() -> None:
    assert not any(adapter.matches(Explosive()) for adapter in pah_opt_model_adapters())


def test_the_first_adapter_that_matches_is_used() -> None:
    first, *_ = pah_opt_model_adapters()

    class Mine(type(first)):  # type: ignore[misc]
        name = "mine"

    assert find_adapter(tiny_vit(), (Mine(), first)).name == "mine"


def test_an_adapter_that_fails_at_a_model_does_not_know_it() -> None:
    class Broken(type(pah_opt_model_adapters()[0])):  # type: ignore[misc]  # any adapter will do
        name = "broken"

        def matches(self, model: nn.Module) -> bool:
            return model.my_backbone is not None

    adapters = pah_opt_model_adapters()
    assert find_adapter(tiny_vit(), [Broken(), *adapters]) in adapters


def test_no_adapter_at_all_says_where_to_look() -> None:
    with pytest.raises(UnsupportedModelError, match="no adapter is loaded; see pah-opt plugins"):
        find_adapter(tiny_vit(), ())


def test_adapters_are_listed_without_torch() -> None:
    listing = "from pah_opt.models import builtin; list(builtin.pah_opt_model_adapters())"
    code = f"import sys; {listing}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
