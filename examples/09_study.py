"""Run a whole comparison as data; what is finished already is not run again, even after a kill.

Teaches: `pah_opt.study`, rows V1 (the naive tool) against V2, and the choice with its reason. On the command line:
`pah-opt study tiny`, `pah-opt study examples/studies/cifar10-vit-b.yaml`.
Output:
    3 rows; 4 cells computed
    again: 0 cells computed
"""

from __future__ import annotations

import pah_opt

STUDY = {
    "name": "example",
    "title": "int8 in two ways",
    "model": "digits",
    "data": "digits",
    "measure": {"batch_sizes": [16], "min_rounds": 3, "max_rounds": 3, "latency_limit_s": 0.1, "throughput_s": 0.05},
    "adaptations": {"full": {"mode": "full", "epochs": 2, "lr": 3.0e-3, "head_first": False}},
    "sections": [
        {
            "title": "Quantization",
            "topic": "quantization",
            "rows": [
                {
                    "name": "int8-v1",
                    "version": "V1",
                    "steps": [{"use": "torchao", "with": {"scheme": "int8-static", "naive": True, "skip": []}}],
                },
                {"name": "int8", "steps": [{"use": "torchao", "with": {"scheme": "int8-weight-only"}}]},
            ],
        }
    ],
    "priorities": {"weights": {"size": 1.0, "accuracy": 1.0, "latency": 0.0}, "limits": {"top1_drop_pp": {"max": 2.0}}},
}


def main() -> None:
    """Run a small study twice."""
    result = pah_opt.study(STUDY, "study")  # study/report.html is the report
    print(f"{len(result.rows)} rows; {result.computed} cells computed")
    print(f"again: {pah_opt.study(STUDY, 'study').computed} cells computed")


if __name__ == "__main__":
    main()
