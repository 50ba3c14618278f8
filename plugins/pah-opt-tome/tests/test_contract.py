"""The contract, on every kind of model."""

from __future__ import annotations

from typing import ClassVar

from pah_opt.testing import OptimizerContract


class TestTokenMerging(OptimizerContract):
    optimizer = "tome"
    parameters: ClassVar = {"r": 3}
