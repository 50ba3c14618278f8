"""JSON data that cannot change."""

from __future__ import annotations

import copy

import pytest

from pah_opt.recipe.frozen import FrozenDict, frozen, plain


def test_frozen_data_compares_and_hashes_by_content() -> None:
    one, other = frozen({"a": [1, {"b": None}]}), frozen({"a": (1, {"b": None})})
    assert one == other
    assert hash(one) == hash(other)


def test_plain_gives_ordinary_data_back() -> None:
    data = {"a": [1, {"b": [True, "x"]}], "c": None}
    assert plain(frozen(data)) == data
    assert type(plain(frozen(data))["a"][1]) is dict


def test_copies_of_what_cannot_change_are_itself() -> None:
    one = FrozenDict(a=1)
    assert copy.copy(one) is one
    assert copy.deepcopy(one) is one


@pytest.mark.parametrize("value", [float("inf"), float("nan"), {"a": [-float("inf")]}, "\udfff", {"\ud800": 1}])
def test_what_no_file_can_hold_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"must be (finite|Unicode)"):
        frozen(value)
