"""Every ordered pair of registered strategies: it runs and comes back from disk bit for bit, or is refused by name."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pah_opt
from pah_opt import Data, Recipe, Step
from pah_opt.adapt.snapshots import digest_of
from pah_opt.artifact import Artifact
from pah_opt.data import TensorSplit
from pah_opt.environment import Environment
from pah_opt.errors import RecipeError
from pah_opt.models import logits_of
from pah_opt.models.state import state_tags
from pah_opt.optimizer import AnyOptimizer, OptimizerConfig, Tags
from pah_opt.registry import default_registry
from pah_opt.registry.needs import Supply
from pah_opt.testing import tiny_images, tiny_vit

REQUIRED: dict[str, dict[str, Any]] = {
    "structured-pruning": {"heads": 0.25, "mlp": 0.25},
    "depth-pruning": {"count": 1},
    "width-pruning": {"ratio": 0.25},
    "input-size": {"size": 16},
}
"""Parameters without a default."""
QUICKER: dict[str, dict[str, Any]] = {
    "recover": {"steps": 1},
    "gradual-pruning": {"steps": 1, "rounds": 2},
    "compile": {"backend": "eager"},
    "torchao int4-weight-only": {"group_size": 16},
    "torchao int8-qat": {"training": {"steps": 1}},
    # Repair asks for widths in whole blocks, which a tiny model cannot be pruned to.
    "bitsandbytes nf4": {"rounding": "nearest"},
    "bitsandbytes fp4": {"rounding": "nearest"},
}
"""Parameters that save time, or that fit a tiny model."""
REFUSED_FOR_THIS_MODEL = {
    ("fused-attention", "fused-attention"),
    ("fused-qkv", "fused-attention"),
    ("fused-qkv", "fused-qkv"),
    ("cast", "cast"),
    ("input-size", "input-size"),
    ("depth-pruning", "depth-pruning"),
    # Half precision loses small updates; training says so before it starts.
    ("cast", "recover"),
    ("cast", "gradual-pruning"),
    ("cast", "torchao int8-qat"),
}
"""Pairs whose state tags fit, but whose second step finds nothing left to do, or cannot do it."""


def _schemes(config_type: type[OptimizerConfig]) -> tuple[str | None, ...]:
    field = config_type.model_json_schema()["properties"].get("scheme", {})
    plain = next((part for part in (field, *field.get("anyOf", ())) if "enum" in part), {})
    return tuple(plain.get("enum", (None,)))


def _steps() -> dict[str, Step]:
    """One step for each strategy of this library, and for each scheme of one that has schemes."""
    found: dict[str, Step] = {}
    for name, registered in default_registry().optimizers.items():
        if not registered.origin.built_in:
            continue
        for scheme in _schemes(registered.optimizer.config_type):
            label = f"{name} {scheme}" if scheme else name
            chosen = {"scheme": scheme} if scheme else {}
            found[label] = Step.of(name, **REQUIRED.get(name, {}), **QUICKER.get(label, {}), **chosen)
    return found


STEPS = _steps()
# Capturing a graph takes longer than all the rest, so of several schemes only the first is compiled (the others are in
# tests/strategies/torchao), and of the strategies that change nothing but values only magnitude-pruning.
ONLY_VALUES = {"unstructured-pruning", "wanda", "sparsegpt", "semi-structured", "gradual-pruning", "recover"}
COMPILED = {step.use: label for label, step in reversed(STEPS.items()) if step.use not in ONLY_VALUES}
PAIRS = [(first, second) for first in STEPS for second in STEPS if second != "compile" or first in COMPILED.values()]
HERE = Environment()


def split(count: int, seed: int) -> TensorSplit:
    names = [str(number) for number in range(10)]
    return TensorSplit(tiny_images(count, seed=seed), torch.arange(count) % 10, names)


@pytest.fixture(scope="module")
def dense() -> nn.Module:
    return tiny_vit(blocks=2, hidden=32, mlp=64, attn_implementation="eager")


@pytest.fixture(scope="module", autouse=True)
def _count_no_macs() -> Iterator[None]:
    """Counting MACs takes half of a pair's time, six times a pair; tests/unit/measure and pipeline look at it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pah_opt.measure.model.count_flops", lambda *_, **__: (2, "not counted"))
        yield


@pytest.fixture(scope="module")
def data() -> Data:
    return Data(test=split(10, 1), train=split(40, 0))


def tags_of(label: str) -> Tags:
    optimizer, config = parts(label)
    return optimizer.tags(config)


def parts(label: str) -> tuple[AnyOptimizer, OptimizerConfig]:
    optimizer = default_registry().optimizers[STEPS[label].use].optimizer
    return optimizer, optimizer.config_type(**STEPS[label].parameters)


def runs_here(label: str) -> bool:
    optimizer, config = parts(label)
    return not (*optimizer.available(HERE), *Supply(HERE).unmet_hardware(optimizer.needs(config)))


def fits(first: str, second: str, model: nn.Module) -> bool:
    """Tell whether a pair has to compose: both run here, and tags and model leave the second step something to do."""
    start = state_tags(model)
    between = (start - tags_of(first).removes) | tags_of(first).provides
    ordered = tags_of(first).requires <= start and tags_of(second).requires <= between
    return ordered and runs_here(first) and runs_here(second) and (first, second) not in REFUSED_FOR_THIS_MODEL


def content(model: nn.Module) -> str:
    return digest_of(model.state_dict())


@torch.inference_mode()
def logits(model: nn.Module) -> Tensor:
    size = model.config.image_size
    return logits_of(model(tiny_images(2, image=size if isinstance(size, int) else size[0], seed=7)))


def run(dense: nn.Module, data: Data, *labels: str) -> Artifact:
    recipe = Recipe(name="pair", steps=tuple(STEPS[label] for label in labels))
    # The tiny model guesses from the start.
    return pah_opt.apply(dense, recipe, data, on_collapse="ignore", calibration_images=16)


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=[f"{first}, {second}" for first, second in PAIRS])
def test_a_pair_comes_back_from_disk_bit_for_bit_or_is_refused_before_any_change(
    first: str, second: str, dense: nn.Module, data: Data, tmp_path: Path
) -> None:
    before = content(dense)
    if not fits(first, second, dense):
        with pytest.raises(RecipeError, match=STEPS[second].use if runs_here(first) else STEPS[first].use):
            run(dense, data, first, second)
        assert content(dense) == before
        return
    torch._dynamo.reset()
    artifact = run(dense, data, first, second)
    wanted = logits(artifact.model)
    assert wanted.shape == (2, 10)
    assert torch.isfinite(wanted).all()
    assert torch.equal(logits(pah_opt.load(artifact.save(tmp_path / "pair"), verify=True).model), wanted)
    assert content(dense) == before


def test_every_strategy_of_the_library_is_walked() -> None:
    """Those with schemes in each of them."""
    assert {step.use for step in STEPS.values()} == {
        name for name, registered in default_registry().optimizers.items() if registered.origin.built_in
    }
    assert len([label for label in STEPS if label.startswith(("torchao ", "bitsandbytes "))]) == 10


SHIPPED = (
    ("structured-pruning", "torchao int8-dynamic"),
    ("depth-pruning", "bitsandbytes nf4"),
    ("width-pruning", "torchao int4-weight-only"),
    ("magnitude-pruning", "bitsandbytes int8"),
    ("cast", "semi-structured"),
    ("gradual-pruning", "torchao int8-qat"),
    ("sparsegpt", "torchao fp8-weight-only"),
    ("input-size", "torchao int8-static"),
    ("fused-qkv", "cast"),
    ("structured-pruning", "compile"),
)
FRESH = """
import json, sys
for name in ("torch_pruning", "accelerate", "datasets", "sklearn"):
    sys.modules[name] = None  # as if it were not installed
import pah_opt, torch
from pah_opt.models import logits_of
from pah_opt.testing import tiny_images
torch.set_num_threads(int(sys.argv[1]))
for folder in sys.argv[2:]:
    model = pah_opt.load(folder, verify=True).model
    size = model.config.image_size
    with torch.inference_mode():
        found = logits_of(model(tiny_images(2, image=size if isinstance(size, int) else size[0], seed=7)))
    print(json.dumps(found.double().tolist()))
"""


def test_a_fresh_process_without_what_made_them_gives_the_same_logits(
    dense: nn.Module, data: Data, tmp_path: Path
) -> None:
    torch._dynamo.reset()
    wanted, folders = [], []
    for number, pair in enumerate(SHIPPED):
        artifact = run(dense, data, *pair)
        wanted.append(logits(artifact.model).double().tolist())
        folders.append(str(artifact.save(tmp_path / str(number))))
    command = [sys.executable, "-c", FRESH, str(torch.get_num_threads()), *folders]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == wanted
