"""The plugins of this repository import what docs/api.md names and nothing else: any author could have written them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "plugins").glob("*/src/**/*.py"))


def documented() -> set[str]:
    """Return the modules that docs/api.md names: those it describes whole, and its table for plugin authors."""
    text = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    described = set(re.findall(r"^::: (pah_opt\.[a-z_.]+)$", text, re.MULTILINE))
    return {"pah_opt"} | described | set(re.findall(r"^\| `(pah_opt\.[a-z_.]+)` \|", text, re.MULTILINE))


def imports_of(path: Path) -> set[tuple[str, str]]:
    """Return module and name of everything that a file imports from the library."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    named = {(n.module or "", a.name) for n in nodes if isinstance(n, ast.ImportFrom) for a in n.names}
    whole = {(alias.name, "") for n in nodes if isinstance(n, ast.Import) for alias in n.names}
    return {(module, name) for module, name in named | whole if re.match(r"pah_opt(\.|$)", module)}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_plugin_imports_documented_modules_and_no_private_name(path: Path) -> None:
    for module, name in imports_of(path):
        assert module in documented(), f"{module} is not in docs/api.md"
        assert not name.startswith("_"), f"{module}.{name} is private"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_plugin_calls_no_private_method_of_the_library(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    private = re.compile(r"_[a-z]")
    own = {n.name for n in nodes if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    own |= {n.attr for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
    used = {n.attr for n in nodes if isinstance(n, ast.Attribute) and private.match(n.attr)}
    assert used <= own
    overridden = {
        method.name
        for n in nodes
        if isinstance(n, ast.ClassDef) and any(ast.unparse(base).startswith("HuggingFace") for base in n.bases)
        for method in n.body
        if isinstance(method, ast.FunctionDef) and private.match(method.name)
    }
    assert not overridden


def test_what_is_looked_for_is_there() -> None:
    assert len(MODULES) > 10
    assert "pah_opt.models.engine" in documented()
