"""The Optimizers `onnxruntime` and `onnxruntime-int8`: what they declare; the work is in the modules beside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field

from pah_opt import Context, Effect, Needs, Optimizer, OptimizerConfig, Tags
from pah_opt.environment import Backend

if TYPE_CHECKING:
    from torch import nn

    from pah_opt.optimizer import Goal


class OnnxRuntimeConfig(OptimizerConfig):
    """Parameters of `onnxruntime`."""

    threads: Annotated[int, Field(ge=1)] | None = None
    """Threads within one operator; by default as many as ONNX Runtime takes (one per physical core)."""


class OnnxRuntimeInt8Config(OnnxRuntimeConfig):
    """Parameters of `onnxruntime-int8`."""

    calibration: Literal["minmax", "percentile", "entropy"] = "minmax"
    """How the range of each activation is chosen from calibration images: all of it, 99.999 % of the values, or the
    range that loses least information."""
    images: Annotated[int, Field(ge=1)] = 128
    """Calibration images that are looked at."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Images per pass of the calibration."""


ConfigT = TypeVar("ConfigT", bound=OnnxRuntimeConfig)


class _Runtime(Optimizer[ConfigT]):
    """What both have in common: the last step, on a model that torch can still trace."""

    goal: ClassVar[Goal] = "latency"
    backends: ClassVar[tuple[Backend, ...]] = (
        Backend("onnx", ">=1.18"), Backend("onnxruntime", ">=1.22"), Backend("onnxscript", ">=0.5"),
    )  # fmt: skip

    def expects(self, config: ConfigT) -> Effect:
        """Promise another way of running; that the logits agree is checked while exporting."""
        return Effect(new_type=True)

    def check(self, model: nn.Module, config: ConfigT, context: Context) -> list[str]:
        """Find weights that ONNX has no form for."""
        from pah_opt_onnxruntime.exporting import export_problems

        return export_problems(model, context.adapter, self.name)


class OnnxRuntime(_Runtime[OnnxRuntimeConfig]):
    """Run the model in ONNX Runtime on the CPU, any batch size; the last step of a recipe.

    Weights that torchao's `int8-static`, `int8-dynamic` or `int8-weight-only` made stay integers there. The model keeps
    its modules and weights: a saved artifact is exported again when it is loaded, and a copy of the model runs in
    torch.
    """

    name: ClassVar[str] = "onnxruntime"
    config_type = OnnxRuntimeConfig
    summary: ClassVar[str] = "Run the model in ONNX Runtime on the CPU; the last step of a recipe."
    references: ClassVar[tuple[str, ...]] = ("ONNX Runtime: https://onnxruntime.ai/docs/",)

    def tags(self, config: OnnxRuntimeConfig) -> Tags:
        """Need a model that can be traced; nothing can be changed afterwards."""
        return Tags(
            requires=frozenset({"graph:eager"}), provides=frozenset({"compiled", "engine:onnxruntime"}),
            removes=frozenset({"graph:eager", "weights:float", "shapes:free"}),
        )  # fmt: skip

    def apply(self, model: nn.Module, config: OnnxRuntimeConfig, context: Context) -> nn.Module:
        """Export ``model``, and have calls of it run there."""
        from pah_opt_onnxruntime.running import run_exported

        return model if context.planning else run_exported(model, config.threads, context)

    def state(self, model: nn.Module, config: OnnxRuntimeConfig) -> dict[str, Any]:
        """Return how to run it again."""
        from pah_opt.models.engine import engine_state

        return engine_state(model, config.threads)

    def finish(self, model: nn.Module, state: dict[str, Any]) -> nn.Module:
        """Export a loaded model again, and run it."""
        from pah_opt_onnxruntime.running import run_again

        return run_again(model, state)


class OnnxRuntimeInt8(_Runtime[OnnxRuntimeInt8Config]):
    """Quantize weights and activations of linear layers to int8 with ONNX Runtime's own tool, and run them there.

    Static ranges from calibration images, a scale per channel for weights; the classifier and the products of attention
    stay in float. The quantized graph is kept with the model and saved with it, beside the float weights: an artifact
    is a quarter larger than the dense one, and what runs is the small graph.
    """

    name: ClassVar[str] = "onnxruntime-int8"
    config_type = OnnxRuntimeInt8Config
    summary: ClassVar[str] = "Quantize linear layers to static int8 with ONNX Runtime and run them there."
    references: ClassVar[tuple[str, ...]] = (
        "Quantize ONNX models: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html",
        "Jacob et al., Integer-arithmetic-only inference, https://arxiv.org/abs/1712.05877",
    )

    def tags(self, config: OnnxRuntimeInt8Config) -> Tags:
        """Need float weights; nothing can be changed afterwards."""
        return Tags(
            requires=frozenset({"graph:eager", "weights:float"}),
            provides=frozenset({"compiled", "engine:onnxruntime", "engine:int8"}),
            removes=frozenset({"graph:eager", "weights:float", "shapes:free"}),
        )

    def needs(self, config: OnnxRuntimeInt8Config) -> Needs:
        """Need images to observe activations on."""
        return Needs(calibration=True, instead="use torchao with scheme int8-dynamic, then onnxruntime")

    def apply(self, model: nn.Module, config: OnnxRuntimeInt8Config, context: Context) -> nn.Module:
        """Export ``model``, quantize the graph, and have calls of it run there."""
        from pah_opt_onnxruntime.quantizing import run_quantized

        return model if context.planning else run_quantized(model, config, context)

    def state(self, model: nn.Module, config: OnnxRuntimeInt8Config) -> dict[str, Any]:
        """Return how to run it again, and the size of the graph."""
        from pah_opt.models.engine import engine_state, kept_graph

        return {**engine_state(model, config.threads), "graph_bytes": len(kept_graph(model))}

    def restore(self, model: nn.Module, state: dict[str, Any]) -> nn.Module:
        """Make room for the graph."""
        from pah_opt.models.engine import expect_graph

        expect_graph(model, int(state["graph_bytes"]))
        return model

    def finish(self, model: nn.Module, state: dict[str, Any]) -> nn.Module:
        """Run the graph that was loaded."""
        from pah_opt_onnxruntime.running import run_kept

        return run_kept(model, state)
