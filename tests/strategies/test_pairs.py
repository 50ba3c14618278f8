"""Every ordered pair of registered strategies: it runs and comes back from disk bit for bit, or is refused by name."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
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
from pah_opt.errors import IncompatibleStepsError, RecipeError
from pah_opt.layout import Layout
from pah_opt.measure.tensors import dense_values
from pah_opt.models import find_adapter, logits_of
from pah_opt.models.state import is_compiled, state_tags
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
    "reconstruct": {"images": 8},
    "gradual-pruning": {"steps": 1, "rounds": 2},
    "compile": {"backend": "eager"},
    "semi-structured": {"kernels": "pattern"},  # kernels want widths in multiples of 64: nothing is left to cut before
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
    # Hidden states of another width or number of tokens cannot follow the dense model's.
    ("width-pruning", "reconstruct"),
    ("input-size", "reconstruct"),
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
# tests/strategies/torchao).
COMPILED = {step.use: label for label, step in reversed(STEPS.items())}
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


@pytest.fixture(scope="module")
def alone(dense: nn.Module, data: Data) -> Callable[[str], nn.Module]:
    """Make what one step leaves; each is made once."""
    return cache(lambda label: run(dense, data, label).model)


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
    ordered = tags_of(first).admits(start) and tags_of(second).admits(tags_of(first).after(start))
    return ordered and runs_here(first) and runs_here(second) and (first, second) not in REFUSED_FOR_THIS_MODEL


def remedy(first: str, second: str, model: nn.Module) -> str:
    """Return what a refusal by tags has to advise."""
    start, (one, other) = state_tags(model), (tags_of(first), tags_of(second))
    if other.admits(start) and one.admits(other.after(start)):
        return f"this order works: {STEPS[second].use}, {STEPS[first].use}"
    return "no order of these steps works: leave one of them out"


def lost_effects(label: str, artifact: Artifact, alone: nn.Module) -> list[str]:
    """Return what the first step promised and the final model no longer has.

    Args:
        label: of the first step.
        artifact: what both steps made.
        alone: what the first step makes by itself.
    """
    optimizer, config = parts(label)
    effect, before, after = optimizer.expects(config), artifact.steps[0].before, artifact.steps[-1].after
    kept = {
        "parameters": not effect.fewer_parameters or after["params"] < before["params"],
        "bytes": not effect.fewer_bytes or after["weights_bytes"] < before["weights_bytes"],
        "type": effect.linear_dtype is None or effect.linear_dtype in after["linear_dtypes"],
        "zeros": effect.zeros_at_least is None or zeros_are_kept(alone, artifact.model),
        "input size": label != "input-size" or layout_of(artifact.model).image_size == layout_of(alone).image_size,
        "compiled": is_compiled(artifact.model) or not is_compiled(alone),
        "tags": tags_of(label).provides <= artifact.tags,
    }
    return [name for name, holds in kept.items() if not holds]


def zeros_are_kept(before: nn.Module, after: nn.Module) -> bool:
    """Tell whether each zero weight of one model is zero in the other, however weights are stored there."""
    return all(bool((now[then == 0] == 0).all()) for then, now in zip(weights(before), weights(after), strict=True))


def weights(model: nn.Module) -> Iterator[Tensor]:
    """Yield the weights of the linear layers in the blocks, those of query, key and value as one."""
    for block in layout_of(model).blocks:
        attention, mlp = block.attention, block.mlp
        projections = dict.fromkeys((attention.query, attention.key, attention.value))
        for paths in (projections, (attention.output,), (mlp.fc1,), (mlp.fc2,)):
            yield torch.cat([dense_values(model.get_submodule(path).weight).detach() for path in paths])


def layout_of(model: nn.Module) -> Layout:
    return find_adapter(model, default_registry().adapters).layout(model)


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
    first: str, second: str, dense: nn.Module, data: Data, alone: Callable[[str], nn.Module], tmp_path: Path
) -> None:
    before = content(dense)
    if not fits(first, second, dense):
        with pytest.raises(RecipeError, match=STEPS[second].use if runs_here(first) else STEPS[first].use) as refused:
            run(dense, data, first, second)
        if isinstance(refused.value, IncompatibleStepsError):
            assert remedy(first, second, dense) in str(refused.value)
        assert content(dense) == before
        return
    torch._dynamo.reset()
    artifact = run(dense, data, first, second)
    wanted = logits(artifact.model)
    assert wanted.shape == (2, 10)
    assert torch.isfinite(wanted).all()
    assert lost_effects(first, artifact, alone(first)) == []
    folder = artifact.save(tmp_path / "pair")
    with torch.compiler.set_stance("force_eager"):  # compiling what was loaded takes as long again, and gives the same
        assert torch.equal(logits(pah_opt.load(folder, verify=True).model), wanted)
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
