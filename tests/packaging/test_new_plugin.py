"""``pah-opt plugin new``: what it writes installs from a built wheel, passes its own tests, and is typed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pah_opt.cli import main
from pah_opt.errors import PluginError
from pah_opt.workflow import scaffold
from pah_opt.workflow.scaffold import write_plugin

ROOT = Path(__file__).parents[2]
FILES = {
    ".github/workflows/ci.yml", ".gitignore", "LICENSE", "README.md", "pyproject.toml", "src/row_zeros/__init__.py",
    "src/row_zeros/py.typed", "src/row_zeros/strategy.py", "tests/test_contract.py",
}  # fmt: skip


def run(*command: str, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(path or "")}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("new") / "row-zeros"
    result = CliRunner().invoke(main, ["plugin", "new", "row-zeros", "--out", str(folder)])
    assert result.exit_code == 0, result.output
    return folder


def test_the_package_is_complete(package: Path) -> None:
    assert {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()} == FILES
    assert "${{ matrix.python }}" in (package / ".github/workflows/ci.yml").read_text()
    assert (package / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_the_author_writes_at_most_thirty_lines_of_code(package: Path) -> None:
    text = (package / "src/row_zeros/strategy.py").read_text()
    body = text[text.index("class RowZeros(") :]
    code = [line for line in body.splitlines() if line.strip() and not line.strip().startswith(("#", '"""'))]
    assert len(code) <= 30


@pytest.mark.parametrize("name", ["row-zeros", "r0", "a" * 30, "a-b-c-d-e-f-g-h-i-j-k-l-m-n-o"])
def test_ruff_has_nothing_to_say_whatever_the_name_is(name: str, tmp_path: Path) -> None:
    folder = write_plugin(name, tmp_path / "new").folder
    for command in (("check",), ("format", "--check")):
        found = run(sys.executable, "-m", "ruff", *command, "--no-cache", ".", cwd=folder)
        assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.slow
def test_its_wheel_installs_and_its_own_tests_pass(package: Path, tmp_path: Path) -> None:
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    built = run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), ".", cwd=package)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    installed = run(*pip, "install", "--no-deps", "--target", str(site), str(wheel), cwd=tmp_path)
    assert installed.returncode == 0, installed.stderr
    listed = run(sys.executable, "-m", "pah_opt", "list", "row-zeros", cwd=tmp_path, path=site)
    assert "Set the smallest weights of every row to zero" in listed.stdout
    tested = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=package, path=site)
    assert tested.returncode == 0, tested.stdout[-2000:]


WRONG = '''
from torch import nn

from pah_opt import Context, Effect, Optimizer, OptimizerConfig


class Config(OptimizerConfig):
    """Nothing."""


class Wrong(Optimizer[Config]):
    config_type = Config
    summary = "Wrong in three ways."
    goal = "speed"

    def expects(self, config: Config) -> Effect:
        return Effect()

    def apply(self, model: nn.Module, config: Config) -> None:
        return None


class Forgetful(Optimizer[Config]):
    name = "forgetful"
    config_type = Config
    summary = "Promises nothing, not even that."
    goal = "latency"

    def apply(self, model: nn.Module, config: Config, context: Context) -> nn.Module:
        return model


Wrong(), Forgetful()
'''


@pytest.mark.slow
def test_mypy_accepts_the_package_and_rejects_a_wrong_plugin(package: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    cache = str(ROOT / ".mypy_cache")
    good = run(sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", "--cache-dir", cache, cwd=package)
    assert good.returncode == 0, good.stdout
    # With the same settings: what the first run found out about torch and the library is not found out again.
    same = str(package / "pyproject.toml")
    bad = run(sys.executable, "-m", "mypy", "--config-file", same, "--cache-dir", cache, "wrong.py", cwd=tmp_path)
    assert bad.returncode == 1
    assert 'Signature of "apply" incompatible with supertype' in bad.stdout
    assert "Incompatible types in assignment" in bad.stdout  # goal
    assert 'Cannot instantiate abstract class "Forgetful" with abstract attribute "expects"' in bad.stdout


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Row-Zeros", "lower case"),
        ("row_zeros", "lower case"),
        ("3d", "a letter first"),
        ("../up", "lower case"),
        ("class", "Python does not allow"),
        ("pah-opt", "installed already"),
        ("a" * 31, "at most 30"),
        ("none", "the class None"),
        ("json", "a module of that name already"),
        ("test", "a module of that name already"),
        ("yaml", "a module of that name already"),
        ("effect", "the class Effect"),
        ("tags", "the class Tags"),
        ("context", "the class Context"),
        ("optimizer", "the class Optimizer, OptimizerConfig"),
        ("any-optimizer", "the class AnyOptimizer"),
        ("optimizer-contract", "the class OptimizerContract"),
        ("wanda", "a strategy 'wanda' already, from plugin 'unstructured'"),
        ("pytest", "installed already"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=said):
        write_plugin(name, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(PluginError, match="exists already"):
        write_plugin("row-zeros", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_failure_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaffold, "_rendered", lambda name: {"a": "text", "b/../../..": "not a file"})
    with pytest.raises(OSError, match="directory"):
        write_plugin("row-zeros", tmp_path / "new")
    assert not list(tmp_path.iterdir())
