"""``python -m pah_opt``: the same as ``pah-opt``."""

from __future__ import annotations

from pah_opt.cli import main

if __name__ == "__main__":
    main(prog_name="pah-opt")
