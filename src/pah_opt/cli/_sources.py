"""Options that name a dense model and its images."""

from __future__ import annotations

from typing import Any

import click

from pah_opt.cli._help import Decorator, with_options

MODEL = "A hub id, a local folder in transformers' form, or digits, which needs no download."
IMAGES = "A hub id, a local folder of images, or digits, which needs no download."

weights_option = click.option(
    "--weights", type=click.Choice(["pretrained", "random"]), default="pretrained", show_default=True,
    help="random: sizes and speed where the weights cannot be had; no accuracy is measured.",
)  # fmt: skip
"""Adds ``--weights``."""


def source_options(*, model: str | None = None, data: str | None = None) -> Decorator:
    """Add ``--model`` and ``--data``, each required where it has no default.

    A command that keeps the model's classes has no defaults: no images fit whatever model is given.

    Args:
        model: the default model.
        data: the default images.
    """
    return with_options(_option("--model", MODEL, model), _option("--data", IMAGES, data))


def random_source_options() -> Decorator:
    """Add ``--model``, ``--data`` and ``--weights``; with random weights no images are needed."""
    words = f"{IMAGES} Not needed with --weights random."
    images = click.option("--data", metavar="ID_OR_PATH", help=words, callback=_needed_by_weights)
    return with_options(_option("--model", MODEL), images, weights_option)


def _needed_by_weights(context: click.Context, _parameter: click.Parameter, data: str | None) -> str | None:
    # Options that are given are read first, so that --weights random is known here and its absence is the default.
    if data is None and context.params.get("weights") != "random" and not context.resilient_parsing:
        raise click.UsageError(
            "Missing option '--data': give a hub id, a folder of images, or digits; only --weights random needs none"
        )
    return data


def _option(name: str, words: str, default: str | None = None) -> Decorator:
    given: dict[str, Any] = {"required": True} if default is None else {"default": default, "show_default": True}
    return click.option(name, metavar="ID_OR_PATH", help=words, **given)
