"""The contract that plugin authors test against, over built-in strategies: its quick checks on every one of them."""

from __future__ import annotations

from functools import cache
from typing import ClassVar

import pytest
from torch import nn

from pah_opt import Step
from pah_opt.registry import default_registry
from pah_opt.testing import PARTNERS, TINY_MODELS, OptimizerContract, tiny_vit

FEW = {"structured-pruning": {"heads": 0.5, "mlp": 0.5}, "torchao": {"scheme": "int8-dynamic"}}
QUICK = (
    "test_says_what_it_is",
    "test_documents_every_parameter",
    "test_config_survives_files",
    "test_names_a_wrong_parameter",
    "test_says_what_it_needs",
    "test_keeps_its_promise",
    "test_keeps_types_and_device",
    "test_leaves_nothing_behind",
)


class AnyLayout(OptimizerContract):
    """Works on all layouts; two stand for them here."""

    __test__ = False
    compatible_layouts = ("hf-vit", "hf-dinov2-swiglu")
    partners: ClassVar = FEW

    def test_refuses_the_other_layouts(self) -> None:
        """It works on them."""


class TestMagnitudePruning(AnyLayout):
    __test__ = True
    optimizer = "magnitude-pruning"
    parameters: ClassVar = {"sparsity": 0.5}


class TestStructuredPruning(AnyLayout):
    __test__ = True
    optimizer = "structured-pruning"
    parameters: ClassVar = {"heads": 0.5, "mlp": 0.5}


class TestInt8(AnyLayout):
    __test__ = True
    optimizer = "torchao"
    parameters: ClassVar = {"scheme": "int8-dynamic"}


class TestCast(AnyLayout):
    __test__ = True
    optimizer = "cast"
    parameters: ClassVar = {"dtype": "bf16"}


MENDED = {"reconstruct": (Step.of("magnitude-pruning", sparsity=0.5),)}


@cache
def contract_of(name: str) -> OptimizerContract:
    """Return the contract over one strategy; what it makes is made once for all checks."""

    class Contract(OptimizerContract):
        optimizer = name
        parameters = PARTNERS[name]
        mends = MENDED.get(name, ())

        def make_model(self, layout: str) -> nn.Module:
            # Attention that is fused already is nothing to do for this one.
            return tiny_vit(attn_implementation="eager") if name == "fused-attention" else TINY_MODELS[layout]()

    return Contract()


@pytest.mark.parametrize("check", QUICK)
@pytest.mark.parametrize("name", PARTNERS)
def test_every_strategy_passes_the_quick_checks(name: str, check: str) -> None:
    getattr(contract_of(name), check)()


def test_every_built_in_strategy_is_checked_and_offered_as_a_partner() -> None:
    registered = default_registry().optimizers
    assert set(PARTNERS) == {name for name, found in registered.items() if found.origin.built_in}
