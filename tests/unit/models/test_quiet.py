from __future__ import annotations

import logging
import warnings
from contextlib import suppress

import pytest

from pah_opt.models.quiet import quiet_compiling, quiet_imports, quiet_transformers


def test_import_noise_is_dropped_and_everything_else_is_heard(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("torchao")
    with quiet_imports():
        logger.warning("Failed to load %s: no such library", "_C.so")
        logger.warning("weights are strange")
    logger.warning("Failed to load after the block")
    assert [record.getMessage() for record in caplog.records] == [
        "weights are strange",
        "Failed to load after the block",
    ]


def test_verbosity_is_restored_after_an_error() -> None:
    from transformers.utils import logging as their_logging

    before = their_logging.get_verbosity()
    with suppress(KeyError), quiet_transformers():
        assert their_logging.get_verbosity() == their_logging.ERROR
        assert not their_logging.is_progress_bar_enabled()
        raise KeyError
    assert their_logging.get_verbosity() == before
    assert their_logging.is_progress_bar_enabled()


def test_progress_bars_that_were_off_stay_off() -> None:
    from transformers.utils import logging as their_logging

    their_logging.disable_progress_bar()
    try:
        with quiet_transformers():
            pass
        assert not their_logging.is_progress_bar_enabled()
    finally:
        their_logging.enable_progress_bar()


def test_warnings_of_other_code_are_not_swallowed() -> None:
    with quiet_transformers(), pytest.raises(UserWarning, match="mine"):
        warnings.warn("mine", UserWarning, stacklevel=1)


def test_what_torch_says_while_it_compiles_is_ignored_and_nothing_else() -> None:
    with warnings.catch_warnings():
        quiet_compiling()
        warnings.warn("Int8Tensor does not implement _stable_hash_for_caching. Please", UserWarning, stacklevel=1)
        with pytest.raises(UserWarning, match="mine"):
            warnings.warn("mine", UserWarning, stacklevel=1)
        filters = len(warnings.filters)
        quiet_compiling()
        assert len(warnings.filters) == filters
