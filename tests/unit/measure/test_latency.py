from __future__ import annotations

import numpy as np
import pytest

from pah_opt.measure.latency import latency_figures, passes_in_a_block
from pah_opt.measure.settings import MeasureSettings
from pah_opt.measure.timer import Block
from pah_opt.measure.warmup import WarmUp

WARM = WarmUp(first_call_ms=50.0, compiled=False, iterations=12, typical_ms=2.0, settled=True)


def blocks(times: list[float], wall: float = 9.0) -> list[Block]:
    return [Block(tuple(times[i : i + 10]), (wall,) * len(times[i : i + 10])) for i in range(0, len(times), 10)]


def test_figures_are_those_of_all_passes() -> None:
    times = [float(value) for value in range(1, 1201)]
    found = latency_figures(blocks(times), "cuda_event", WARM)
    assert (found.min_ms, found.max_ms, found.n) == (1.0, 1200.0, 1200)
    assert found.p50_ms == np.median(times)
    assert (found.p90_ms, found.p95_ms, found.p99_ms) == tuple(np.percentile(times, [90, 95, 99]))
    assert found.mean_ms == pytest.approx(600.5)
    assert found.std_ms == pytest.approx(float(np.std(times, ddof=1)))
    assert (found.method, found.wall_p50_ms, found.first_call_ms) == ("cuda_event", 9.0, 50.0)


@pytest.mark.parametrize(
    ("count", "known"),
    [(99, []), (100, ["p90_ms"]), (200, ["p90_ms", "p95_ms"]), (1000, ["p90_ms", "p95_ms", "p99_ms"])],
)
def test_tails_need_samples_and_say_so(count: int, known: list[str]) -> None:
    found = latency_figures(blocks([1.0] * count), "wall", WARM)
    for name in ("p90_ms", "p95_ms", "p99_ms"):
        assert (getattr(found, name) is not None) == (name in known)
        assert ("samples" in found.reasons.get(name, "")) == (name not in known)


def test_compile_time_has_a_reason_when_nothing_was_compiled() -> None:
    assert latency_figures(blocks([1.0]), "wall", WARM).reasons["compile_s"] == "the first call compiled nothing"
    compiled = WarmUp(2050.0, True, 12, 50.0, True)
    assert latency_figures(blocks([1.0]), "wall", compiled).compile_s == pytest.approx(2.0)


def test_one_pass_has_no_spread() -> None:
    found = latency_figures(blocks([3.0]), "wall", WARM)
    assert (found.p50_ms, found.std_ms) == (3.0, None)


def test_samples_for_plots_are_bounded_and_keep_both_ends() -> None:
    found = latency_figures(blocks([float(v) for v in range(3000)]), "wall", WARM)
    assert found.samples_ms is not None
    assert len(found.samples_ms) == 500
    assert (found.samples_ms[0], found.samples_ms[-1]) == (0.0, 2999.0)


@pytest.mark.parametrize(("typical", "passes"), [(0.0, 1000), (0.5, 200), (30.0, 3), (5000.0, 1)])
def test_a_turn_lasts_about_the_asked_time(typical: float, passes: int) -> None:
    assert passes_in_a_block(typical, MeasureSettings(block_ms=100)) == passes
