"""The contract, on every kind of model."""

from __future__ import annotations

from typing import ClassVar

from pah_opt.testing import PARTNERS, OptimizerContract


class TestTokenMerging(OptimizerContract):
    optimizer = "tome"
    parameters: ClassVar = {"r": 3}
    partners: ClassVar = {
        name: PARTNERS[name]
        for name in (
            "bitsandbytes", "cast", "compile", "depth-pruning", "fused-qkv", "input-size", "recover", "sparsegpt",
            "structured-pruning", "torchao",
        )
    }  # fmt: skip
