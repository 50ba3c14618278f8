"""Reading, rendering and gating a report must answer at once: no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pah_opt.report import Report

SCRIPT = """
import sys
from pah_opt.report import Report, check_gates, read_limits, with_gates
from pah_opt.report.difference import difference
from pah_opt.report.explain import explain
report = Report.load(sys.argv[1])
report = with_gates(report, check_gates(report, read_limits(["params=1"], ["top1_drop_pp=1"])))
for text in (report.to_text(), report.to_markdown(), report.to_html(), report.to_csv(), report.to_junit()):
    assert "int8" in text
explain(report), difference(report, report)
print(sorted(name for name in ("torch", "transformers", "torchao") if name in sys.modules))
"""


def test_a_report_is_read_and_rendered_without_torch(report: Report, tmp_path: Path) -> None:
    path = report.save(tmp_path / "report.json")
    found = subprocess.run((sys.executable, "-c", SCRIPT, str(path)), capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
