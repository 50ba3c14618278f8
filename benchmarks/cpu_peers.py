"""The same ViT-B/16 on the same CPU threads, in turns: this library's int8 beside the engines people would use instead.

    pip install 'pah-opt[peers]' ./plugins/pah-opt-openvino
    python benchmarks/cpu_peers.py --threads 2

torch eager and compiled fp32, ONNX Runtime fp32 and dynamic int8, OpenVINO fp32 and NNCF int8; and this library: int8
by torchao compiled, int8 by its OpenVINO plugin's `nncf` step, either with half the MACs pruned, and with a smaller
input on top. What is not installed is left out, by name. Weights are random: times do not depend on them. Every
candidate computes the logits of the same images, and fp32 engines must give torch's logits.

Exit status 1 where a limit is missed, by all of its 95 % interval: own int8 at least as fast as the best int8 peer;
half the MACs at least 1.6 times faster than that; with a smaller input at least 5 times faster than the unpruned int8.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

import pah_opt
from pah_opt import Data, Recipe, Step
from pah_opt.data import TensorSplit
from pah_opt.environment import installed_version
from pah_opt.measure.environment import CpuWatch, cpu_model
from pah_opt.measure.rounds import pair_ratio, take_turns
from pah_opt.measure.timer import WallTimer
from pah_opt.report.files import write

if TYPE_CHECKING:
    from collections.abc import Callable

    from pah_opt.measure.timer import Call

RESULTS = Path(__file__).parent / "results" / "cpu_peers.json"
INT8_PEERS = ("onnxruntime int8 dynamic", "openvino int8 nncf")
OWN_INT8 = ("pah_opt int8-dynamic compiled", "pah_opt int8-static compiled", "pah_opt nncf")
HALF = ("pah_opt half macs int8-dynamic compiled", "pah_opt half macs nncf")
SMALL = ("pah_opt half macs small input int8-dynamic compiled", "pah_opt half macs small input nncf")
LEAST = {"own over best int8 peer": 1.0, "half macs over own": 1.6, "small input over own": 5.0}
LIBRARIES = ("torch", "torchao", "transformers", "onnxruntime", "openvino", "nncf", "pah-opt")

INT8 = Step.of("torchao", scheme="int8-dynamic")
STATIC = Step.of("torchao", scheme="int8-static", images=8, batch_size=2)
COMPILE = Step.of("compile", dynamic=False)


def dense_model(*, tiny: bool) -> nn.Module:
    """Make the model that every candidate computes."""
    torch.manual_seed(0)
    shape = {"hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 256, "num_hidden_layers": 2}
    return ViTForImageClassification(ViTConfig(num_labels=1000, **(shape if tiny else {}))).eval()


def torch_call(model: nn.Module, pixels: np.ndarray) -> Callable[[], np.ndarray]:
    """Make a call of a torch model."""
    images = torch.from_numpy(pixels)

    def call() -> np.ndarray:
        with torch.inference_mode():
            return model(images).logits.float().numpy()

    return call


def own_call(dense: nn.Module, pixels: np.ndarray, *steps: Step, size: int | None = None) -> Callable[[], np.ndarray]:
    """Make a call of a model that this library made."""
    if size is not None:
        steps = (Step.of("input-size", size=size), *steps)
        pixels = np.ascontiguousarray(pixels[:, :, :size, :size])
    recipe = Recipe(steps=steps)
    made = pah_opt.apply(dense, recipe, random_data(), on_collapse="ignore", calibration_images=8)
    return torch_call(made.model, pixels)


def random_data() -> Data:
    """Make images to calibrate on: they do not matter for times, as weights are random too."""
    random = np.random.default_rng(1)
    images = torch.from_numpy(random.standard_normal((48, 3, 224, 224), dtype=np.float32))
    labels, names = torch.arange(48) % 2, tuple(map(str, range(1000)))
    return Data(TensorSplit(images[:8], labels[:8], names), TensorSplit(images[8:], labels[8:], names))


def export(dense: nn.Module, pixels: np.ndarray, folder: Path) -> Path:
    """Write the model as ONNX, once for each batch size."""
    path = folder / f"model-{len(pixels)}.onnx"
    if not path.exists():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inputs = (torch.from_numpy(pixels),)
            torch.onnx.export(_Logits(dense), inputs, str(path), dynamo=True, verbose=False, external_data=False)
    return path


class _Logits(nn.Module):
    """Returns bare logits, which is what graphs hold."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model(pixels).logits


def onnxruntime_call(
    dense: nn.Module, pixels: np.ndarray, folder: Path, threads: int, *, int8: bool
) -> Callable[[], np.ndarray]:
    """Make a call of ONNX Runtime, in fp32 or with its dynamic int8 quantization."""
    import onnxruntime

    path = export(dense, pixels, folder)
    if int8:
        path = _onnx_int8(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: pixels})[0]


def _onnx_int8(path: Path) -> Path:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantized = path.with_suffix(".int8.onnx")
    # Signed weights, one scale a channel, matrix products only: what its documentation advises for transformers.
    quantize_dynamic(
        str(path), str(quantized), weight_type=QuantType.QInt8, per_channel=True,
        op_types_to_quantize=["MatMul", "Gemm"],
    )  # fmt: skip
    return quantized


def openvino_call(
    dense: nn.Module, pixels: np.ndarray, folder: Path, threads: int, *, int8: bool
) -> Callable[[], np.ndarray]:
    """Make a call of OpenVINO, in fp32 or quantized by NNCF's post-training quantization."""
    import openvino

    model = openvino.Core().read_model(str(export(dense, pixels, folder)))
    if int8:
        model = _nncf_int8(model, pixels)
    settings = {
        "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
    }  # fmt: skip
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    request, output = compiled.create_infer_request(), compiled.output(0)
    return lambda: request.infer([pixels])[output]


def _nncf_int8(model: Any, pixels: np.ndarray) -> Any:
    import nncf

    random = np.random.default_rng(0)
    images = [random.standard_normal(pixels.shape, dtype=np.float32) for _ in range(8)]
    return nncf.quantize(
        model, nncf.Dataset(images), model_type=nncf.ModelType.TRANSFORMER, preset=nncf.QuantizationPreset.MIXED
    )


def candidates(
    dense: nn.Module, pixels: np.ndarray, folder: Path, options: argparse.Namespace
) -> dict[str, Callable[[], Call]]:
    """Return what makes each candidate's call, by name."""
    compiled, threads = torch.compile(dense, dynamic=False), options.threads
    prune = Step.of("structured-pruning", target={"macs": 0.5}, align=8 if options.tiny else 64)
    nncf = Step.of("nncf", threads=threads, images=8, batch_size=2)
    return {
        "torch eager fp32": lambda: torch_call(dense, pixels),
        "torch compiled fp32": lambda: torch_call(compiled, pixels),
        OWN_INT8[0]: lambda: own_call(dense, pixels, INT8, COMPILE),
        OWN_INT8[1]: lambda: own_call(dense, pixels, STATIC, COMPILE),
        OWN_INT8[2]: lambda: own_call(dense, pixels, nncf),
        HALF[0]: lambda: own_call(dense, pixels, prune, INT8, COMPILE),
        HALF[1]: lambda: own_call(dense, pixels, prune, nncf),
        SMALL[0]: lambda: own_call(dense, pixels, prune, INT8, COMPILE, size=options.small),
        SMALL[1]: lambda: own_call(dense, pixels, prune, nncf, size=options.small),
        "onnxruntime fp32": lambda: onnxruntime_call(dense, pixels, folder, threads, int8=False),
        INT8_PEERS[0]: lambda: onnxruntime_call(dense, pixels, folder, threads, int8=True),
        "openvino fp32": lambda: openvino_call(dense, pixels, folder, threads, int8=False),
        INT8_PEERS[1]: lambda: openvino_call(dense, pixels, folder, threads, int8=True),
    }


def is_installed(name: str) -> bool:
    """Tell whether the libraries that a candidate's name speaks of are there."""
    needed = {
        "onnxruntime": ("onnxruntime", "onnxscript"), "openvino": ("openvino", "onnxscript"),
        "nncf": ("nncf", "openvino", "onnxscript", *(["pah_opt_openvino"] if name.startswith("pah_opt") else [])),
    }  # fmt: skip
    return all(importlib.util.find_spec(each) for word in name.split() for each in needed.get(word, ()))


def ready(makers: dict[str, Callable[[], Any]], reference: np.ndarray) -> tuple[dict[str, Any], dict[str, str]]:
    """Make every call that can be made, and check that fp32 engines give torch's logits."""
    calls, left_out = {}, {}
    for name, make in makers.items():
        if not is_installed(name):
            left_out[name] = "not installed: pip install 'pah-opt[peers]' ./plugins/pah-opt-openvino"
            continue
        print(f"preparing {name} …", flush=True)
        try:
            calls[name] = make()
            logits = calls[name]()
        except Exception as error:  # noqa: BLE001  # peers raise anything; the others are still wanted
            left_out[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            calls.pop(name, None)
            continue
        if "fp32" in name and not np.allclose(logits, reference, atol=1e-2 * float(np.abs(reference).max())):
            raise SystemExit(f"{name} computes other logits than torch")
    return calls, left_out


def measure(calls: dict[str, Any], options: argparse.Namespace) -> list[dict[str, float]]:
    """Let every candidate take turns; return the median time of each in each round, in ms."""
    timer = WallTimer()
    for call in calls.values():
        timer.wall_ms(call, 2)

    def turn(call: Call) -> Callable[[], float]:
        return lambda: statistics.median(timer.wall_ms(call, options.passes))

    turns = {name: turn(call) for name, call in calls.items()}
    return take_turns(
        turns, lambda _: False, at_least=options.rounds, at_most=options.rounds, seed=options.seed
    )  # fmt: skip


def compared(rounds: list[dict[str, float]], fast: str, slow: str) -> dict[str, Any]:
    """Return how many times faster one candidate is than another, with its interval."""
    ratio = pair_ratio([each[slow] for each in rounds], [each[fast] for each in rounds])
    return {"value": ratio.value, "ci95": ratio.interval}


def judged(rounds: list[dict[str, float]]) -> dict[str, Any]:
    """Compare the candidates that have a limit."""
    own, peer = _best(rounds, OWN_INT8), _best(rounds, INT8_PEERS)
    found: dict[str, Any] = {}
    if own and peer:
        found["own over best int8 peer"] = {"own": own, "peer": peer, **compared(rounds, own, peer)}
    for label, names in (("half macs over own", HALF), ("small input over own", SMALL)):
        fastest = _best(rounds, names)
        if own and fastest:
            found[label] = {"fast": fastest, "own": own, **compared(rounds, fastest, own)}
    return found


def _best(rounds: list[dict[str, float]], names: tuple[str, ...]) -> str | None:
    there = [name for name in names if name in rounds[0]]
    return min(there, key=lambda name: statistics.median(each[name] for each in rounds), default=None)


def run(options: argparse.Namespace) -> int:
    """Measure at each batch size, write the results, print a table; return the exit status."""
    torch.set_num_threads(options.threads)
    # torch counts recompilations by the code of a frame, which all these models share; past its limit of 8 it runs
    # them eagerly, with a warning among many.
    torch._dynamo.config.recompile_limit = 256  # noqa: SLF001
    dense = dense_model(tiny=options.tiny)
    watch = CpuWatch()
    result: dict[str, Any] = {
        "model": "tiny" if options.tiny else "ViT-B/16, 224 px, random weights", "threads": options.threads,
        "cpu": cpu_model(), "platform": f"{platform.system()}-{platform.machine()}", "small_input_px": options.small,
        "versions": {name: installed_version(name) for name in LIBRARIES}, "batches": {},
    }  # fmt: skip
    for batch in options.batches:
        result["batches"][str(batch)] = _at_batch(dense, batch, options)
    result["other_cpu_load"] = watch.other_load().value
    write(options.out, json.dumps(result, indent=1) + "\n")
    return show(result)


def _at_batch(dense: nn.Module, batch: int, options: argparse.Namespace) -> dict[str, Any]:
    pixels = np.random.default_rng(options.seed).standard_normal((batch, 3, 224, 224), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        makers = candidates(dense, pixels, Path(folder), options)
        calls, left_out = ready(makers, torch_call(dense, pixels)())
        rounds = measure(calls, options)
    return {
        "median_ms": {name: statistics.median(each[name] for each in rounds) for name in calls},
        "rounds_ms": {name: [each[name] for each in rounds] for name in calls},
        "over_torch_eager": {name: compared(rounds, name, "torch eager fp32") for name in calls},
        "limits": judged(rounds), "left_out": left_out,
    }  # fmt: skip


def show(result: dict[str, Any]) -> int:
    """Print what was found; return 1 where a limit is missed at the largest batch."""
    for batch, found in result["batches"].items():
        print(f"\nbatch {batch}, {result['threads']} threads")
        for name, ms in sorted(found["median_ms"].items(), key=lambda item: item[1]):
            print(f"  {name:36} {ms:9.1f} ms   {found['over_torch_eager'][name]['value']:5.2f} x eager fp32")
        for name, reason in found["left_out"].items():
            print(f"  {name:36} left out: {reason}")
    limits = list(result["batches"].values())[-1]["limits"]
    missed = False
    for name, least in LEAST.items():
        if name not in limits:
            continue
        value, (low, high) = limits[name]["value"], limits[name]["ci95"]
        verdict = "reached" if value >= least else "missed" if high < least else "not told from reached"
        missed |= verdict == "missed"
        print(f"{name}: {value:.2f} ({low:.2f} to {high:.2f}), at least {least} is wanted: {verdict}")
    return int(missed)


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--passes", type=int, default=1, help="timed passes in a turn")
    parser.add_argument("--small", type=int, default=96, help="the smaller input, in pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--tiny", action="store_true", help="a tiny model, to try the command")
    return run(parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
