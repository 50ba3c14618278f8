from __future__ import annotations

import gc

import pytest
from hypothesis import settings

# Examples have no time limit each: on a busy machine one that imports something first takes far longer than its twin.
settings.register_profile("any-speed", deadline=None)
settings.load_profile("any-speed")


@pytest.fixture(autouse=True, scope="module")
def libraries_are_no_garbage() -> None:
    """Keep the collector from looking through what was there before: it took half a second after each training."""
    gc.collect()
    gc.freeze()
