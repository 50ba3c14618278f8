"""Labelled images, preprocessed by the processor that belongs to the model, in parts that never overlap."""

from __future__ import annotations

from pah_opt.data.checks import (
    check_fit,
    check_input,
    check_order,
    check_several_classes,
    check_trained_classes,
    label_names,
    labels_of,
    training_images,
)
from pah_opt.data.coerce import as_data, as_split
from pah_opt.data.datasets_source import ImageChoice, load_data, split_names
from pah_opt.data.digits import DIGITS, digits_data, digits_processor, is_digits
from pah_opt.data.preprocess import load_processor, processor_size, resized_processor
from pah_opt.data.sampling import balanced_subset, calibration_split, validation_split
from pah_opt.data.splits import ImageSplit, TensorSplit

__all__ = [
    "DIGITS",
    "ImageChoice",
    "ImageSplit",
    "TensorSplit",
    "as_data",
    "as_split",
    "balanced_subset",
    "calibration_split",
    "check_fit",
    "check_input",
    "check_order",
    "check_several_classes",
    "check_trained_classes",
    "digits_data",
    "digits_processor",
    "is_digits",
    "label_names",
    "labels_of",
    "load_data",
    "load_processor",
    "processor_size",
    "resized_processor",
    "split_names",
    "training_images",
    "validation_split",
]
