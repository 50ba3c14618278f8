from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import ViTImageProcessorPil
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

from pah_opt.data import load_processor, processor_size, resized_processor
from pah_opt.data.preprocess import as_processor, processor_channels
from pah_opt.errors import DataError


def test_processor_is_loaded_from_its_folder(processor: Any, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path)
    assert processor_size(load_processor(tmp_path)) == (8, 8)
    assert as_processor(str(tmp_path)).image_mean == processor.image_mean


def test_folder_without_processor_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no image processor at .*preprocessor_config.json"):
        load_processor(tmp_path)


def test_what_is_no_processor_is_refused() -> None:
    with pytest.raises(DataError, match="a int is not an image processor; give the model's own"):
        as_processor(5)


def test_missing_processor_is_said_to_be_the_models() -> None:
    with pytest.raises(DataError, match="the model comes without an image processor"):
        as_processor(None)


def test_resizing_keeps_the_share_that_a_centre_crop_takes() -> None:
    cropped = BitImageProcessorPil(size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224})
    smaller = resized_processor(cropped, 112, 112)
    assert processor_size(smaller) == (112, 112)
    assert smaller.size["shortest_edge"] == 128
    assert processor_size(cropped) == (224, 224)


def test_resizing_changes_nothing_but_the_size(processor: Any) -> None:
    bigger = resized_processor(processor, 16, 24)
    assert processor_size(bigger) == (16, 24)
    assert {**bigger.to_dict(), "size": None} == {**processor.to_dict(), "size": None}
    assert resized_processor(processor, 8, 8) is processor


def test_size_that_depends_on_the_image_is_refused() -> None:
    loose = BitImageProcessorPil(size={"shortest_edge": 32}, do_center_crop=False)
    assert processor_size(loose) is None
    with pytest.raises(DataError, match="depends on the image"):
        resized_processor(loose, 16, 16)


def test_channels_follow_the_normalisation() -> None:
    assert processor_channels(ViTImageProcessorPil(image_mean=[0.5], image_std=[0.5])) == 1
    assert processor_channels(ViTImageProcessorPil()) == 3
    assert processor_channels(ViTImageProcessorPil(image_mean=0.5, image_std=0.5)) == 3, "a number is for every channel"
