"""Compile a model in place, and have it run as it was when that fails and the user allows it."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any

from pah_opt.errors import UnsupportedModelError
from pah_opt.models.compiling import isolated
from pah_opt.models.quiet import quiet_compiling, quiet_imports
from pah_opt.strategies.runtime.agreement import check_agreement, example_logits, example_pixels, wobble

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from pah_opt.optimizer import Context
    from pah_opt.strategies.runtime.compile import CompileConfig

_COMPILER_PACKAGES = ("torch._dynamo", "torch._inductor", "torch._functorch", "triton")


class CompileFallbackWarning(UserWarning):
    """A model could not be compiled and runs as it was."""


class GuardedCall:
    """Runs compiled code; when compiling fails, runs the module as it was from then on, or raises with the reason.

    Compiling happens at the first call, and again for other shapes, so it can fail long after it was asked for.

    Args:
        module: the module whose ``__call__`` is replaced.
        compiled: its compiled call.
        on_failure: ``eager`` or ``error``.
    """

    def __init__(self, module: nn.Module, compiled: Callable[..., Any], on_failure: str) -> None:
        self.module = module
        self.compiled = compiled
        self.on_failure = on_failure
        self.failure: str | None = None
        """Why it could not be compiled; None as long as it was."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module.

        Raises:
            UnsupportedModelError: it cannot be compiled, and ``on_failure`` is ``error``.
        """
        try:
            return self.compiled(*args, **kwargs)
        except Exception as error:  # the compiler's errors have no common base; others are raised again
            if not is_compiler_error(error):
                raise
            return self._fall_back(error, args, kwargs)

    def _fall_back(self, error: Exception, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        plain: Callable[..., Any] = self.module._call_impl  # noqa: SLF001  # what __call__ runs when not compiled
        output = plain(*args, **kwargs)
        self.failure = reason_of(error)
        message = f"{type(self.module).__name__} cannot be compiled: {self.failure}"
        if self.on_failure == "error":
            raise UnsupportedModelError(
                f"{message}; leave the step out, or set on_failure: eager to go on without it"
            ) from error
        warnings.warn(f"{message}; it runs as it was", CompileFallbackWarning, stacklevel=2)
        self.module._compiled_call_impl = None  # noqa: SLF001  # what module.compile() sets
        return output


def is_compiler_error(error: BaseException) -> bool:
    """Tell whether an exception says that code could not be made, rather than that a call was wrong."""
    return any(kind.__module__.startswith(_COMPILER_PACKAGES) for kind in type(error).__mro__)


def reason_of(error: BaseException) -> str:
    """Return the first line that says something, of an exception of torch's compiler."""
    inner = getattr(error, "inner_exception", None)  # what a backend raised, when one did
    if isinstance(inner, BaseException):
        return f"{type(inner).__name__}: {reason_of(inner)}"
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)


def backend_problems(backend: str) -> list[str]:
    """Return why torch.compile does not know a backend; empty when it does."""
    with quiet_imports():
        from torch._dynamo import list_backends

        known = sorted({*list_backends(exclude_tags=None), "eager"})
    return [] if backend in known else [f"backend is {backend!r}; allowed here: {', '.join(known)}"]


def compile_lazily(model: nn.Module, config: CompileConfig) -> nn.Module:
    """Have ``model`` compiled in place when it is first called.

    Raises:
        UnsupportedModelError: it is compiled already.
    """
    if getattr(model, "_compiled_call_impl", None) is not None:
        raise UnsupportedModelError(f"{type(model).__name__} is compiled already; compile a model once")
    quiet_compiling()
    model.compile(
        mode=_mode(config), dynamic=config.dynamic, fullgraph=config.fullgraph, backend=config.backend, **isolated()
    )
    # module.compile() puts its code there, a copy of the module leaves it out, and calling the module runs it.
    made: Any = model._compiled_call_impl  # noqa: SLF001
    model._compiled_call_impl = GuardedCall(model, made, config.on_failure)  # noqa: SLF001
    return model


def _mode(config: CompileConfig) -> str | None:
    # Only inductor takes modes; other backends refuse the argument.
    return config.mode if config.backend == "inductor" else None


def compile_checked(model: nn.Module, config: CompileConfig, context: Context) -> nn.Module:
    """Compile ``model`` in place now, compare its logits, and record what came of it.

    Raises:
        UnsupportedModelError: it cannot be compiled (unless ``on_failure`` is ``eager``), or computes something else.
    """
    pixels = example_pixels(model, context)
    before = example_logits(model, context, pixels)
    wobbles = wobble(model, context, pixels, before)
    graphs_before = _graph_counts()
    quiet_compiling()  # here too: the block below puts filters back
    with quiet_imports(), warnings.catch_warnings():
        warnings.simplefilter("ignore", CompileFallbackWarning)  # the record says it
        call = guarded_call(compile_lazily(model, config))
        after = example_logits(model, context, pixels)
    context.record("compiled", call.failure is None)
    if call.failure is not None:
        context.record("reason", call.failure)
        return model
    context.record("logits_change", check_agreement(before, after, model, "compiling", wobbles))
    context.record("logits_change_by_rounding", wobbles)
    graphs = _graph_counts() - graphs_before
    context.record("graphs", graphs["graphs"])
    context.record("graph_breaks", {reason: count for reason, count in graphs.items() if reason != "graphs"})
    return model


def guarded_call(model: nn.Module) -> GuardedCall:
    """Return what calling a model that :func:`compile_lazily` changed runs."""
    call: GuardedCall = model._compiled_call_impl  # type: ignore[assignment]  # noqa: SLF001  # set there
    return call


def _graph_counts() -> Counter[str]:
    """Return how many graphs torch has captured in this process, and how often it gave up for each reason."""
    from torch._dynamo.utils import counters

    return Counter({"graphs": counters["stats"]["unique_graphs"], **counters["graph_break"]})
