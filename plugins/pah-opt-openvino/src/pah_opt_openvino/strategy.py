"""The Optimizers `openvino` and `nncf`: what they declare; the work is in the modules beside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field

from pah_opt import Context, Effect, Needs, Optimizer, OptimizerConfig, Tags
from pah_opt.environment import Backend

if TYPE_CHECKING:
    from torch import nn

    from pah_opt.optimizer import Goal


class OpenVinoConfig(OptimizerConfig):
    """Parameters of `openvino`."""

    threads: Annotated[int, Field(ge=1)] | None = None
    """Threads that OpenVINO computes with; by default as many as it takes."""


class NncfConfig(OpenVinoConfig):
    """Parameters of `nncf`."""

    preset: Literal["performance", "mixed"] = "performance"
    """`performance`: activations are rounded symmetrically. `mixed`: those with negative and positive values of unlike
    reach asymmetrically, which keeps more accuracy and is slower."""
    images: Annotated[int, Field(ge=1)] = 128
    """Calibration images that are looked at."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Images per pass of the calibration."""


ConfigT = TypeVar("ConfigT", bound=OpenVinoConfig)


class _Runtime(Optimizer[ConfigT]):
    """What both have in common: the last step, on a model that torch can still trace."""

    goal: ClassVar[Goal] = "latency"
    backends: ClassVar[tuple[Backend, ...]] = (
        Backend("onnx", ">=1.18"), Backend("onnxscript", ">=0.5"), Backend("openvino", ">=2025.2"),
    )  # fmt: skip

    def expects(self, config: ConfigT) -> Effect:
        """Promise another way of running; that the logits agree is checked while exporting."""
        return Effect(new_type=True)

    def check(self, model: nn.Module, config: ConfigT, context: Context) -> list[str]:
        """Find weights that OpenVINO has no form for."""
        from pah_opt_openvino.exporting import export_problems

        return export_problems(model, context.adapter, self.name)


class OpenVino(_Runtime[OpenVinoConfig]):
    """Run the model in OpenVINO on the CPU, any batch size, in float32; the last step of a recipe.

    Weights that torchao's `int8-static`, `int8-dynamic` or `int8-weight-only` made stay integers there. The model keeps
    its modules and weights: a saved artifact is exported again when it is loaded, and a copy of the model runs in
    torch.
    """

    name: ClassVar[str] = "openvino"
    config_type = OpenVinoConfig
    summary: ClassVar[str] = "Run the model in OpenVINO on the CPU; the last step of a recipe."
    references: ClassVar[tuple[str, ...]] = ("OpenVINO: https://docs.openvino.ai/",)

    def tags(self, config: OpenVinoConfig) -> Tags:
        """Need a model that can be traced; nothing can be changed afterwards."""
        return Tags(
            requires=frozenset({"graph:eager"}), provides=frozenset({"compiled", "engine:openvino"}),
            removes=frozenset({"graph:eager", "weights:float", "shapes:free"}),
        )  # fmt: skip

    def apply(self, model: nn.Module, config: OpenVinoConfig, context: Context) -> nn.Module:
        """Export ``model``, and have calls of it run there."""
        from pah_opt_openvino.running import run_exported

        return model if context.planning else run_exported(model, config.threads, context)

    def state(self, model: nn.Module, config: OpenVinoConfig) -> dict[str, Any]:
        """Return how to run it again."""
        from pah_opt.models.engine import engine_state

        return engine_state(model, config.threads)

    def finish(self, model: nn.Module, state: dict[str, Any]) -> nn.Module:
        """Export a loaded model again, and run it."""
        from pah_opt_openvino.running import run_again

        return run_again(model, state)


class Nncf(_Runtime[NncfConfig]):
    """Quantize to int8 with NNCF's post-training quantization for transformers, and run the result in OpenVINO.

    Ranges come from calibration images, weights have a scale per channel, biases are corrected; NNCF chooses which
    products are worth it, and the classifier stays in float. The quantized graph is kept with the model and saved with
    it, beside the float weights: an artifact is a quarter larger than the dense one, and what runs is the small graph.
    """

    name: ClassVar[str] = "nncf"
    config_type = NncfConfig
    backends: ClassVar[tuple[Backend, ...]] = (*_Runtime.backends, Backend("nncf", ">=3,<4"))
    summary: ClassVar[str] = "Quantize to static int8 with NNCF and run the model in OpenVINO."
    references: ClassVar[tuple[str, ...]] = (
        "Kozlov et al., Neural network compression framework, https://arxiv.org/abs/2002.08679",
        "NNCF: https://docs.openvino.ai/2025/openvino-workflow/model-optimization.html",
    )

    def tags(self, config: NncfConfig) -> Tags:
        """Need float weights; nothing can be changed afterwards."""
        return Tags(
            requires=frozenset({"graph:eager", "weights:float"}),
            provides=frozenset({"compiled", "engine:openvino", "engine:int8"}),
            removes=frozenset({"graph:eager", "weights:float", "shapes:free"}),
        )

    def needs(self, config: NncfConfig) -> Needs:
        """Need images to observe activations on."""
        return Needs(calibration=True, instead="use torchao with scheme int8-dynamic, then openvino")

    def apply(self, model: nn.Module, config: NncfConfig, context: Context) -> nn.Module:
        """Export ``model``, quantize the graph, and have calls of it run there."""
        from pah_opt_openvino.quantizing import run_quantized

        return model if context.planning else run_quantized(model, config, context)

    def state(self, model: nn.Module, config: NncfConfig) -> dict[str, Any]:
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
        from pah_opt_openvino.running import run_kept

        return run_kept(model, state)
