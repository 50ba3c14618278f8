"""Time ``structured-pruning`` against a bare torch-pruning run that does the same, on a ViT-B with random weights.

Both remove a quarter of the heads and half of the hidden units of every block by magnitude, without data. Runs
interleave (A B A B …), so that a machine whose speed drifts slows both; the ratio is the median of the pairs.
Copying the model is timed for neither. Writes ``benchmarks/results/structured_speed.json``.

    python benchmarks/structured_speed.py --rounds 5
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch_pruning
from torch import nn

from pah_opt.environment import Environment, installed_version
from pah_opt.models import find_adapter
from pah_opt.models.builtin import pah_opt_model_adapters
from pah_opt.models.quiet import quiet_transformers
from pah_opt.optimizer import Context
from pah_opt.strategies.structured.config import StructuredConfig
from pah_opt.strategies.structured.strategy import StructuredPruning

if TYPE_CHECKING:
    from collections.abc import Callable

HEADS, MLP = 0.25, 0.5
RESULTS = Path(__file__).parent / "results" / "structured_speed.json"


def vit_base() -> nn.Module:
    import transformers

    with quiet_transformers():
        model: nn.Module = transformers.ViTForImageClassification(transformers.ViTConfig(num_labels=10))
    return model.eval()


def ours(model: nn.Module) -> None:
    adapter = find_adapter(model, tuple(pah_opt_model_adapters()))
    config = StructuredConfig(heads=HEADS, mlp=MLP, importance="magnitude", repair="none")
    StructuredPruning().apply(model, config, Context(adapter, Environment()))


def bare(model: Any) -> None:
    """What torch-pruning's documentation does, with its traps avoided, and attributes put right afterwards."""
    blocks = model.vit.layers
    num_heads = {
        layer: block.attention.num_attention_heads
        for block in blocks
        for layer in (block.attention.q_proj, block.attention.k_proj, block.attention.v_proj)
    }
    ratios = dict.fromkeys(num_heads, HEADS) | {block.mlp.fc1: MLP for block in blocks}
    ignored = [model.classifier, model.vit.embeddings.patch_embeddings.projection]
    ignored += [layer for block in blocks for layer in (block.attention.o_proj, block.mlp.fc2)]
    pruner = torch_pruning.pruner.BasePruner(
        model, (torch.zeros(1, 3, 224, 224),), importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=MLP, pruning_ratio_dict=ratios, ignored_layers=ignored, num_heads=num_heads,
        prune_num_heads=True, prune_head_dims=False, head_pruning_ratio=HEADS, in_channel_groups={},
        out_channel_groups={}, output_transform=lambda output: output.logits,
    )  # fmt: skip
    pruner.step()
    for block in blocks:
        block.attention.num_attention_heads = pruner.num_heads[block.attention.q_proj]


def seconds(work: Callable[[Any], None], dense: nn.Module) -> tuple[float, nn.Module]:
    model = copy.deepcopy(dense)
    started = time.perf_counter()
    work(model)
    return time.perf_counter() - started, model


def measure(rounds: int) -> dict[str, Any]:
    dense = vit_base()
    pairs = []
    for index in range(rounds + 1):
        our_s, our_model = seconds(ours, dense)
        bare_s, bare_model = seconds(bare, dense)
        if index == 0:
            same = all(torch.equal(p, bare_model.get_parameter(name)) for name, p in our_model.named_parameters())
        else:
            pairs.append((our_s, bare_s))
            print(
                f"round {index}: pah_opt {our_s:.3f} s, bare torch-pruning {bare_s:.3f} s, ratio {our_s / bare_s:.2f}"
            )
    return {
        "what": "structured-pruning of ViT-B/16 (random weights): heads 0.25, mlp 0.5, magnitude, no data",
        "ours_s": [pair[0] for pair in pairs],
        "bare_s": [pair[1] for pair in pairs],
        "ratio_median_x": statistics.median(pair[0] / pair[1] for pair in pairs),
        "limit_x": 1.2,
        "same_weights_kept": same,
        "threads": torch.get_num_threads(),
        "cpu": platform.processor() or platform.machine(),
        "versions": {name: installed_version(name) for name in ("torch", "torch-pruning", "transformers", "pah-opt")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="timed pairs, after one that warms up")
    warnings.filterwarnings("ignore", message="Unwrapped parameters detected")
    result = measure(parser.parse_args().rounds)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"median ratio {result['ratio_median_x']:.2f} (limit {result['limit_x']}), written to {RESULTS}")


if __name__ == "__main__":
    main()
