"""What ``run`` and ``demo`` show at their end, and the status they end with."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from pah_opt import Recipe, Step
from pah_opt.cli._results import end, show
from pah_opt.errors import NoEffectError
from pah_opt.measure.model_report import Env, ModelReport
from pah_opt.measure.schema import Accuracy, GateResult, Memory, ModelSize, Provenance, VsBaseline
from pah_opt.report import Report
from pah_opt.workflow.ablation import Ablation

BROKEN_GATE = GateResult(metric="size_x", limit=">= 2", value=1.0, passed=False, message="size_x is 1")
FILES = ("report.json", "report.xml", "artifacts/mix")
RECIPE = Recipe(name="mix", steps=(Step.of("torchao"),))


def a_model(name: str, *gates: GateResult) -> ModelReport:
    why = "not measured in this test"
    return ModelReport(
        id=name, type="ViT", provenance=Provenance.having(why), timings=(), memory=Memory.having(why),
        accuracy=Accuracy.having(why), model=ModelSize.having(why),
        vs_baseline=VsBaseline.having(why, baseline_id="dense", size_x=1.0, gates=gates),
    )  # fmt: skip


def shown(*, complete: bool = True, failures: Any = None, ablations: tuple[Ablation, ...] = (), as_json: bool = False,
          gates: tuple[GateResult, ...] = (), earlier: tuple[str, ...] = ()) -> Result:  # fmt: skip
    models = (a_model("dense"), a_model("mix", *gates))
    report = Report(env=Env.having("not described"), baseline_id="dense", models=models, complete=complete)
    outcome: Any = SimpleNamespace(report=report, failures=failures or {}, files=FILES, earlier=earlier)

    @click.command
    def command() -> None:
        show(outcome, as_json=as_json, ablations=ablations)
        end(outcome, Path("out"))

    return CliRunner().invoke(command)


def test_everything_measured_ends_with_0_and_every_file_is_named() -> None:
    result = shown()
    assert result.exit_code == 0
    assert result.stderr == "written to out: report.json, report.xml, artifacts/mix\n"


def test_artifacts_of_an_earlier_run_are_not_taken_for_this_ones() -> None:
    assert (
        "left there by an earlier run, not made by this one: artifacts/old" in shown(earlier=("artifacts/old",)).stderr
    )


@pytest.mark.parametrize("gates", [(), (BROKEN_GATE,)])
def test_ctrl_c_while_measuring_ends_with_130_whatever_the_gates_say(gates: tuple[GateResult, ...]) -> None:
    assert shown(complete=False, gates=gates).exit_code == 130


def test_ctrl_c_ends_with_130_where_a_recipe_failed_before() -> None:
    result = shown(complete=False, failures={"other": NoEffectError(0, "torchao", "nothing happened")})
    assert result.exit_code == 130
    assert "recipe other failed" in result.stderr


def test_json_holds_what_each_step_is_worth_and_what_was_refused() -> None:
    result = shown(as_json=True, ablations=(Ablation(RECIPE, (RECIPE,), {"mix.after-1": "no images"}),))
    found = json.loads(result.stdout)
    assert Report.from_json(json.dumps(found["report"])).baseline_id == "dense"
    (ablation,) = found["ablations"]
    assert (ablation["recipe"], ablation["refused"]) == ("mix", {"mix.after-1": "no images"})
    credited = {each["figure"]: each["added"] for each in ablation["steps"]}
    assert (credited["size_x"], credited["top1_delta_pp"]) == (1.0, None)


def test_json_without_ablations_is_the_report() -> None:
    assert Report.from_json(shown(as_json=True).stdout).baseline_id == "dense"
