"""Options that say which images of a source are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import click
from click.core import ParameterSource

from pah_opt.cli._help import Decorator, with_options

if TYPE_CHECKING:
    from pah_opt.data import ImageChoice


def image_options(*, train: bool = True, test_split: str | None = "test", least: int = 1) -> Decorator:
    """Add what :class:`pah_opt.data.ImageChoice` chooses.

    Args:
        train: add ``--train-limit``, where a command reads training images.
        test_split: the default; None where the option replaces what is written elsewhere.
        least: the least limit.
    """
    limits = [
        click.option("--train-limit", type=click.IntRange(least), metavar="N", help="At most so many training images."),
        click.option("--test-limit", type=click.IntRange(least), metavar="N", help="At most so many test images."),
    ]
    return with_options(
        *(limits if train else limits[1:]),
        click.option("--test-split", default=test_split, show_default=True, metavar="NAME",
                     help="The split to measure on."),
        click.option("--test-share", type=click.FloatRange(0, 1, min_open=True, max_open=True), metavar="SHARE",
                     help="Hold out this share of the training images where there is no split to measure on; the same "
                          "share gives the same images in every command."),
        click.option("--image-column", metavar="NAME", help="The column of images, where several could be."),
        click.option("--label-column", metavar="NAME", help="The column of labels, where several could be."),
    )  # fmt: skip


def require_images(data: str | None) -> None:
    """Refuse options that choose among images where there are none.

    Raises:
        click.UsageError: names them.
    """
    from pah_opt.data import ImageChoice

    context = click.get_current_context()
    given = [
        max(option.opts, key=len)
        for option in context.command.params
        if option.name in ImageChoice.__annotations__
        and context.get_parameter_source(option.name) is not ParameterSource.DEFAULT
    ]
    if data is None and given:
        raise click.UsageError(f"{', '.join(given)}: there are no images to choose from; give --data too")


def taken_choice(options: dict[str, Any]) -> ImageChoice:
    """Take what :func:`image_options` added out of a command's options."""
    from pah_opt.data import ImageChoice

    return cast("ImageChoice", {name: options.pop(name) for name in ImageChoice.__annotations__ if name in options})
