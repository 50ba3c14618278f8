"""A real pretrained ViT on real images, a few of each."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pah_opt.adapt.adaptation import adapt
from pah_opt.data import labels_of, load_data
from pah_opt.models import load_model
from pah_opt.progress import Progress

FOLDER = Path(os.environ.get("PAH_OPT_DATA", Path(__file__).parents[4] / "shared" / "data"))

pytestmark = [
    pytest.mark.data,
    pytest.mark.slow,
    pytest.mark.skipif(not (FOLDER / "cifar10").is_dir(), reason=f"no real data in {FOLDER}; set PAH_OPT_DATA"),
]


def test_head_on_ten_images_a_class_classifies_cifar_10() -> None:
    """With 8,000 training images it is 96 % (docs/adapt.md); so few give more than 80 %."""
    loaded = load_model(FOLDER / "dinov2-small")
    data = load_data(FOLDER / "cifar10", loaded.processor, train_limit=100, test_limit=50)
    assert labels_of(data.test).bincount().tolist() == [5] * 10
    assert data.test.class_names[:3] == ("airplane", "automobile", "bird")
    result = adapt(loaded.model, data, "head", validation=0.0, progress=Progress())
    assert result.test.accuracy > 0.8
    assert result.model.get_submodule("classifier").get_parameter("weight").shape == (10, 768)
