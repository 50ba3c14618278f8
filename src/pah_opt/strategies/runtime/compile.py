"""The ``compile`` Optimizer: what it declares; the work is in :mod:`pah_opt.strategies.runtime.compiled`."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pah_opt.optimizer import Effect, Goal, Optimizer, OptimizerConfig, Tags

if TYPE_CHECKING:
    from torch import nn

    from pah_opt.optimizer import Context

Mode = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
COMPILERS = ("g++", "c++", "clang++", "cl")
"""What torch's inductor looks for to build the code it generates."""


class CompileConfig(OptimizerConfig):
    """Parameters of `compile`."""

    mode: Mode = "default"
    """What torch.compile spends its time on. `reduce-overhead`: CUDA graphs, for small batches on a GPU.
    `max-autotune`: tries several kernels for each product; minutes, and the fastest code."""
    dynamic: bool | None = None
    """`true`: code for any batch size from the start. `false`: code anew for every batch size. By default the first
    batch size gets code of its own, and a second one code for any."""
    fullgraph: bool = False
    """Treat it as a failure when a part of the forward pass cannot be compiled, instead of running that part as it
    was."""
    backend: str = "inductor"
    """What turns the captured graph into code, as `torch.compile` names it."""
    on_failure: Literal["error", "eager"] = "error"
    """What to do when the model cannot be compiled: end with an error, or go on with the model as it was and record
    the reason."""


class Compile(Optimizer[CompileConfig]):
    """Compile the forward pass with ``torch.compile``.

    The model keeps its type, modules and names; only calling it runs other code. A copy of it is not compiled. Nothing
    is written but torch's own cache of generated code, and no global setting is changed. With CUDA graphs
    (`reduce-overhead`, `max-autotune` on a GPU) logits live in memory that the next call overwrites: copy what you
    keep.
    """

    name: ClassVar[str] = "compile"
    config_type = CompileConfig
    summary: ClassVar[str] = "Compile the forward pass with torch.compile; the last step of a recipe."
    goal: ClassVar[Goal] = "latency"
    references: ClassVar[tuple[str, ...]] = (
        "torch.compile: https://docs.pytorch.org/docs/stable/generated/torch.compile.html",
        "PyTorch 2, ASPLOS 2024: https://doi.org/10.1145/3620665.3640366",
    )

    def tags(self, config: CompileConfig) -> Tags:
        """Need modules that can still be looked at; nothing can be changed afterwards."""
        return Tags(frozenset({"graph:eager"}), frozenset({"compiled"}), frozenset({"graph:eager"}))

    def expects(self, config: CompileConfig) -> Effect:
        """Promise another way of running, unless it may fail; that the logits agree is checked while compiling."""
        return Effect(new_type=config.on_failure == "error")

    def check(self, model: nn.Module, config: CompileConfig, context: Context) -> list[str]:
        """Find a backend that torch does not know, and that inductor's C++ compiler is missing where it must not be."""
        from pah_opt.strategies.runtime.compiled import backend_problems

        return backend_problems(config.backend) + compiler_problems(config)

    def apply(self, model: nn.Module, config: CompileConfig, context: Context) -> nn.Module:
        """Compile ``model`` in place, run it once, and compare its logits with those before."""
        from pah_opt.strategies.runtime.compiled import compile_checked

        return model if context.planning else compile_checked(model, config, context)

    def state(self, model: nn.Module, config: CompileConfig) -> dict[str, Any]:
        """Return how to compile again after loading; nothing where compiling had failed."""
        from pah_opt.models.state import is_compiled

        return {"compiled": is_compiled(model), **config.model_dump(mode="json")}

    def finish(self, model: nn.Module, state: dict[str, Any]) -> nn.Module:
        """Have a loaded model compiled when it is first called."""
        from pah_opt.strategies.runtime.compiled import compile_lazily

        options = {name: value for name, value in state.items() if name != "compiled"}
        return compile_lazily(model, CompileConfig(**options)) if state.get("compiled") else model


def compiler_problems(config: CompileConfig) -> list[str]:
    """Say that inductor has no C++ compiler to build its code with, where failing to compile is an error."""
    if config.backend != "inductor" or config.on_failure == "eager":
        return []
    if os.environ.get("CXX") or any(shutil.which(name) for name in COMPILERS):
        return []
    missing = (
        "no C++ compiler is installed, and backend inductor needs one; install g++, set CXX to one, or set "
        "on_failure: eager to go on without compiling"
    )
    return [missing]
