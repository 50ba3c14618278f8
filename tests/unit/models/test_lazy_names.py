from __future__ import annotations

import subprocess
import sys

import pytest

import pah_opt.models
import pah_opt.testing


@pytest.mark.parametrize("package", [pah_opt.models, pah_opt.testing])
def test_public_names_are_sorted_listed_and_importable(package: object) -> None:
    names = package.__all__  # type: ignore[attr-defined]
    assert names == sorted(names, key=lambda name: (not name.isupper(), name))  # constants first, as ruff sorts
    assert dir(package) == sorted(names)
    assert all(getattr(package, name) is not None for name in names)


@pytest.mark.parametrize("package", [pah_opt.models, pah_opt.testing])
def test_other_names_are_refused_with_those_there_are(package: object) -> None:
    with pytest.raises(AttributeError, match="'nothing'; public names: "):
        _ = package.nothing  # type: ignore[attr-defined]


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, pah_opt.models; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
