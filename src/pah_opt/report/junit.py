"""Gates as JUnit XML, which every CI shows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from pah_opt.measure.model_report import ModelReport
    from pah_opt.report.schema import Report

NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML cannot hold at all."""


def to_junit(report: Report) -> str:
    """Render a test suite for each model and a test case for each gate."""
    root = ET.Element("testsuites", name="pah_opt gates")
    for model in report.models:
        if model.vs_baseline.gates:
            root.append(_suite(model, report.run.timestamp_utc))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite(model: ModelReport, timestamp: str) -> ET.Element:
    gates = model.vs_baseline.gates
    verdicts = [gate.verdict for gate in gates]
    suite = ET.Element(
        "testsuite", name=_clean(model.id), tests=str(len(gates)), failures=str(verdicts.count("failed")),
        errors="0", skipped=str(verdicts.count("not checked")), timestamp=timestamp, time="0",
    )  # fmt: skip
    for gate in gates:
        case = ET.SubElement(
            suite, "testcase", classname=_clean(model.id), name=f"{gate.metric} {gate.limit}", time="0"
        )  # fmt: skip
        if gate.verdict == "not checked":
            ET.SubElement(case, "skipped", message=_clean(gate.message))
        elif gate.verdict == "failed":
            ET.SubElement(case, "failure", message=_clean(gate.message), type="gate")
    return suite


def _clean(text: str) -> str:
    return NOT_XML.sub("?", text)
