from __future__ import annotations

import pytest

import pah_opt


def test_every_public_name_has_a_home_and_is_listed() -> None:
    assert list(pah_opt.__all__) == sorted(pah_opt.__all__)
    assert set(pah_opt.__all__) == set(pah_opt._HOMES) == set(dir(pah_opt))


def test_every_public_name_can_be_had_and_says_what_it_is() -> None:
    for name in pah_opt.__all__:
        found = getattr(pah_opt, name)
        assert isinstance(found, str) or (found.__doc__ or "").strip(), name


def test_an_unknown_name_is_an_attribute_error_that_lists_the_public_ones() -> None:
    with pytest.raises(AttributeError, match=r"'aply'; public names: .*apply"):
        pah_opt.aply  # noqa: B018  # the look-up itself is what fails
