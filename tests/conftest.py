from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import torch
from hypothesis import settings

# Examples have no time limit each: on a busy machine one that imports something first takes far longer than its twin.
settings.register_profile("any-speed", deadline=None)
settings.load_profile("any-speed")


@pytest.fixture(autouse=True, scope="module")
def seeded_module() -> None:
    """Fixtures that are made once draw the same numbers in every run."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Tests draw the same numbers in every run and in any order, so that what fails once fails again."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="module")
def libraries_are_no_garbage() -> None:
    """Keep the collector from looking through what was there before: it took half a second after each training."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def full_disk() -> Callable[[], AbstractContextManager[None]]:
    """A block in which no file grows beyond 4 kB: the system refuses more, as on a disk that is full."""
    resource = pytest.importorskip("resource", reason="needs POSIX limits of a process")

    @contextmanager
    def limited() -> Iterator[None]:
        before, compiled = resource.getrlimit(resource.RLIMIT_FSIZE), sys.dont_write_bytecode
        sys.dont_write_bytecode = True  # what is imported here would be cached cut off, and break every later import
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))  # Python ignores the signal, and errors remain
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            sys.dont_write_bytecode = compiled

    return limited
