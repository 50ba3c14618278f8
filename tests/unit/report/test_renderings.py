# Ratios and intervals are written with real signs.
# ruff: noqa: RUF001

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from pah_opt.measure.schema import Accuracy, GateResult, Provenance, VsBaseline
from pah_opt.report import Curve, Report, check_gates, read_limits, with_gates
from pah_opt.report.folder import write_report
from pah_opt.report.numbers import figures, scaled, times

WHY = "not measured in this test"
EVIL = '<script>alert("x")</script>|*_`&'


@pytest.fixture
def gated(report: Report) -> Report:
    return with_gates(report, check_gates(report, read_limits(["speedup_p50_x=3"], ["top1_drop_pp=1"])))


class TestTerminal:
    def test_it_fits_its_width(self, gated: Report) -> None:
        for width in (60, 80, 120):
            assert max(map(len, gated.to_text(width).splitlines())) <= width

    def test_it_shows_the_figures_plainly(self, report: Report) -> None:
        text = report.to_text(120)
        row = next(line for line in text.splitlines() if line.startswith("int8"))
        assert row.split()[:4] == ["int8", "96.80", "-0.20", "88.0"]
        assert "\x1b" not in text

    def test_what_is_left_out_is_said(self, report: Report) -> None:
        assert "Not shown at this width:" in " ".join(report.to_text(50).split())
        assert "Not shown" not in report.to_text(160)

    def test_names_stay_whole_and_the_least_important_columns_go(self, make_report: Any, make_model: Any) -> None:
        name = "structured-half-width-then-int8-dynamic"
        text = make_report(make_model(), make_model(name, baseline="dense")).to_text(80)
        assert any(line.startswith(f"{name} ") for line in text.splitlines())
        assert "zeros %; the JSON and HTML reports have them." in " ".join(text.split())

    def test_a_name_longer_than_half_the_width_is_broken_at_its_hyphens(
        self, make_report: Any, make_model: Any
    ) -> None:
        name = "structured-half-width-then-int8-dynamic-then-compiled"
        lines = make_report(make_model(), make_model(name, baseline="dense")).to_text(80).splitlines()
        at = next(index for index, line in enumerate(lines) if line.startswith("structured-half"))
        first, second = (line.split()[0] for line in lines[at : at + 2])
        assert first.endswith("-")
        assert first + second == name
        assert max(map(len, lines)) <= 80

    def test_columns_without_a_figure_are_left_out(self, report: Report) -> None:
        assert "J/image" not in report.to_text(200)

    def test_random_weights_are_said_and_no_accuracy_shown(self, make_report: Any, make_model: Any) -> None:
        origin = Provenance.having(WHY, weights_origin="random")
        random = {"provenance": origin, "accuracy": Accuracy.having("random weights")}
        text = make_report(make_model(**random)).to_text()
        assert "The weights of dense are random" in " ".join(text.split())
        assert "top-1" not in text

    def test_str_is_the_table(self, report: Report) -> None:
        assert str(report) == report.to_text(80)


class TestMarkdown:
    def test_the_table_has_a_row_for_each_model(self, report: Report) -> None:
        lines = [line for line in report.to_markdown().splitlines() if line.startswith("|")]
        assert len({line.count(" | ") for line in lines[:4]}) == 1
        assert lines[3].startswith("| int8 | 96.80 | -0.20 (-0.50 to +0.10) | 88.0 |")
        assert "2.00× (1.96–2.04)" in lines[3]

    def test_conditions_and_gates_are_there(self, gated: Report) -> None:
        text = gated.to_markdown()
        assert "- device: AMD EPYC" in text
        assert "- FAILED: int8: speedup\\_p50\\_x is 2, the limit is >= 3" in text

    def test_names_cannot_break_it(self, make_report: Any, make_model: Any) -> None:
        text = make_report(make_model(), make_model(EVIL, baseline="dense")).to_markdown()
        assert "<script" not in text.replace("\\<", "")
        assert len({line.count(" | ") for line in text.splitlines()[2:6]}) == 1

    def test_steps_are_shown(self, make_report: Any, make_model: Any) -> None:
        step = {
            "use": "magnitude-pruning", "before": {"params": 100, "macs": 50}, "after": {"params": 90, "macs": 50},
            "seconds": 1.25,
        }  # fmt: skip
        text = make_report(make_model(), make_model("x", baseline="dense", steps=[step])).to_markdown()
        assert "| before | 100 | 50 |" in text
        assert "| 1. magnitude-pruning | 90 | 50 |  |  | 1.2 |" in text


class TestCsv:
    def test_it_has_a_row_for_each_model_and_batch(self, report: Report) -> None:
        rows = list(csv.DictReader(io.StringIO(report.to_csv())))
        assert [(row["model"], row["workload.batch_size"]) for row in rows] == [
            ("dense", "1"), ("dense", "32"), ("int8", "1"), ("int8", "32"),
        ]  # fmt: skip
        assert float(rows[3]["latency.p50_ms"]) == 250.0
        assert float(rows[3]["accuracy.top1"]) == 0.968
        assert rows[0]["energy.gpu_energy_j"] == ""

    def test_a_model_without_timings_has_a_row(self, make_report: Any, make_model: Any) -> None:
        (row,) = csv.DictReader(io.StringIO(make_report(make_model(timings=())).to_csv()))
        assert (row["model"], row["latency.p50_ms"]) == ("dense", "")

    def test_cells_are_no_formulas(self, make_report: Any, make_model: Any) -> None:
        (row, _) = csv.DictReader(io.StringIO(make_report(make_model("=1+1")).to_csv()))
        assert row["model"] == "'=1+1"


class TestJunit:
    def test_gates_are_test_cases(self, gated: Report) -> None:
        root = ET.fromstring(gated.to_junit())
        (suite,) = root
        assert (suite.get("name"), suite.get("tests"), suite.get("failures")) == ("int8", "2", "1")
        failed = [case.get("name") for case in suite if case.find("failure") is not None]
        assert failed == ["speedup_p50_x >= 3"]
        assert "is 2, the limit is >= 3" in (suite.find("testcase/failure").get("message"))  # type: ignore[union-attr]

    def test_names_cannot_break_it(self, make_report: Any, make_model: Any, versus: Any) -> None:
        report = make_report(make_model(), make_model(EVIL + "\x00\x0b", baseline="dense", vs_baseline=versus(1.0)))
        checked = with_gates(report, check_gates(report, read_limits(["speedup_p50_x=3"], [])))
        (suite,) = ET.fromstring(checked.to_junit())
        assert suite.get("name") == EVIL + "??"


@pytest.mark.parametrize(
    ("passed", "cell"),
    [
        ((None,), "not checked (no baseline)"),
        ((None, True), "passed, 1 not checked (no baseline)"),
        ((None, False), "failed: m1"),
    ],
)
def test_gates_that_were_not_checked_are_neither_passed_nor_failed(
    passed: tuple[bool | None, ...], cell: str, make_report: Any, make_model: Any
) -> None:
    gates = tuple(
        GateResult(metric=f"m{number}", limit="<= 1", value=None, passed=each, message=f"about m{number}")
        for number, each in enumerate(passed)
    )
    report = make_report(make_model(vs_baseline=VsBaseline.having(WHY, baseline_id="dense", gates=gates)))
    text = report.to_markdown()
    assert f"| {cell} |" in text
    assert "- not checked: about m0" in text
    assert '<span class="not checked">not checked</span> about m0' in report.to_html()
    (suite,) = ET.fromstring(report.to_junit())
    assert (suite.get("skipped"), suite.get("failures")) == ("1", str(passed.count(False)))
    assert suite.find("testcase/skipped").get("message") == "about m0"  # type: ignore[union-attr]


class Page(HTMLParser):
    """Collects tags, attributes and text."""

    VOID = frozenset({"meta"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


class TestHtml:
    def test_every_tag_is_closed(self, gated: Report) -> None:
        page = Page(gated.with_curves(loss=Curve(x=(1, 2, 3), y=(3, 2, 1))).to_html())
        assert page.open == []
        assert page.tags.count("svg") == 4

    def test_nothing_is_fetched_or_run(self, gated: Report) -> None:
        text = gated.to_html()
        page = Page(text)
        assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
        assert not re.search(r"https?://|@import|url\(", text)
        assert "default-src 'none'" in text
        assert not any(name in ("src", "href") or name.startswith("on") for name, _ in page.attributes)

    def test_names_cannot_break_it(self, make_report: Any, make_model: Any) -> None:
        page = Page(make_report(make_model(), make_model(EVIL, baseline="dense", notes=(EVIL,))).to_html())
        assert "script" not in page.tags

    def test_every_model_is_in_the_table_and_in_each_plot(self, report: Report) -> None:
        text = report.to_html()
        assert text.count('<th scope="row">int8</th>') == 1
        assert text.count("<title>int8: ") == 3  # latency, size, distribution

    def test_the_front_is_marked(self, report: Report) -> None:
        assert report.to_html().count('class="point best"') == 4

    def test_what_has_no_figures_has_no_plot(self, make_report: Any, make_model: Any) -> None:
        assert "<svg" not in make_report(make_model(timings=())).to_html()

    def test_a_removed_block_is_said(self, make_report: Any, make_model: Any, make_blocks: Any) -> None:
        shorter = make_model("x", baseline="dense", blocks=make_blocks(1))
        assert "1 of the baseline's 2 blocks were removed" in make_report(make_model(), shorter).to_html()

    @pytest.mark.parametrize("values", [(1.0, 1.0), (0.0, 0.0), (1e-9, 2e-9), (1e9, 3e9)])
    def test_any_curve_can_be_drawn(self, values: tuple[float, float], report: Report) -> None:
        text = report.with_curves(c=Curve(x=(1, 2), y=values)).to_html()
        assert "nan" not in text.lower().replace("finance", "")
        assert "inf," not in text


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_folder_holds_every_rendering(gated: Report, tmp_path: Path) -> None:
    names = write_report(gated, tmp_path / "out")
    assert sorted(names) == names_in(tmp_path / "out")
    assert names_in(tmp_path / "out") == ["report.csv", "report.html", "report.json", "report.md", "report.xml"]


def test_what_an_earlier_report_alone_had_is_gone(gated: Report, report: Report, tmp_path: Path) -> None:
    write_report(gated.with_curves(**{"loss x step 1": Curve(x=(1, 2), y=(2, 1))}), tmp_path)
    for name in ("accuracy-size.png", "loss-x-step-1.png", "loss-y-step-1.png"):
        (tmp_path / name).touch()
    names = write_report(report, tmp_path)
    assert names_in(tmp_path) == sorted((*names, "loss-y-step-1.png"))
    assert "report.xml" not in names


def test_nothing_outside_the_folder_is_removed(report: Report, tmp_path: Path) -> None:
    (tmp_path / "mine.png").touch()
    write_report(report.with_curves(**{"../mine": Curve(x=(1, 2), y=(2, 1))}), tmp_path / "out")
    write_report(report, tmp_path / "out")
    assert (tmp_path / "mine.png").exists()


def test_an_earlier_report_that_cannot_be_read_is_replaced(report: Report, tmp_path: Path) -> None:
    for name in ("report.json", "report.xml"):
        (tmp_path / name).write_text("{")
    write_report(report, tmp_path)
    assert Report.load(tmp_path) == report
    assert not (tmp_path / "report.xml").exists()


def test_figures_are_written_for_people() -> None:
    assert [figures(v) for v in (0, 0.00123, 0.999, 1.5, 12.34, 999.6, 12345.6, -2.5)] == [
        "0", "0.00123", "0.999", "1.50", "12.3", "1,000", "12,346", "-2.50",
    ]  # fmt: skip
    assert [scaled(v) for v in (12, 1_500, 86_567_656, 17_563_828_224, None)] == ["12", "1.50k", "86.6M", "17.6G", "–"]
    assert times(2.0, (1.9, 2.1)) == "2.00× (1.90–2.10)"
