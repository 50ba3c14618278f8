"""What README and pages show: options exist, recipes are valid, Python compiles, and the first lines of Python run."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest

import pah_opt
from pah_opt import MeasureSettings, Recipe
from pah_opt.adapt import pretrained_digits_vit
from pah_opt.cli import main
from pah_opt.environment import Environment
from pah_opt.registry import default_registry, validate
from pah_opt.report.figures import FIGURES
from pah_opt.search.space import as_space
from pah_opt.study import read_study

ROOT = Path(__file__).parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
NOT_OURS = {"--model-repository", "--num_processes", "--logdir", "--no-deps", "--package-config"}
"""Options of other programs: Triton's, accelerate's, TensorBoard's, pip's, Olive's."""
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z_-]*")
CONTEXT = click.Context(main)


def blocks(language: str) -> list[Any]:
    """Return the blocks of a language, each with its page."""
    pattern = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [
        pytest.param(block, id=f"{page}-{number}")
        for page, text in PAGES.items()
        for number, block in enumerate(pattern.findall(text))
    ]


def options_of(command: click.Command | None) -> set[str]:
    assert command is not None
    inner = command.commands.values() if isinstance(command, click.Group) and command is not main else ()
    spelled = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    own = {name for name in spelled if name.startswith("--")}
    return {"--help"} | own.union(*(options_of(each) for each in inner))


OPTIONS = {name: options_of(main.get_command(CONTEXT, name)) for name in main.list_commands(CONTEXT)}
ALL = options_of(main).union(*OPTIONS.values())


@pytest.mark.parametrize("page", PAGES)
def test_every_option_that_a_page_names_exists(page: str) -> None:
    assert set(OPTION.findall(PAGES[page])) - ALL - NOT_OURS == set()


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_a_page_shows_takes_the_options_it_is_given(page: str) -> None:
    for name, rest in re.findall(r"pah-opt ([a-z]+)\b([^`\n|#]*)", PAGES[page]):
        assert name in OPTIONS, f"pah-opt {name}"
        assert set(OPTION.findall(rest)) - OPTIONS[name] - NOT_OURS == set(), f"pah-opt {name}{rest}"


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_yaml_block_is_a_recipe_a_space_or_a_study_that_is_valid(text: str) -> None:
    if "adaptations:" in text:
        assert read_study(text).sections
    elif "choices:" in text:
        assert as_space(text).steps
    else:
        check(default_registry().recipe(text))


STEPS = [
    pytest.param(step, id=f"{page}-{step}")
    for page, text in PAGES.items()
    for step in re.findall(r"`(\{use: [^`]*\})`", text)
]


@pytest.mark.parametrize("step", STEPS)
def test_every_step_in_a_sentence_or_a_cell_is_valid(step: str) -> None:
    check(Recipe.from_yaml(f"steps: [{step}]"))


def test_each_library_that_users_come_from_has_steps_that_are_checked() -> None:
    sections = PAGES["docs/migrating.md"].split("\n## ")[1:]
    assert all(re.search(r"`\{use: [^`]*\}`", section) for section in sections)


def check(recipe: Recipe) -> None:
    environment = Environment(cuda=True, capability=(9, 0))
    validate(recipe, default_registry(), environment=environment, known_figures=tuple(FIGURES))


@pytest.mark.parametrize("code", blocks("python"))
def test_every_python_block_compiles(code: str) -> None:
    compile(code, "a page", "exec", dont_inherit=True)


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_first_lines_of_python_run_on_the_embedded_model(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digits = pretrained_digits_vit()
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    quick = functools.partial(pah_opt.compare, settings=MeasureSettings.quick(batch_sizes=(1,)))
    monkeypatch.setattr(pah_opt, "compare", quick)
    monkeypatch.setattr("pah_opt.adapt.train_digits_vit", lambda: SimpleNamespace(model=digits.model, data=digits.data))
    # A page's own model and images would have to be there: the embedded ones stand for them.
    loaded = SimpleNamespace(model=digits.model, processor=None, weights_origin="pretrained")
    monkeypatch.setattr("pah_opt.models.load_model", lambda _: loaded)
    monkeypatch.setattr("pah_opt.data.load_data", lambda *_: digits.data)
    (code, *_) = re.findall(r"^```python\n(.*?)^```", PAGES[page], re.MULTILINE | re.DOTALL)
    exec(compile(code, page, "exec", dont_inherit=True), {})
    assert list((tmp_path / "out").glob("*/manifest.json"))
