"""How much of a layer's outputs is lost at the same zeros: settled together (admm), or column by column (obs).

    python benchmarks/sparsegpt_solvers.py --model DENSE_FOLDER --data CIFAR10_FOLDER

Prints a Markdown table of the squared error of the outputs relative to the outputs, obs → admm.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import torch

from pah_opt.models.calibration import collect_inputs_covariance
from pah_opt.models.finding import find_adapter
from pah_opt.registry import default_registry
from pah_opt.strategies.unstructured.admm import System, prune_jointly
from pah_opt.strategies.unstructured.allocation import Allocation
from pah_opt.strategies.unstructured.config import NmPattern
from pah_opt.strategies.unstructured.masking import zero_count
from pah_opt.strategies.unstructured.obs import inverse_factor, prune_columns
from pah_opt.strategies.unstructured.sparsegpt import choose_pattern, choose_share, drop_pattern, drop_share
from pah_opt.workflow import Source

if TYPE_CHECKING:
    from torch import Tensor

DAMPENING, BLOCK, ROUNDS = 0.01, 128, 60
TARGETS: dict[str, float | NmPattern] = {"50 %": 0.5, "70 %": 0.7, "90 %": 0.9, "2:4": NmPattern(2, 4)}


def lost(new: Tensor, old: Tensor, hessian: Tensor) -> float:
    """Return the squared error of the outputs over the squared outputs."""
    change = new - old
    return float((change @ hessian * change).sum() / (old @ hessian * old).sum())


def both(weight: Tensor, hessian: Tensor, target: float | NmPattern) -> str:
    """Prune one weight both ways."""
    upper, held = inverse_factor(hessian, DAMPENING).upper, torch.zeros_like(weight, dtype=torch.bool)
    if isinstance(target, NmPattern):
        choose, drop, group = choose_pattern(target), drop_pattern(target), target.group
    else:
        shares = Allocation({"layer": zero_count(target, weight.numel())})
        choose, drop = choose_share("layer", weight, upper, shares), drop_share("layer", weight, shares)
        group = BLOCK
    columns = prune_columns(weight, upper, choose, block=BLOCK, group=group)
    jointly = prune_jointly(weight, System.of(hessian, DAMPENING), drop, rounds=ROUNDS, held=held)
    return f"{lost(columns, weight, hessian):.3g} → {lost(jointly, weight, hessian):.3g}"


def main() -> None:
    """Prune a few layers of a model at every target and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", default="uoft-cs/cifar10")
    parser.add_argument("--images", type=int, default=64)
    options = parser.parse_args()
    source = Source.load(options.model, options.data, train_limit=options.images, test_limit=8)
    if source.data is None or source.data.train is None:
        parser.error("there are no training images")
    layout = find_adapter(source.model, default_registry().adapters).layout(source.model)
    fifth, ninth = layout.blocks[5], layout.blocks[9]
    paths = [fifth.attention.query, fifth.attention.output, fifth.mlp.fc1, fifth.mlp.fc2, ninth.mlp.fc2]
    found = collect_inputs_covariance(source.model, layout, paths, source.data.train, batch_size=16)
    print("| Layer | " + " | ".join(TARGETS) + " |\n" + "|---" * (1 + len(TARGETS)) + "|")
    for path in paths:
        weight = source.model.get_parameter(f"{path}.weight").detach().float()
        hessian = found[path].matrix.float()
        print(f"| {path} | " + " | ".join(both(weight, hessian, target) for target in TARGETS.values()) + " |")


if __name__ == "__main__":
    main()
