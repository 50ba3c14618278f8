"""The group: finding commands, rendering errors, exit status."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable

import click
import pytest
from click.testing import CliRunner, Result

from pah_opt.cli import main
from pah_opt.cli._output import json_option, print_json
from pah_opt.errors import (
    ArtifactError,
    ArtifactWriteError,
    GateFailedError,
    MeasurementError,
    NoEffectError,
    PahOptError,
    Place,
    PluginError,
    Problem,
    RecipeError,
    ReportError,
    UnsupportedModelError,
)
from pah_opt.version import __version__

Run = Callable[..., Result]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, run: Run) -> Callable[..., Result]:
    """Run a command whose work raises the given error."""

    def run_failing(error: BaseException, *options: str) -> Result:
        @click.command("schema")
        def command() -> None:
            raise error

        monkeypatch.setattr("pah_opt.cli.schema.command", command)
        return run(*options, "schema")

    import pah_opt.cli.schema  # noqa: F401  # so that it can be patched

    return run_failing


COMMANDS = [*((name,) for name in main.list_commands(click.Context(main))), ("plugin", "new")]


def test_the_commands_are_found() -> None:
    assert {("list",), ("plugins",), ("presets",), ("schema",)} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_commands_help_has_examples_and_is_plain_text_of_80_columns(command: tuple[str, ...], run: Run) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Usage: ")
    usage, examples = result.stdout.split("Examples:\n")
    assert f"  pah-opt {' '.join(command)}" in examples
    assert "\\b" not in usage
    assert "\x1b" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_example_in_the_help_gives_what_its_command_needs(command: tuple[str, ...], run: Run) -> None:
    for example in re.findall(r"^  pah-opt .*", run(*command, "--help").stdout, re.MULTILINE):
        name, *rest = shlex.split(re.split(r" [>|] ", example)[0])[1:]
        shown = main.get_command(click.Context(main), name)
        assert shown is not None
        shown.make_context(name, rest)  # raises where an option is missing or unknown


def test_the_groups_help_lists_commands_options_and_exit_status(run: Run) -> None:
    result = run("--help")
    assert result.exit_code == 0
    for words in (
        "plugins",
        "--no-plugin",
        "--version",
        "--debug",
        "Examples:",
        "Exit status: 0 done, 1 it failed, 2 the input",
    ):
        assert words in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_every_command_says_in_one_sentence_what_it_does() -> None:
    context = click.Context(main)
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        assert str(command.help).partition("\n\n")[0].strip().endswith((".", ".)")), name


def test_version(run: Run) -> None:
    assert run("--version").stdout == f"pah-opt {__version__}\n"


def test_an_unknown_command_is_refused_with_the_nearest(run: Run) -> None:
    result = run("plugns")
    assert result.exit_code == 2
    assert "there is no command 'plugns'; did you mean 'plugins'?" in result.stderr


def test_an_unknown_command_unlike_any_is_refused_with_all(run: Run) -> None:
    assert "there is no command 'xyz'; commands: " in run("xyz").stderr


def test_modules_with_an_underscore_are_no_commands(run: Run) -> None:
    assert run("-group").exit_code == 2
    assert not any(name.startswith(("-", "_")) for name in main.list_commands(click.Context(main)))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RecipeError([Problem("wrong", Place("half.yaml", 3))]), 2),
        (PluginError("broken"), 2),
        (UnsupportedModelError("a CNN"), 2),
        (NoEffectError(0, "prune", "nothing changed"), 1),
        (GateFailedError("too slow"), 1),
        (ReportError("no report"), 2),
        (MeasurementError("it was too noisy"), 1),
        (ArtifactError("a checksum is wrong"), 2),
        (ArtifactWriteError("the disk is full"), 1),
        (OSError(28, "No space left on device", "out/report.json"), 1),
    ],
)
def test_an_error_is_said_in_words_with_its_exit_status(
    error: PahOptError, status: int, failing: Callable[..., Result]
) -> None:
    result = failing(error)
    assert result.exit_code == status
    assert result.stderr == f"error: {error}\n"
    assert result.stdout == ""


def test_debug_shows_the_traceback(failing: Callable[..., Result]) -> None:
    error = GateFailedError("too slow")
    assert failing(error, "--debug").exception is error


def test_a_bug_is_not_hidden(failing: Callable[..., Result]) -> None:
    error = ZeroDivisionError("a bug")
    assert failing(error).exception is error


def test_ctrl_c_ends_with_130(failing: Callable[..., Result]) -> None:
    result = failing(KeyboardInterrupt())
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")


def test_no_plugin_leaves_plugins_out_of_this_run_only(run: Run) -> None:
    assert "cli-shrink" in run("list").stdout
    assert "cli-shrink" not in run("--no-plugin", "cli-tests", "list").stdout
    assert "cli-shrink" in run("list").stdout


def test_no_plugin_may_be_repeated(run: Run) -> None:
    result = run("--no-plugin", "torchao", "--no-plugin", "cli-tests", "plugins")
    not_chosen = [line.split()[0] for line in result.stdout.splitlines() if "not chosen" in line]
    assert {"torchao", "cli-tests"} <= set(not_chosen)


def test_an_unknown_plugin_to_leave_out_is_refused_with_the_nearest(run: Run) -> None:
    result = run("--no-plugin", "torchoa", "list")
    assert result.exit_code == 2
    assert "--no-plugin names 'torchoa', which is not installed; did you mean 'torchao'?" in result.stderr


def test_a_command_that_is_not_there_is_none() -> None:
    """What click asks for when a shell completes a name."""
    assert main.get_command(click.Context(main), "xyz") is None


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    import subprocess
    import sys

    # A pipe that nobody reads, and far more output than it holds.
    code = """
import click, pah_opt.cli.schema as module
from pah_opt.cli import main
module.command = click.Command("schema", callback=lambda: [click.echo("x" * 4096) for _ in range(100)])
main(["schema"])
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.read(10) == b"x" * 10
    child.stdout.close()
    assert child.wait(120) == 1
    assert child.stderr is not None
    assert child.stderr.read() == b""
    child.stderr.close()


def test_json_is_nothing_but_json_whatever_else_is_printed() -> None:
    import json

    @click.command
    @json_option
    def command(as_json: bool) -> None:
        print("a plugin says hello")
        print_json({"as_json": as_json})

    result = CliRunner().invoke(command, ["--json"])
    assert json.loads(result.stdout) == {"as_json": True}
    assert result.stderr == "a plugin says hello\n"
    assert CliRunner().invoke(command).stdout.startswith("a plugin says hello\n{")
