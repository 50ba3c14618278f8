"""What an artifact says about itself to people and programs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from pah_opt.artifact import inspect
from pah_opt.artifact.files import CARD, DESCRIPTION, WEIGHTS
from pah_opt.cli import main
from pah_opt.errors import ArtifactError

from .conftest import RECIPE, tiny_artifact


def card(folder: Path) -> tuple[dict[str, Any], str]:
    _, matter, text = (folder / CARD).read_text().split("---\n", 2)
    return yaml.safe_load(matter), text


def test_the_card_says_what_the_hub_asks(saved: Path) -> None:
    matter, _ = card(saved)
    assert matter == {
        "library_name": "pah-opt", "pipeline_tag": "image-classification", "license": "other",
        "base_model": "user/dense-vit", "tags": ["vision-transformer", "pah-opt", "magnitude-pruning"],
    }  # fmt: skip


def test_the_card_says_how_it_was_made_and_what_it_is_worth(saved: Path) -> None:
    _, text = card(saved)
    assert "# tiny" in text
    assert "`user/dense-vit`: magnitude-pruning" in text
    assert json.loads(text.split("```json")[1].split("```")[0]) == RECIPE.to_data()
    assert "| 1. magnitude-pruning | 20.0k | 300k |" in text
    assert "sparsity 0.5" in text
    assert "The weights are random" in text
    assert "dense kernels do not run faster" in text
    assert "licence of user/dense-vit applies" in text
    assert f"| {WEIGHTS} | {(saved / WEIGHTS).stat().st_size:,} |" in text


def test_a_card_shows_the_report(tmp_path: Path) -> None:
    import pah_opt

    artifact = tiny_artifact()
    report = pah_opt.compare({"dense": artifact.model}, settings=pah_opt.MeasureSettings.quick())
    folder = tiny_artifact(report=json.loads(report.model_dump_json())).save(tmp_path / "a")
    assert "| model |" in card(folder)[1]


def test_names_that_would_break_yaml_are_quoted(tmp_path: Path) -> None:
    folder = tiny_artifact(source='evil/name": [').save(tmp_path / "a")
    assert card(folder)[0]["library_name"] == "pah-opt"


def test_inspect_reads_everything_but_the_tensors(saved: Path) -> None:
    found = inspect(saved)
    assert found.description.recipe == RECIPE
    assert found.description.class_names == tuple("abcdefghij")
    assert found.total_bytes == sum(p.stat().st_size for p in saved.iterdir() if p.name not in (CARD, "manifest.json"))
    assert not found.verified
    json.dumps(found.to_data())


def test_inspect_finds_damaged_weights_only_when_asked(folder: Path) -> None:
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder / WEIGHTS).write_bytes(data)
    inspect(folder)
    with pytest.raises(ArtifactError, match="damaged"):
        inspect(folder, verify=True)


def test_inspecting_needs_no_torch(saved: Path) -> None:
    code = (
        "import sys; from pah_opt.artifact import inspect; found = inspect(sys.argv[1], verify=True); "
        "print(found.verified, sorted({'torch', 'numpy', 'transformers'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(saved)], check=True, capture_output=True, text=True)
    assert ran.stdout == "True []\n"


def test_the_command_shows_recipe_steps_and_files(saved: Path) -> None:
    result = CliRunner().invoke(main, ["inspect", str(saved), "--verify"])
    assert result.exit_code == 0
    for text in (
        "tiny",
        "user/dense-vit (random weights)",
        "magnitude-pruning",
        "20.0k",
        WEIGHTS,
        "all compared: good",
    ):
        assert text in result.output


def test_the_command_prints_json(saved: Path) -> None:
    result = CliRunner().invoke(main, ["inspect", str(saved), "--json"])
    assert json.loads(result.output)["recipe"] == RECIPE.to_data()


def test_the_command_names_what_is_wrong(folder: Path) -> None:
    (folder / DESCRIPTION).unlink()
    result = CliRunner().invoke(main, ["inspect", str(folder)])
    assert result.exit_code == 2
    assert f"lacks {DESCRIPTION}" in result.output
