"""The command line: parse, call the API, render; no logic.

A command is a module of this package that defines ``command``; nothing else needs to be edited. The command
``two-words`` lives in ``two_words.py``; modules whose names start with an underscore are shared parts, not commands.
At module level it imports click and ``pah_opt.cli._*`` only, because ``pah-opt --help`` imports every command to show
its first sentence; everything else is imported inside the function::

    \"\"\"``pah-opt shout``: say it louder.\"\"\"

    import click

    from pah_opt.cli._output import json_option, print_json, print_table


    @click.command
    @click.argument("recipe")
    @json_option
    def command(recipe: str, as_json: bool) -> None:
        \"\"\"Say it louder. (This sentence is shown by pah-opt --help.)\"\"\"
        from pah_opt.registry import default_registry  # honours --no-plugin

        ...

Results go to standard output, everything else to standard error. Let errors of :mod:`pah_opt.errors` pass: the group
renders them and sets the exit status (``0`` done, ``1`` failed, ``2`` the input cannot be used, ``130`` interrupted).
"""

from __future__ import annotations

from pah_opt.cli._group import cli as main

__all__ = ["main"]
