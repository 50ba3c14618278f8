"""constraints.txt serves every Python that pyproject.toml allows."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LINES = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
PINS = [Requirement(line) for line in LINES if not line.startswith("#")]
NAMES = sorted({canonicalize_name(pin.name) for pin in PINS})


def pinned(name: str, python: str) -> list[str]:
    """Return the versions of one package that pip would see there."""
    there = {"python_version": python, "python_full_version": f"{python}.0"}
    return [
        str(next(iter(pin.specifier)).version)
        for pin in PINS
        if canonicalize_name(pin.name) == name and (pin.marker is None or pin.marker.evaluate(there))
    ]


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.14"])
def test_every_package_has_one_version_on_every_python(python: str) -> None:
    assert [name for name in NAMES if len(pinned(name, python)) != 1] == []


def test_the_oldest_python_is_given_no_version_that_refuses_it() -> None:
    """As far as the versions installed here tell: numpy 2.4 alone kept Python 3.10 from installing anything."""
    oldest = "3.10"
    installed = {canonicalize_name(each.metadata["Name"]): each for each in importlib.metadata.distributions()}
    refused = [
        f"{name}=={version}"
        for name in NAMES
        for version in pinned(name, oldest)
        if name in installed
        and installed[name].version == version
        and f"{oldest}.99" not in SpecifierSet(installed[name].metadata.get("Requires-Python") or "")
    ]
    assert refused == []
    assert f'requires-python = ">={oldest}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
