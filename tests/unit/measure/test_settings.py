from __future__ import annotations

import pytest

from pah_opt.errors import MeasurementError
from pah_opt.measure.settings import MeasureSettings


def test_defaults_follow_the_protocol() -> None:
    found = MeasureSettings()
    assert found.warmup_iters >= 10
    assert found.warmup_s >= 1.0
    assert found.throughput_s >= 10.0
    assert found.energy_s >= 10.0
    assert found.min_rounds >= 3
    assert found.batch_sizes == (1, 64)


def test_quick_settings_keep_what_makes_a_ratio_trustworthy() -> None:
    assert MeasureSettings.quick().min_rounds >= 8
    assert MeasureSettings.quick().throughput_slices >= 8
    assert MeasureSettings.quick(batch_sizes=(4,)).batch_sizes == (4,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_sizes": ()}, "batch_sizes"),
        ({"batch_sizes": ("large",)}, "batch_sizes"),
        ({"throughput_s": 0}, "throughput_s = 0"),
        ({"min_rounds": 2}, "min_rounds = 2"),
        ({"rounds": 5}, "rounds = 5"),
        ({"groups": {"speed"}}, "groups"),
    ],
)
def test_mistakes_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(MeasurementError, match=message):
        MeasureSettings.of(**change)
