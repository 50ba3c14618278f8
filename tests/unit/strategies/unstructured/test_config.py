from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from pah_opt.strategies.unstructured import pah_opt_optimizers
from pah_opt.strategies.unstructured.config import (
    MagnitudeConfig,
    NmPattern,
    SemiStructuredConfig,
    SparseGptConfig,
    UnstructuredConfig,
    WandaConfig,
)

CONFIGS = (MagnitudeConfig, UnstructuredConfig, WandaConfig, SparseGptConfig)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("sparsity", [0, 1, 1.5, -0.1, float("nan"), float("inf"), "half", True])
def test_sparsity_outside_the_open_interval_is_refused(config: type, sparsity: object) -> None:
    with pytest.raises(ValidationError, match="sparsity"):
        config(sparsity=sparsity)


@pytest.mark.parametrize("pattern", ["2:2", "0:4", "4:2", "2/4", "", "2:4:8", "1:65", "-1:4", "a:b"])
def test_a_pattern_that_is_none_is_refused_with_an_example(pattern: str) -> None:
    with pytest.raises(ValidationError, match="such as 2:4"):
        MagnitudeConfig(pattern=pattern)


@pytest.mark.parametrize(
    ("text", "pattern", "zeros"), [("2:4", (2, 4), 0.5), ("1:4", (1, 4), 0.75), ("4:8", (4, 8), 0.5)]
)
def test_n_of_a_pattern_is_how_many_weights_stay(text: str, pattern: tuple[int, int], zeros: float) -> None:
    config = MagnitudeConfig(pattern=text)
    assert config.nm == NmPattern(*pattern)
    assert config.zeros == zeros


def test_sparsity_and_pattern_together_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"sparsity 0.3 and pattern '2:4'"):
        MagnitudeConfig(sparsity=0.3, pattern="2:4")


def test_half_goes_when_nothing_is_said() -> None:
    assert MagnitudeConfig().zeros == 0.5


def test_unknown_parameters_are_refused() -> None:
    with pytest.raises(ValidationError, match="sparsty"):
        MagnitudeConfig.model_validate({"sparsty": 0.5})


@pytest.mark.parametrize("scope", ["layer", "row"])
def test_lamp_within_a_layer_is_refused_because_it_is_magnitude(scope: str) -> None:
    with pytest.raises(ValidationError, match="use importance magnitude"):
        UnstructuredConfig(importance="lamp", scope=scope)


def test_wanda_competes_in_rows_unless_told_otherwise() -> None:
    assert UnstructuredConfig(importance="wanda").competes_in == "row"
    assert UnstructuredConfig(importance="wanda", scope="global").competes_in == "global"
    assert UnstructuredConfig(importance="taylor").competes_in == "global"


@pytest.mark.parametrize("config", [*CONFIGS, SemiStructuredConfig])
def test_a_config_survives_its_own_json(config: type) -> None:
    made = config()
    assert config.model_validate(made.model_dump(mode="json")) == made


@pytest.mark.parametrize("config", [*CONFIGS, SemiStructuredConfig])
def test_every_parameter_is_described(config: type) -> None:
    assert all(field.description for field in config.model_fields.values())


def test_semi_structured_hands_its_choice_on() -> None:
    pruning = SemiStructuredConfig(include=("attention",), images=9, dampening=0.5).pruning
    assert (pruning.pattern, pruning.include, pruning.images, pruning.dampening) == ("2:4", ("attention",), 9, 0.5)


def test_declaring_and_describing_the_strategies_loads_no_torch() -> None:
    code = (
        "import sys, pah_opt.strategies.unstructured as room\n"
        "for optimizer in room.pah_opt_optimizers():\n"
        "    config = optimizer.config_type()\n"
        "    for ask in (optimizer.tags, optimizer.needs, optimizer.expects, optimizer.alignment):\n"
        "        ask(config)\n"
        "print(sorted({'torch', 'transformers', 'accelerate'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


def test_names_are_those_that_recipes_use() -> None:
    names = [optimizer.name for optimizer in pah_opt_optimizers()]
    assert names == [
        "magnitude-pruning",
        "unstructured-pruning",
        "wanda",
        "sparsegpt",
        "semi-structured",
        "gradual-pruning",
    ]
