"""Hugging Face DeiT, with one classifier or with a second one for the distillation token."""

from __future__ import annotations

from pah_opt.models.adapters.hf_vit import encoder_names
from pah_opt.models.adapters.huggingface import HuggingFaceAdapter


class HuggingFaceDeiT(HuggingFaceAdapter):
    """``DeiTForImageClassification``, ``DeiTForImageClassificationWithTeacher`` and the bare ``DeiTModel``."""

    name = "hf-deit"
    names = encoder_names(
        ("deit", ""),
        classifiers=("classifier", "cls_classifier", "distillation_classifier"),
        present=("embeddings.distillation_token",),
    )
