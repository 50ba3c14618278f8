"""What the strategy says about itself, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from pah_opt.environment import Environment
from pah_opt.strategies.torchao import Guard, Torchao, TorchaoConfig
from pah_opt.strategies.torchao.config import FACTS, OPTIONS, SCHEMES

STEP = Torchao()


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)


def test_declaring_needs_no_torch() -> None:
    code = (
        "import sys; from pah_opt.strategies.torchao import Torchao, TorchaoConfig as C; s = Torchao(); c = C();"
        "s.tags(c), s.needs(c), s.alignment(c), s.expects(c); print('torch' in sys.modules, 'torchao' in sys.modules)"
    )
    assert python(code).stdout.split() == ["False", "False"]


def test_torchaos_messages_at_import_stay_out_of_the_terminal() -> None:
    done = python("from pah_opt.strategies.torchao import backend; backend.load('torchao.quantization.qat'); print(1)")
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_a_torchao_that_cannot_be_imported_is_a_missing_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    from pah_opt.errors import MissingBackendError
    from pah_opt.strategies.torchao import backend

    monkeypatch.setitem(sys.modules, "torchao.nowhere", None)
    with pytest.raises(MissingBackendError, match="pip install 'torchao") as raised:
        backend.load("torchao.nowhere")
    assert isinstance(raised.value.__cause__, ImportError)


def test_absent_or_untested_torchao_is_an_obstacle_with_its_remedy() -> None:
    (obstacle,) = STEP.available(Environment(versions={"torchao": "0.12.0"}))
    assert "0.12.0" in obstacle.reason
    assert "pip install" in obstacle.remedy


def test_every_field_is_described() -> None:
    for kind in (TorchaoConfig, Guard):
        assert all(field.description for field in kind.model_fields.values())


def test_facts_are_known_of_every_scheme() -> None:
    assert set(FACTS) == set(SCHEMES)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_tags_refuse_a_second_quantization_and_keep_sparsity(scheme: Any) -> None:
    tags = STEP.tags(TorchaoConfig(scheme=scheme))
    assert "weights:float" in tags.requires
    assert tags.removes == {"weights:float", "shapes:free"}
    assert tags.provides == {f"linear:{FACTS[scheme].storage}"}


@pytest.mark.parametrize(
    ("parameters", "needed"),
    [
        ({}, set()),
        ({"scheme": "int8-weight-only"}, set()),
        ({"scheme": "int8-static"}, {"calibration"}),
        ({"scheme": "int8-qat"}, {"training"}),
        ({"scheme": "int4-weight-only"}, {"optional_calibration"}),
        ({"scheme": "int4-weight-only", "rounding": "search"}, set()),
        ({"scheme": "int4-weight-only", "rounding": "gptq"}, {"calibration"}),
        ({"per_layer": {"mlp": "int8-static"}}, {"calibration"}),
        ({"guarded": {"max_kl": 0.1}}, {"calibration"}),
        ({"guarded": {"max_drop_pp": 1}}, {"calibration", "labels"}),
        ({"scheme": "fp8-dynamic"}, {"cuda"}),
        ({"per_layer": {"mlp": "fp8-dynamic"}}, {"cuda"}),
    ],
)
def test_needs_follow_the_schemes(parameters: dict[str, Any], needed: set[str]) -> None:
    needs = STEP.needs(TorchaoConfig(**parameters))
    found = {
        name for name in ("calibration", "labels", "optional_calibration", "training", "cuda") if getattr(needs, name)
    }
    assert found == needed
    assert (needs.capability == (8, 9)) == ("cuda" in needed)


@pytest.mark.parametrize(
    ("parameters", "multiple"),
    [
        ({}, 8),
        ({"scheme": "int8-weight-only"}, 1),
        ({"scheme": "fp8-dynamic"}, 16),
        ({"scheme": "int4-weight-only", "group_size": 64}, 64),
        ({"scheme": "fp8-dynamic", "per_layer": {"mlp": "int4-weight-only"}}, 32),
    ],
)
def test_alignment_is_what_every_scheme_can_work_with(parameters: dict[str, Any], multiple: int) -> None:
    assert STEP.alignment(TorchaoConfig(**parameters)) == multiple


def test_one_type_is_promised_only_where_there_is_one() -> None:
    assert STEP.expects(TorchaoConfig()).linear_dtype == "int8"
    assert STEP.expects(TorchaoConfig(per_layer={"mlp": "int8-weight-only"})).linear_dtype == "int8"
    assert STEP.expects(TorchaoConfig(per_layer={"mlp": "int4-weight-only"})).linear_dtype is None


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"scheme": "int8"}, "int8-weight-only"),
        ({"scheme": "int8-dynamic-int4-weight"}, "int4-weight-only"),
        ({"group_size": 48}, "32"),
        ({"smooth": 1.5}, "1"),
        ({"naive": True}, "naive belongs to scheme int8-static"),
        ({"smooth": 0.7}, r"smooth belongs to scheme int8-static, .*\(in use: int8-dynamic\); leave smooth out"),
        ({"scheme": "int8-static", "rounding": "gptq"}, "rounding belongs to scheme int4-weight-only"),
        ({"per_layer": {"mlp": "int8-qat"}, "group_size": 16}, r"in use: int8-dynamic, int8-qat"),
        ({"images": 64}, "images belongs to scheme int8-static and int4-weight-only, .*leave images out"),
        ({"training": {"steps": 5}}, "training belongs to scheme int8-qat"),
        ({"guarded": {}}, "max_kl"),
        ({"guarded": {"max_kl": 0}}, "greater than 0"),
        ({"per_layer": {"mlp": "int2"}}, "float"),
        ({"images": 0}, "greater than or equal to 1"),
        ({"include": ()}, "at least 1"),
        ({"shceme": "int8-dynamic"}, "Extra inputs"),
    ],
)
def test_wrong_parameters_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TorchaoConfig(**parameters)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_options_are_without_effect_exactly_where_they_are_refused(scheme: Any) -> None:
    given: dict[str, Any] = {
        "group_size": 16, "rounding": "gptq", "smooth": 0.7, "naive": True, "images": 64, "training": {"steps": 5},
    }  # fmt: skip
    idle = TorchaoConfig.without_effect({"scheme": scheme})
    for name, value in given.items():
        if name in idle:
            with pytest.raises(ValidationError, match=f"{name} belongs to scheme"):
                TorchaoConfig(scheme=scheme, **{name: value})
        else:
            assert getattr(TorchaoConfig(scheme=scheme, **{name: value}), name) is not None
        for reader in OPTIONS[name]:
            assert name not in TorchaoConfig.without_effect({"per_layer": {"mlp": reader}})


@pytest.mark.parametrize("written", [{"scheme": ["int8-static"]}, {"per_layer": {"mlp": {"scheme": "int4"}}}])
def test_options_of_a_scheme_that_is_no_text_are_looked_at_without_harm(written: dict[str, Any]) -> None:
    assert "group_size" in TorchaoConfig.without_effect(written)


def test_some_training_settings_leave_the_others_gentle() -> None:
    training = TorchaoConfig(scheme="int8-qat", training={"epochs": 3}).training
    assert (training.epochs, training.lr, training.distill) == (3, 1e-5, 0.5)


def test_config_survives_json() -> None:
    config = TorchaoConfig(scheme="int8-static", per_layer={"mlp": "float"}, guarded=Guard(max_kl=0.1), smooth=0.5)
    assert TorchaoConfig(**json.loads(config.model_dump_json())) == config
