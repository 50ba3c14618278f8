"""How quickly the library and its command line answer: wall time of fresh processes, beside a bare interpreter.

Run with ``python benchmarks/import_time.py``; fails (exit status 1) where a limit is exceeded.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

VALIDATE = (
    "from pah_opt import Recipe; from pah_opt.environment import Environment; "
    "from pah_opt.registry import default_registry, validate; "
    "validate(Recipe.from_yaml('steps: [{use: magnitude-pruning, with: {sparsity: 0.5}}]'), default_registry(), "
    "environment=Environment())"
)


@dataclass(frozen=True)
class Case:
    """A command and the most seconds it may take; None for no limit."""

    name: str
    arguments: tuple[str, ...]
    limit_s: float | None = None


CASES = (
    Case("python -c pass", ("-c", "pass")),
    Case("import pah_opt", ("-c", "import pah_opt"), 0.3),
    Case("pah-opt --help", ("-m", "pah_opt", "--help"), 0.5),
    Case("pah-opt list", ("-m", "pah_opt", "list")),
    Case("pah-opt schema", ("-m", "pah_opt", "schema")),
    Case("validate a recipe", ("-c", VALIDATE)),
)


def seconds(arguments: tuple[str, ...]) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def measure(rounds: int) -> list[dict[str, object]]:
    """Take the cases in turn, round by round, so that a machine whose speed drifts slows all of them."""
    for case in CASES:
        seconds(case.arguments)  # writes bytecode, fills the file cache
    times: dict[str, list[float]] = {case.name: [] for case in CASES}
    for _ in range(rounds):
        for case in CASES:
            times[case.name].append(seconds(case.arguments))
    return [
        {
            "name": case.name,
            "median_s": round(statistics.median(times[case.name]), 4),
            "max_s": round(max(times[case.name]), 4),
            "rounds": rounds,
            "limit_s": case.limit_s,
            "passed": case.limit_s is None or statistics.median(times[case.name]) < case.limit_s,
        }
        for case in CASES
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = measure(options.rounds)
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        for result in results:
            limit = "" if result["limit_s"] is None else f"  (limit {result['limit_s']} s)"
            print(f"{result['name']:<18} {result['median_s']:.3f} s median, {result['max_s']:.3f} s worst{limit}")
    return 0 if all(result["passed"] for result in results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
