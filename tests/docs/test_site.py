"""The command that builds the site fails where a page is broken."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("mkdocs", reason="needs the extra docs")

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("target", "builds"), [("other.md", True), ("gone.md", False), ("other.md#gone", False)])
def test_a_broken_link_fails_the_build(target: str, builds: bool, tmp_path: Path) -> None:
    (command,) = re.findall(r"mkdocs (build.*)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    ours = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    site = {"site_name": "small", "theme": "mkdocs"} | {key: ours[key] for key in ("strict", "validation")}
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(site), encoding="utf-8")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text(f"# First\n\n[other]({target})\n", encoding="utf-8")
    (tmp_path / "docs/other.md").write_text("# Other\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", *command.split()], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode == 0) is builds, done.stderr
    assert ("gone" in done.stderr) is not builds
