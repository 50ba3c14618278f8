"""The strategy of example 11 keeps the contract that a package of it would test."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

from pah_opt import hookimpl
from pah_opt.testing import OptimizerContract

EXAMPLE = Path(__file__).parents[2] / "examples" / "11_plugin_in_one_file.py"
ONE_IN_M = runpy.run_path(str(EXAMPLE))["OneInM"]()


class TestOneInM(OptimizerContract):
    optimizer = "one-in-m"
    parameters: ClassVar = {"m": 4}
    partners: ClassVar = {"structured-pruning": {"mlp": 0.5}, "cast": {"dtype": "bf16"}, "recover": {"epochs": 1}}
    plugin = SimpleNamespace(pah_opt_optimizers=hookimpl(lambda: [ONE_IN_M]))
