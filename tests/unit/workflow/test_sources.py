"""The name ``digits`` stands for what comes with the package."""

from __future__ import annotations

import pytest

from pah_opt.adapt import evaluate
from pah_opt.errors import DataError
from pah_opt.models import find_adapter
from pah_opt.registry import default_registry
from pah_opt.workflow import Source, empty_model


def test_the_embedded_model_knows_the_embedded_test_images() -> None:
    source = Source.load("digits", "digits")
    assert (source.name, source.weights_origin) == ("digits", "pretrained")
    assert source.data is not None
    adapter = find_adapter(source.model, default_registry().adapters)
    assert evaluate(source.model, source.data.test, adapter).accuracy > 0.95


def test_it_can_be_had_with_random_weights_or_none() -> None:
    source = Source.load("digits", "digits", weights="random", seed=3)
    assert (source.weights_origin, source.data) == ("random", None)
    assert {parameter.device.type for parameter in empty_model("digits").parameters()} == {"meta"}


def test_limits_of_embedded_images_are_limits_as_anywhere() -> None:
    source = Source.load("digits", "digits", train_limit=40, test_limit=30)
    assert source.data is not None
    assert source.data.train is not None
    assert (len(source.data.train), len(source.data.test)) == (40, 30)
    with pytest.raises(DataError, match="a limit of 0 images"):
        Source.load("digits", "digits", test_limit=0)
