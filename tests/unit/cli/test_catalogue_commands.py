"""``pah-opt list``, ``plugins``, ``presets`` and ``schema``."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from click.testing import Result

import pah_opt
from pah_opt import Recipe, Step
from pah_opt.plugins import remember
from pah_opt.plugins.registered import forget

Run = Callable[..., Result]


def test_list_shows_each_strategy_and_whether_it_runs_here(run: Run) -> None:
    result = run("list")
    assert result.exit_code == 0
    lines = {line.split()[0]: line for line in result.stdout.splitlines() if line.startswith("cli-")}
    assert lines["cli-shrink"].split()[1:3] == ["both", "yes"]
    assert lines["cli-never"].split()[1:3] == ["memory", "no"] or "cannot run" in lines["cli-never"]
    text = " ".join(result.stdout.split())
    assert "cli-never cannot run here: no-such-library is not installed; pip install 'pah-opt[never]'" in text


def test_list_of_one_shows_everything_about_it(run: Run) -> None:
    result = run("list", "cli-shrink")
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert text.startswith("cli-shrink: Shrinks a model for these tests, and says so")
    assert "runs here: yes" in text
    assert "needs: depends on its parameters" in text
    assert "reference: arXiv 2301.12900" in text
    assert "ratio number > 0 and < 1; default 0.5 Share of the widths that goes" in text
    assert "importance taylor or l1; required How widths are compared." in text


def test_list_of_one_that_cannot_run_here_gives_the_remedy(run: Run) -> None:
    text = " ".join(run("list", "cli-never").stdout.split())
    assert "runs here: no: no-such-library is not installed; pip install 'pah-opt[never]'" in text
    assert "needs: calibration images" in text
    assert "libraries: no-such-library >=2 (not installed)" in text
    assert "It takes no parameters." in text


def test_list_of_an_unknown_strategy_is_refused_with_the_nearest(run: Run) -> None:
    result = run("list", "cli-shrnk")
    assert result.exit_code == 2
    assert "there is no strategy 'cli-shrnk'" in result.stderr
    assert "did you mean 'cli-shrink'?" in result.stderr


def test_list_as_json_holds_the_same(run: Run) -> None:
    described = {item["name"]: item for item in json.loads(run("list", "--json").stdout)}
    assert described["cli-never"]["obstacles"][0]["remedy"] == "pip install 'pah-opt[never]'"
    assert json.loads(run("list", "cli-shrink", "--json").stdout) == described["cli-shrink"]


def test_plugins_shows_what_each_brings(run: Run) -> None:
    text = " ".join(run("plugins").stdout.split())
    assert "cli-tests this process loaded strategies: cli-shrink, cli-never;" in text


def test_plugins_shows_a_broken_plugin_with_its_traceback(run: Run) -> None:
    def broken() -> None:
        raise RuntimeError("no licence")

    remember("cli-broken", SimpleNamespace(pah_opt_presets=pah_opt.hookimpl(broken)))
    try:
        result = run("plugins")
        described = json.loads(run("plugins", "--json").stdout)
        strict = run("--no-plugin", "pah-opt", "plugins", "--strict")
    finally:
        forget("cli-broken")
    assert result.exit_code == 0
    assert "left out" in result.stdout
    assert "RuntimeError: no licence" in result.stdout
    assert "Traceback (most recent call last):" in result.stdout
    (left,) = [plugin for plugin in described["left_out"] if plugin["name"] == "cli-broken"]
    assert "no licence" in left["error"]
    assert strict.exit_code == 2
    assert "RuntimeError: no licence" in strict.stderr


def test_presets_are_listed(run: Run) -> None:
    line = next(line for line in run("presets").stdout.splitlines() if line.startswith("cli-half"))
    assert line.split() == ["cli-half", "cli-shrink", "Half.", "not", "measured"]
    assert {"cli-half"} <= {preset["name"] for preset in json.loads(run("presets", "--json").stdout)}


def test_a_preset_is_printed_as_a_recipe_to_start_from(run: Run) -> None:
    expected = Recipe(name="cli-half", description="Half.", steps=[Step.of("cli-shrink", importance="l1")])
    assert Recipe.from_yaml(run("presets", "cli-half").stdout) == expected
    assert Recipe.from_json(run("presets", "cli-half", "--json").stdout) == expected


def test_presets_show_their_figures_with_the_conditions(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {
        "recipe_sha256": Recipe.from_yaml(run("presets", "cli-half").stdout).sha256, "top1_delta_pp": -0.25,
        "artifact_bytes": 2.5e6, "speedup_p50_x": 1.5, "throughput_x": 2.0, "images": 1000,
    }  # fmt: skip
    row["conditions"] = {
        "model": "a-vit", "data": "images", "train_images": 1000, "calibration_images": 64, "cpu": "a CPU",
        "threads": 2, "torch": "2.13", "batches": [1, 8],
    }  # fmt: skip
    other = {"two-four": row}  # measured of another recipe than the preset's
    monkeypatch.setattr("pah_opt.presets.measured.measured_presets", lambda: {"cli-half": row} | other)
    text = " ".join(run("presets", "cli-half").stdout.split())
    assert "# Measured: -0.25 points, 2.5 MB, 1.50x the speed, 2.00x throughput, on 1,000 images (a-vit on" in text
    shown = " ".join(run("presets").stdout.split())
    assert "Measured (cli-half): a-vit on images, 1,000 training and 64 calibration images, a CPU" in shown
    listed = {each["name"]: each["measured"] for each in json.loads(run("presets", "--json").stdout)}
    assert listed["cli-half"] == row
    assert listed["two-four"] is None


def test_two_four_may_be_written_as_it_is_spoken_of(run: Run) -> None:
    assert run("presets", "2:4").stdout == run("presets", "two-four").stdout
    assert "name: two-four" in run("presets", "2:4").stdout


def test_an_unknown_preset_is_refused_with_the_nearest(run: Run) -> None:
    result = run("presets", "cli-hlf")
    assert result.exit_code == 2
    assert "did you mean 'cli-half'?" in result.stderr


def test_schema_prints_the_schema_of_what_is_installed(run: Run) -> None:
    schema = json.loads(run("schema").stdout)
    assert "cli-shrink" in schema["$defs"]["Step"]["properties"]["use"]["enum"]
    assert schema["$defs"]["cli-shrink"]["required"] == ["importance"]


@pytest.mark.parametrize("command", [
    ("list",), ("list", "cli-shrink"), ("list", "cli-never"), ("presets",), ("plugins",), ("doctor",),
    ("gate", "--list"),
])  # fmt: skip
def test_output_is_plain_and_fits_80_columns_when_not_a_terminal(command: tuple[str, ...], run: Run) -> None:
    result = run(*command)
    assert "\x1b" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert not any(line.endswith(" ") for line in result.stdout.splitlines())


def test_without_anything_installed_each_command_says_so(run: Run) -> None:
    nothing = ("--no-plugin", "pah-opt", "--no-plugin", "cli-tests")
    assert "no strategies are installed" in run(*nothing, "list").stdout
    assert "no presets are installed" in run(*nothing, "presets").stdout
    assert run(*nothing, "schema").exit_code == 0
