"""The reference holds everything public: errors, hooks, names, commands, options, strategies, parameters, figures."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

import pah_opt
from pah_opt import errors
from pah_opt.cli import main
from pah_opt.plugins.contract import CHECKS
from pah_opt.recipe import Gate, Recipe, Step
from pah_opt.registry import default_registry
from pah_opt.registry.parameter_rows import describe_parameters
from pah_opt.report.figures import FIGURES

pytest.importorskip("mkdocs", reason="needs the extra docs")

DOCS = Path(__file__).parents[2] / "docs"
OPTIMIZERS = default_registry().optimizers
ERRORS = [each for each in vars(errors).values() if inspect.isclass(each) and issubclass(each, errors.PahOptError)]
COMMANDS = {name: main.get_command(click.Context(main), name) for name in main.list_commands(click.Context(main))}


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "_generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page(generate: ModuleType) -> Any:
    return lambda name: generate.filled((DOCS / name).read_text(encoding="utf-8"))


def named(directive: str) -> Any:
    """What a ``:::`` line of the API's page stands for: a module, or a name in one."""
    try:
        return importlib.import_module(directive)
    except ImportError:
        home, _dot, name = directive.rpartition(".")
        return getattr(importlib.import_module(home), name)


@pytest.fixture(scope="module")
def api() -> list[Any]:
    return [named(line) for line in re.findall(r"^::: (\S+)$", (DOCS / "api.md").read_text("utf-8"), re.MULTILINE)]


@pytest.mark.parametrize("name", [name for name in pah_opt.__all__ if name != "__version__"])
def test_every_public_name_is_on_the_apis_page(name: str, api: list[Any]) -> None:
    public = getattr(pah_opt, name)
    if isinstance(public, ModuleType):  # a package that can be called stands for the function that it calls
        functions = [each for each in api if inspect.isfunction(each)]
        assert any(each.__module__.startswith(("pah_opt." + name, "pah_opt.report")) for each in functions)
        assert {name, f"run_{name}", f"{name}_model"} & {each.__name__ for each in functions}
    else:
        modules = [each for each in api if isinstance(each, ModuleType)]
        assert public in api or any(vars(module).get(name) is public for module in modules)


def test_hooks_and_errors_are_on_the_apis_page(api: list[Any]) -> None:
    hooks = importlib.import_module("pah_opt.hookspecs")
    assert {errors, hooks} <= {each for each in api if isinstance(each, ModuleType)}
    assert all((getattr(hooks, hook).__doc__ or "").strip() for hook in CHECKS)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_says_what_it_means_and_stands_in_the_tree(error: type[Exception]) -> None:
    assert (error.__doc__ or "").strip()
    assert re.search(rf"\b{error.__name__}\b", errors.__doc__ or "")


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_and_option_is_on_the_page_of_commands(name: str, page: Any) -> None:
    (section,) = re.findall(rf"^## pah-opt {name}\n(.*?)(?=^## |\Z)", page("cli.md"), re.MULTILINE | re.DOTALL)
    command = COMMANDS[name]
    assert command is not None
    assert "```console\n" in section
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, f"{option.name} has no help"
            assert all(spelled in section for spelled in option.opts)


def test_the_page_of_commands_says_what_the_exit_statuses_mean(page: Any) -> None:
    assert all(f"| {status} | " in page("cli.md") for status in (0, 1, 2, 130))


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_every_strategy_and_parameter_is_on_the_page_of_strategies(name: str, generate: ModuleType) -> None:
    found = re.findall(rf"^## {name}\n(.*?)(?=^## |\Z)", generate.strategies_page(), re.MULTILINE | re.DOTALL)
    assert len(found) == 1
    optimizer = OPTIMIZERS[name].optimizer
    assert all(reference.split("https://")[0] in found[0] for reference in optimizer.references)
    assert "- Promises: " in found[0]
    for parameter in describe_parameters(optimizer.config_type):
        assert parameter["description"], f"{parameter['name']} has no description"
        assert f"| `{parameter['name']}` | " in found[0]


def test_settings_inside_parameters_are_on_the_page_of_strategies(generate: ModuleType) -> None:
    page = generate.strategies_page()
    assert all(f"| `{name}` | " in page for name in ("guarded.max_kl", "training.epochs", "augmentation.flip"))


def test_every_figure_and_every_key_of_recipes_is_on_its_page(page: Any) -> None:
    assert all(f"| `{name}` | " in page("figures.md") for name in FIGURES)
    keys = [row for kind in (Recipe, Step, Gate) for row in describe_parameters(kind)]
    assert all(row["description"] for row in keys)
    assert all(f"| `{row['name']}` | " in page("recipes.md") for row in keys)


def test_every_preset_is_on_the_page_of_presets(generate: ModuleType) -> None:
    page = generate.presets_page()
    assert all(f"\n## {name}\n" in page for name in default_registry().presets)


def test_every_mark_is_filled(page: Any) -> None:
    assert not [path.name for path in DOCS.glob("*.md") if "<!-- generated" in page(path.name)]
