"""What the strategy says about itself, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

import pah_opt
from pah_opt.environment import Environment
from pah_opt.errors import ArtifactError, IncompatibleStepsError, MissingBackendError, UnsupportedModelError
from pah_opt.optimizer import Context
from pah_opt.strategies.bitsandbytes import Bitsandbytes, BitsandbytesConfig, backend

STEP = Bitsandbytes()


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)


def test_declaring_needs_neither_torch_nor_bitsandbytes() -> None:
    code = (
        "import sys; from pah_opt.strategies.bitsandbytes import Bitsandbytes, BitsandbytesConfig as C; "
        "s = Bitsandbytes(); c = C(); s.tags(c), s.needs(c), s.alignment(c), s.expects(c); "
        "print('torch' in sys.modules, 'bitsandbytes' in sys.modules)"
    )
    assert python(code).stdout.split() == ["False", "False"]


def test_messages_at_import_stay_out_of_the_terminal() -> None:
    done = python("from pah_opt.strategies.bitsandbytes import backend; backend.load(); print(1)")
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_a_failing_backend_plugin_is_a_missing_backend_with_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> Any:
        raise RuntimeError("bitsandbytes: failed to load backend xyz: boom")

    monkeypatch.setattr(backend, "importlib", SimpleNamespace(import_module=fail))
    with pytest.raises(MissingBackendError, match="failed to load backend xyz: boom") as raised:
        backend.load()
    assert isinstance(raised.value.__cause__, RuntimeError)
    assert isinstance(raised.value, ImportError)


def test_a_failing_import_leaves_the_model_untouched(monkeypatch: pytest.MonkeyPatch, vit: nn.Module) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.nn", None)
    before = list(vit.modules())
    with pytest.raises(pah_opt.errors.PahOptError, match="bitsandbytes cannot be imported"):
        pah_opt.apply(vit, pah_opt.Recipe(steps=[pah_opt.Step.of("bitsandbytes")]))
    assert list(vit.modules()) == before


def test_untested_version_is_an_obstacle_with_its_remedy() -> None:
    (obstacle,) = STEP.available(Environment(versions={"bitsandbytes": "0.40.0"}))
    assert "0.40.0" in obstacle.reason
    assert "pip install" in obstacle.remedy


def test_every_field_is_described() -> None:
    assert all(field.description for field in BitsandbytesConfig.model_fields.values())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"scheme": "int8", "blocksize": 64}, "blocksize belongs to schemes nf4 and fp4"),
        ({"scheme": "int8", "double_quant": False}, "double_quant belongs to"),
        ({"scheme": "int8", "compute_dtype": "bf16"}, "compute_dtype belongs to"),
        ({"scheme": "int8", "rounding": "gptq"}, "rounding belongs to schemes nf4 and fp4"),
        ({"scheme": "int8", "images": 64}, "images belongs to schemes nf4 and fp4"),
        ({"scheme": "int8", "batch_size": 4}, "batch_size belongs to schemes nf4 and fp4"),
        ({"scheme": "nf4", "threshold": 6.0}, "threshold belongs to scheme int8"),
        ({"scheme": "int4"}, "nf4"),
        ({"blocksize": 48}, "64"),
        ({"scheme": "int8", "threshold": -1}, "greater than or equal to 0"),
        ({"compute_dtype": "fp64"}, "fp32"),
        ({"treshold": 1}, "Extra inputs"),
    ],
)
def test_wrong_parameters_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        BitsandbytesConfig(**parameters)


def test_defaults_are_the_papers() -> None:
    assert BitsandbytesConfig(scheme="int8").used_threshold == 6.0
    assert BitsandbytesConfig().used_blocksize == 64


@pytest.mark.parametrize("scheme", ["int8", "nf4", "fp4"])
def test_tags_refuse_a_second_quantization(scheme: Any) -> None:
    tags = STEP.tags(BitsandbytesConfig(scheme=scheme))
    assert "weights:float" in tags.requires
    assert tags.removes == {"weights:float", "shapes:free"}
    assert tags.provides == {f"linear:{scheme}"}


@pytest.mark.parametrize("second", ["bitsandbytes", "torchao"])
def test_second_quantization_is_refused_before_anything_runs(vit: nn.Module, second: str) -> None:
    steps = [pah_opt.Step.of("bitsandbytes"), pah_opt.Step.of(second)]
    with pytest.raises(IncompatibleStepsError, match=r"step 1 \(bitsandbytes\) removed"):
        pah_opt.apply(vit, pah_opt.Recipe(steps=steps))


def test_a_quantized_model_is_refused(run: Callable[..., Any], adapter: Callable[..., Any], vit: nn.Module) -> None:
    quantized = run(vit).model
    with pytest.raises(IncompatibleStepsError, match="weights:float"):
        pah_opt.apply(quantized, pah_opt.Recipe(steps=[pah_opt.Step.of("bitsandbytes")]))
    with pytest.raises(UnsupportedModelError, match="quantized already"):
        STEP.apply(quantized, BitsandbytesConfig(), Context(adapter(vit), Environment()))


def test_compiled_model_is_refused(vit: nn.Module) -> None:
    with pytest.raises(UnsupportedModelError, match="compiled"):
        pah_opt.apply(torch.compile(vit), pah_opt.Recipe(steps=[pah_opt.Step.of("bitsandbytes")]))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"include": ("mpl",)}, "with.include: 'mpl' matches no linear layer.*did you mean 'mlp'"),
        ({"skip": ("fc9",)}, "with.skip: 'fc9'"),
        ({"include": ("classifier",)}, "no linear layer is left to quantize"),
    ],
)
def test_patterns_that_choose_nothing_are_refused(
    adapter: Callable[..., Any], vit: nn.Module, parameters: dict[str, Any], message: str
) -> None:
    import re

    (found,) = STEP.check(vit, BitsandbytesConfig(**parameters), Context(adapter(vit), Environment()))
    assert re.search(message, found)


def test_state_that_does_not_fit_the_model_is_an_artifact_error(vit: nn.Module) -> None:
    state = {"layers": ["vit.layers.7.fc1"], "kind": {"scheme": "nf4"}}
    with pytest.raises(ArtifactError, match="does not fit"):
        STEP.restore(vit, state)
    complete = {"scheme": "nf4", "threshold": 6.0, "blocksize": 64, "double_quant": False, "compute_dtype": None}
    with pytest.raises(ArtifactError, match="does not fit"):
        STEP.restore(vit, {"layers": ["vit.layers.7.fc1"], "kind": complete})


@pytest.mark.parametrize(
    ("parameters", "multiple"),
    [
        ({"scheme": "int8"}, 8),
        ({"scheme": "nf4"}, 64),
        ({"scheme": "fp4", "blocksize": 128, "rounding": "gptq"}, 128),
        ({"scheme": "nf4", "rounding": "nearest"}, 8),
    ],
)
def test_pruned_widths_are_asked_to_hold_whole_blocks_where_rounding_is_repaired(
    parameters: dict[str, Any], multiple: int
) -> None:
    assert Bitsandbytes().alignment(BitsandbytesConfig(**parameters)) == multiple
