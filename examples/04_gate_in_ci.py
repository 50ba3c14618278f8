"""Hold a model against limits, as a CI job does: the exit status is 1 where one is not kept.

Teaches: gates. On the command line: `pah-opt gate report.json --max top1_drop_pp=1 --min size_x=3`.
Output:
    int8: top1_drop_pp 0.00 kept
    int8: size_x 3.18 kept
"""

from __future__ import annotations

import sys

import pah_opt
from pah_opt import Gate, MeasureSettings, Recipe, Step
from pah_opt.adapt import pretrained_digits_vit

LIMITS = {"top1_drop_pp": Gate(max=1.0), "size_x": Gate(min=3.0)}  # pah-opt gate --list names every figure


def main() -> int:
    """Measure, then judge."""
    digits = pretrained_digits_vit()
    recipe = Recipe(steps=[Step.of("torchao", scheme="int8-weight-only")])
    candidate = pah_opt.apply(digits.model, recipe, digits.data)
    settings = MeasureSettings.quick()
    report = pah_opt.compare({"dense": digits.model, "int8": candidate}, digits.data, settings=settings)

    results = pah_opt.check_gates(report, LIMITS)
    for name, gates in results.items():
        for gate in gates:
            print(f"{name}: {gate.metric} {gate.value:.2f} {'kept' if gate.passed else 'MISSED'}")
    return int(not all(gate.passed for gates in results.values() for gate in gates))


if __name__ == "__main__":
    sys.exit(main())
