"""The contract that plugin authors test against, over built-in strategies of four different kinds."""

from __future__ import annotations

from typing import ClassVar

from pah_opt.testing import OptimizerContract

PARTNERS = {"structured-pruning": {"heads": 0.5, "mlp": 0.5}, "torchao": {"scheme": "int8-dynamic"}}


class TestMagnitudePruning(OptimizerContract):
    optimizer = "magnitude-pruning"
    parameters: ClassVar = {"sparsity": 0.5}
    partners: ClassVar = PARTNERS

    compatible_layouts = ("hf-vit", "hf-dinov2-swiglu")

    def test_refuses_the_other_layouts(self) -> None:
        """It works on all; two stand for them here."""


class TestStructuredPruning(TestMagnitudePruning):
    optimizer = "structured-pruning"
    parameters: ClassVar = {"heads": 0.5, "mlp": 0.5}


class TestInt8(TestMagnitudePruning):
    optimizer = "torchao"
    parameters: ClassVar = {"scheme": "int8-dynamic"}


class TestCast(TestMagnitudePruning):
    optimizer = "cast"
    parameters: ClassVar = {"dtype": "bf16"}
