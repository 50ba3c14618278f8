"""The ``pah-opt`` group: finds commands by name, imports them when asked, renders errors."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import IO, Any

import click

from pah_opt.cli import _status
from pah_opt.cli._help import examples
from pah_opt.errors import (
    ArtifactError,
    ArtifactWriteError,
    DataError,
    ExportRefusedError,
    MissingBackendError,
    PahOptError,
    PluginError,
    RecipeError,
    ReportError,
    UnsupportedHardwareError,
    UnsupportedModelError,
    nearest_name,
)

BAD_INPUT = (
    ArtifactError,
    DataError,
    ExportRefusedError,
    MissingBackendError,
    PluginError,
    RecipeError,
    ReportError,
    UnsupportedHardwareError,
    UnsupportedModelError,
)
FAILED_WORK = (ArtifactWriteError,)
"""Kinds of unusable input by their class, which come after the work all the same."""


class _Failed(click.ClickException):
    """An error rendered without a traceback."""

    exit_code = _status.FAILED

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message to standard error."""
        click.echo(f"error: {self.message}", file=file, err=True)


class _BadInput(_Failed):
    exit_code = _status.BAD_INPUT


EXAMPLES = examples(
    "pah-opt demo --out out/demo",
    "pah-opt run lossless --model ./my-vit --data ./my-images",
    "pah-opt run --help",
)


class LazyGroup(click.Group):
    """A group whose commands are the public modules of this package."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """Return the names of all commands, importing none."""
        modules = pkgutil.iter_modules([str(Path(__file__).parent)])
        return sorted(module.name.replace("_", "-") for module in modules if not module.name.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one command."""
        if cmd_name not in self.list_commands(ctx):
            return None
        found: click.Command = importlib.import_module(f"pah_opt.cli.{cmd_name.replace('-', '_')}").command
        found.name = cmd_name
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the first argument names, or say which names there are."""
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-"):
            nearest = nearest_name(args[0], known)
            hint = f"did you mean {nearest!r}?" if nearest else f"commands: {', '.join(known)}"
            ctx.fail(f"there is no command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; render the library's own errors in words, unless ``--debug`` asks for the traceback."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # whoever reads the output has seen enough (head, less): click ends quietly
        except (PahOptError, OSError) as error:
            if ctx.params["debug"]:
                raise
            raise _rendered(error) from error
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(_status.INTERRUPTED)


def _rendered(error: Exception) -> _Failed:
    unusable = isinstance(error, BAD_INPUT) and not isinstance(error, FAILED_WORK)
    return (_BadInput if unusable else _Failed)(str(error))


def _show_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        from pah_opt.version import __version__

        click.echo(f"pah-opt {__version__}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\n\n".join((EXAMPLES, f"Exit status: {', '.join(f'{n} {what}' for n, what in _status.MEANINGS.items())}.")),
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
@click.option(
    "--no-plugin",
    "without",
    multiple=True,
    metavar="NAME",
    help="Leave out a plugin, or all of a distribution's; repeatable.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def cli(ctx: click.Context, without: tuple[str, ...], debug: bool) -> None:  # noqa: ARG001  # invoke() reads debug
    """Compress and speed up Vision Transformers with recipes, and report true figures."""
    if without:
        from pah_opt.registry import default_without

        ctx.with_resource(default_without(without))
