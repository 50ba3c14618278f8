from __future__ import annotations

import fcntl
import os
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pah_opt.recipe.files import read_mapping
from pah_opt.study.results import AdaptationResult, Conditions, Figures, RowResult, StudyResult
from pah_opt.study.running import run_study
from pah_opt.study.schema import DENSE, Study

KEPT = (
    "sparse-10-v1", "sparse-10", "sparse-50-v1", "sparse-50", "sparse-90-v1", "int8-static-v1", "int8-eager-v1",
    "int8-weights", "int8-static", "fresh-head", "unscaled-pixels", "shifted-labels",
)  # fmt: skip
"""Rows of the study ``tiny`` that the tests run; none of them trains."""
LOOK = {
    "batch_sizes": [8], "min_rounds": 3, "max_rounds": 3, "warmup_iters": 1, "warmup_s": 0.0, "block_ms": 1.0,
    "latency_limit_s": 0.05, "throughput_s": 0.01, "throughput_slices": 1, "groups": ["latency", "memory"],
}  # fmt: skip
MINI: dict[str, Any] = {
    "name": "mini", "model": "digits", "data": "digits", "train_limit": 120, "test_limit": 60, "measure": LOOK,
    "adaptations": {"full": {"mode": "full", "epochs": 1, "batch_size": 32, "head_first": False}},
    "sections": [{
        "title": {"en": "Zeros", "fr": "Zéros"}, "topic": "unstructured",
        "rows": [
            {"name": f"zeros-{share}", "steps": [{"use": "magnitude-pruning", "with": {"sparsity": share / 100}}]}
            for share in (20, 40, 60)
        ],
    }],
}  # fmt: skip
"""A study of a second or two."""


class Finished(NamedTuple):
    """A study that ran, and where."""

    study: Study
    folder: Path
    result: StudyResult


def trimmed_tiny() -> dict[str, Any]:
    """The packaged study ``tiny`` with the rows of KEPT and shorter training."""
    data, _ = read_mapping(files("pah_opt.study") / "studies" / "tiny.yaml")
    data["adaptations"]["full"]["epochs"] = 9
    data["adaptations"]["last-three"]["epochs"] = 2
    data["base_tolerance_pp"] = 0.0  # so that no choice depends on how busy the machine is
    for section in data["sections"]:
        section["rows"] = [row for row in section["rows"] if row["name"] in KEPT]
    data["sections"] = [section for section in data["sections"] if section["rows"]]
    return {**data, "measure": LOOK}


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One run for all tests, shared by the processes that run them: its folder is its own cache."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tiny-study"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = run_study(trimmed_tiny(), folder)
    return Finished(result.study, folder, result)


def made_result(rows: dict[str, dict[str, Any]], study: dict[str, Any] | None = None, **changes: Any) -> StudyResult:
    """A result with given figures: ``rows`` maps names to figures, and to ``collapsed``, ``dtypes``, ``notes``…"""
    read = Study.model_validate(study or study_of({name: {} for name in rows if name != DENSE}))
    results = []
    for name, given in rows.items():
        figures = {key: value for key, value in given.items() if key in Figures.model_fields}
        if "speedup_x" in given:  # exactly known, unless a test says otherwise
            figures = {**dict.fromkeys(("speedup_low_x", "speedup_high_x"), given["speedup_x"]), **figures}
        results.append(RowResult(
            name=name, base="full", seed=0, figures=Figures(**figures), collapsed=given.get("collapsed", False),
            linear_dtypes=given.get("dtypes", {"fp32": 4}), error=given.get("error"),
            unavailable=given.get("unavailable"), notes=given.get("notes", ()),
        ))  # fmt: skip
    adapted = (AdaptationResult(name="full", seed=0, top1=0.97, validation_top1=0.96, seconds=20.0, losses=(2.0, 1.0)),)
    conditions = Conditions(
        model="a-vit", data="images", train_images=1000, test_images=500, class_names=tuple("abcdefghij"), device="CPU",
        threads=1, versions={"torch": "2"}, measured_utc="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    made = {"study": read, "conditions": conditions, "adaptations": adapted, "base": "full", "rows": tuple(results)}
    return StudyResult(**{**made, **changes})


def study_of(rows: dict[str, dict[str, Any]], topic: str = "other", **changes: Any) -> dict[str, Any]:
    """A study with rows of one section; each is a harmless recipe unless told otherwise."""
    made = [
        {"name": name, **(row if "naive" in row else {"steps": [{"use": "magnitude-pruning"}], **row})}
        for name, row in rows.items()
    ]
    section = {"title": {"en": "Rows", "fr": "Lignes"}, "topic": topic, "rows": made}
    return {"adaptations": {"full": {}}, "sections": [section], **changes}


DENSE_FIGURES = {"top1": 0.97, "file_bytes": 80e6, "sparsity_pct": 0.0, "macs": 4e9, "latency_ms": 50.0, "params": 2e7}
