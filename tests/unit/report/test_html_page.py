"""The HTML report in a real browser, at phone and desktop width, light and dark."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pah_opt.measure.schema import Accuracy, Energy, Latency, Memory, ModelSize, Provenance
from pah_opt.report import Curve, check_gates, read_limits, with_gates

WHY = "not measured in this test"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next((path for name in BROWSERS if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"no browser: none of {', '.join(BROWSERS)} is installed")

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--allow-file-access-from-files",
)  # fmt: skip
DARK = ("--force-dark-mode", "--blink-settings=preferredColorScheme=0")
SIZES = {"phone": 390, "tablet": 768, "desktop": 1280}

# The page itself may run nothing, so a page around it asks the questions.
AROUND = """<!doctype html><meta charset="utf-8"><body style="margin:0">
<iframe id="page" src="{source}" style="border:0;width:{width}px;height:4000px"></iframe><pre id="answer"></pre><script>
window.onload = () => {{
  const page = document.getElementById("page"), root = page.contentDocument.documentElement;
  const look = (selector) => {{
    const element = page.contentDocument.querySelector(selector);
    if (element === null) return null;
    const style = page.contentWindow.getComputedStyle(element);
    return {{color: style.color, fill: style.fill, back: style.backgroundColor}};
  }};
  const outside = [...page.contentDocument.querySelectorAll("body *")].filter((element) =>
    !element.closest(".scroll") && element.getBoundingClientRect().right > root.clientWidth + 1).map((e) => e.tagName);
  const texts = [...page.contentDocument.querySelectorAll("svg text")];
  const small = texts.map((text) => text.getBoundingClientRect().height);
  document.getElementById("answer").textContent = JSON.stringify({{
    width: root.scrollWidth, shown: root.clientWidth, outside, smallest: Math.min(...small),
    fetched: page.contentWindow.performance.getEntriesByType("resource").length,
    plots: page.contentDocument.querySelectorAll("svg").length,
    looks: Object.fromEntries({selectors}.map((selector) => [selector, look(selector)])),
  }});
}};
</script></body>"""
SELECTORS = (
    "body",
    "figure",
    ".lead",
    "thead th",
    "tbody th",
    "td small",
    ".note",
    ".failed",
    ".passed",
    "dt",
    "svg .tick",
)

Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def a_model(make_model: Any, make_timing: Any, make_blocks: Any, versus: Any) -> Callable[..., Any]:
    """Make models of twelve blocks with everything that a page can show."""

    def make(name: str, p50: float, top1: float, *, gated: bool) -> Any:
        latency = Latency.having(
            WHY, p50_ms=p50, wall_p50_ms=p50, method="wall", samples_ms=tuple(p50 + 0.01 * n for n in range(50))
        )
        energy = Energy.having(WHY, j_per_image=p50 / 100)
        compared = {"vs_baseline": versus(20 / p50)} if gated else {}
        blocks = tuple(
            make_blocks(12, heads=12 - n % 3, width=3072 - 64 * n, dtype="int8", zeros=7.0 * n)[n] for n in range(12)
        )
        return make_model(
            name, baseline="dense",
            provenance=Provenance.having(WHY, split="uoft-cs/cifar10:test"),
            timings=tuple(make_timing(batch, p50, 1000 / p50, latency=latency, energy=energy) for batch in (1, 64)),
            memory=Memory.having(WHY, artifact_bytes=int(2e7 * p50)),
            accuracy=Accuracy.having(WHY, top1=top1, top1_delta_pp=100 * (top1 - 0.97), top1_ci95_pp=(-1.0, 0.5)),
            model=ModelSize.having(WHY, params=86_567_656, macs=17_563_828_224, sparsity_pct=50.0),
            blocks=blocks, **compared,
        )  # fmt: skip

    return make


@pytest.fixture(scope="module")
def page(a_model: Any, make_env: Any, make_report: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    unbreakable = "a_name_without_any_place_to_break_" + "x" * 60
    models = (
        a_model("dense", 20.0, 0.97, gated=False),
        a_model("structured-half-width-then-int8-dynamic", 8.0, 0.955, gated=True),
        a_model("sparse-90", 20.1, 0.91, gated=True),
        a_model(unbreakable, 12.0, 0.96, gated=True),
    )
    env = make_env(device_name="NVIDIA H100 80GB HBM3", cpu_model="CPU", threads=8, contended=True)
    report = make_report(*models, env=env, notes=("other processes used the device meanwhile",))
    report = with_gates(report, check_gates(report, read_limits(["throughput_x=1.2"], ["top1_drop_pp=3"])))
    report = report.with_curves(
        **{"loss of recovery": Curve(x=tuple(range(90)), y=tuple(1 / (1 + n) for n in range(90)))}
    )
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(report.to_html(), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def ask(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """Open the page in the browser and ask about it, once for each width and scheme."""
    known: dict[tuple[int, bool], dict[str, Any]] = {}
    folder = tmp_path_factory.mktemp("browser")

    def answer(width: int, *, dark: bool = False) -> dict[str, Any]:
        if (width, dark) not in known:
            around = folder / f"{width}-{dark}.html"
            source = html.escape(page.as_uri())
            around.write_text(
                AROUND.format(source=source, width=width, selectors=json.dumps(SELECTORS)), encoding="utf-8"
            )
            command = (str(BROWSER), *FLAGS, *(DARK if dark else ()), f"--user-data-dir={folder / 'profile'}")
            window = (f"--window-size={max(width, 500)},4000", "--dump-dom", around.as_uri())
            out = subprocess.run((*command, *window), capture_output=True, text=True, timeout=120, check=True).stdout
            found = re.search(r'<pre id="answer">(.*?)</pre>', out, re.DOTALL)
            assert found is not None, out[:500]
            known[width, dark] = json.loads(html.unescape(found.group(1)))
        return known[width, dark]

    return answer


@pytest.mark.parametrize("width", SIZES.values(), ids=SIZES)
def test_the_page_fits_its_width(width: int, ask: Ask) -> None:
    """Wide tables scroll inside their frame; the page never does."""
    found = ask(width)
    assert found["shown"] == width
    assert found["width"] <= width
    assert found["outside"] == []


@pytest.mark.parametrize("width", SIZES.values(), ids=SIZES)
def test_text_in_plots_can_be_read(width: int, ask: Ask) -> None:
    assert ask(width)["smallest"] >= 9


def test_every_plot_is_drawn_and_nothing_is_fetched(ask: Ask) -> None:
    found = ask(1280)
    assert found["plots"] == 5  # latency, size, energy, distributions, loss
    assert found["fetched"] == 0


def channels(color: str) -> tuple[float, float, float]:
    red, green, blue = (int(part) / 255 for part in re.findall(r"\d+", color)[:3])
    return red, green, blue


def luminance(color: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels(color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(dark: bool, ask: Ask) -> None:
    looks = ask(1280, dark=dark)["looks"]
    assert None not in looks.values()
    page, card = looks["body"]["back"], looks["figure"]["back"]
    behind = {"body": page, ".lead": page, ".note": looks[".note"]["back"], "dt": page}
    for selector in SELECTORS:
        if selector != "figure":
            shown = looks[selector]["fill" if selector.startswith("svg") else "color"]
            assert contrast(shown, behind.get(selector, card)) >= 4.5, selector


def test_the_page_is_dark_where_the_system_is(ask: Ask) -> None:
    light, dark = (ask(1280, dark=scheme)["looks"]["body"]["back"] for scheme in (False, True))
    assert luminance(light) > 0.8
    assert luminance(dark) < 0.05


@pytest.mark.parametrize("name", ["phone", "desktop"])
def test_a_picture_of_the_page_is_not_blank(name: str, page: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    shot = tmp_path / "shot.png"
    command = (str(BROWSER), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={SIZES[name]},1600")
    subprocess.run(
        (*command, f"--screenshot={shot}", page.as_uri()), capture_output=True, timeout=120, check=True
    )  # fmt: skip
    colours = image.open(shot).convert("RGB").getcolors(maxcolors=10**6)
    assert len(colours) > 50
    assert max(count for count, _ in colours) < 0.95 * sum(count for count, _ in colours)
