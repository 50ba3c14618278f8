"""What answers at once must not import torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

RECIPE = "steps: [{use: magnitude-pruning, with: {sparsity: 0.5}}, {use: no-such-strategy}]"
VALIDATE = f"""
from pah_opt import Recipe
from pah_opt.environment import Environment
from pah_opt.errors import RecipeError
from pah_opt.registry import default_registry, recipe_schema, validate
recipe = Recipe.from_yaml({RECIPE!r})
recipe_schema(default_registry())
try:
    validate(recipe, default_registry(), environment=Environment())
except RecipeError as error:
    assert "no-such-strategy" in str(error)
else:
    raise SystemExit("it was accepted")
"""


def command_line(*arguments: str) -> str:
    return f"from pah_opt.cli import main; main({list(arguments)!r}, standalone_mode=False)"


PLAN_WRONGLY = """
from click.testing import CliRunner
from pah_opt.cli import main
result = CliRunner().invoke(main, ["plan", "magnitude-prunin"])
assert result.exit_code == 2, result.output
"""

LIGHT = {
    "import pah_opt": "import pah_opt",
    "pah-opt --help": command_line("--help"),
    "pah-opt plugins": command_line("plugins"),
    "pah-opt schema": command_line("schema"),
    "pah-opt presets": command_line("presets"),
    "validating a recipe": VALIDATE,
    "pah-opt study --dry-run": command_line("study", "tiny", "--dry-run"),
    "pah-opt plan with a wrong recipe": PLAN_WRONGLY,
}


def imported(code: str) -> set[str]:
    """Run ``code`` in a fresh interpreter and return the modules that are then loaded."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules, file=sys.stderr)"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


@pytest.mark.parametrize("what", LIGHT)
def test_torch_is_not_imported_by(what: str) -> None:
    heavy = {"torch", "transformers", "torchao", "numpy", "bitsandbytes", "torch_pruning"}
    assert not heavy & imported(LIGHT[what])


@pytest.mark.parametrize("what", ["import pah_opt", "pah-opt --help"])
def test_pydantic_and_rich_are_not_imported_by(what: str) -> None:
    assert not {"pydantic", "rich", "yaml"} & imported(LIGHT[what])
