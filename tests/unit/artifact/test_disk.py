"""Saving on disks that are full, read-only, shared, or lose power."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pah_opt.artifact import load
from pah_opt.artifact.files import CARD, COMPRESSED_WEIGHTS, DESCRIPTION, EXAMPLES, MANIFEST, PROCESSOR, REPORT, WEIGHTS
from pah_opt.errors import ArtifactError, ArtifactWriteError
from pah_opt.storage.weights import Weights
from pah_opt.testing import tiny_vit

from .conftest import change, tiny_artifact

START = f"""
import os, signal, sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
import torch
torch.set_num_threads(1)
from conftest import tiny_artifact
from pah_opt.artifact import load
from pah_opt.errors import ArtifactError
folder = sys.argv[1]
tiny_artifact()  # what it imports is imported once, and not again in every child
"""

KILL = (
    START
    + """
from pah_opt.storage.atomic import whole_folder
for attempt in range(25):
    ready, tell = os.pipe()
    child = os.fork()
    if not child:
        artifact = tiny_artifact(class_names=(str(attempt),))
        while True:
            artifact.save(folder, overwrite=True)
            os.write(tell, b"x")
    os.read(ready, 1)
    time.sleep(0.003 * attempt)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print(load(whole_folder(folder), verify=True).class_names[0])
"""
)

RACE = (
    START
    + """
children = []
for label in ("left", "right"):
    child = os.fork()
    if not child:
        artifact = tiny_artifact(class_names=(label,))
        for _ in range(25):
            artifact.save(folder, overwrite=True)
        os._exit(0)
    children.append(child)
while children:
    print(*load(folder, verify=True).class_names)
    pid, status = os.waitpid(-1, os.WNOHANG)
    if pid:
        assert status == 0, status
        children.remove(pid)
"""
)

SAVE = (
    START
    + """
import json, shutil, subprocess
saved, mount = sys.argv[1:]
for size, mode in json.load(sys.stdin):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=" + size, "tmpfs", mount], check=True)
    folder = shutil.copytree(saved, os.path.join(mount, "artifact"))
    subprocess.run(["mount", "-o", "remount," + mode, mount], check=True)
    told = None
    try:
        tiny_artifact(class_names=("new",)).save(folder, overwrite=True)
    except ArtifactError as error:
        told = str(error)
    print(json.dumps([told, os.listdir(mount), load(folder, verify=True).class_names]))
    subprocess.run(["umount", "-l", mount], check=True)  # the loaded weights are mapped
"""
)
DISKS = (("200k", "rw"), ("2m", "ro"), ("2m", "rw"))


def run(script: str, folder: Path) -> list[str]:
    done = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
@pytest.mark.slow
def test_kill_at_any_moment_of_saving_leaves_the_old_artifact_or_the_new(folder: Path) -> None:
    assert run(KILL, folder) == [str(attempt) for attempt in range(25)]
    leftovers = [path for path in folder.parent.iterdir() if path != folder]
    assert all(path.name.startswith(f".{folder.name}.") for path in leftovers)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.slow
def test_two_savers_at_once_leave_a_whole_artifact_and_readers_never_see_half(folder: Path) -> None:
    seen = run(RACE, folder)
    assert set(seen) <= {"left", "right", " ".join("abcdefghij")}
    assert len(seen) > 3
    load(folder, verify=True)


def can_mount() -> bool:
    """Tell whether a small file system can be mounted in a namespace of its own."""
    if shutil.which("unshare") is None:
        return False
    script = "mount -t tmpfs -o size=64k tmpfs /mnt"
    return subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, check=False).returncode == 0


needs_mount = pytest.mark.skipif(not can_mount(), reason="needs user namespaces to mount a small file system")


@pytest.fixture(scope="module")
def on_disks(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Any]:
    """Save over an old artifact on small file systems: the refusal or None, what is there then, and what it loads."""
    mount = tmp_path_factory.mktemp("mount")
    command = ["unshare", "-rm", sys.executable, "-c", SAVE, str(saved), str(mount)]
    done = subprocess.run(command, input=json.dumps(DISKS), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(zip(DISKS, map(json.loads, done.stdout.splitlines()), strict=True))


@needs_mount
@pytest.mark.slow
@pytest.mark.parametrize(("size", "mode", "reason"), [("200k", "rw", "No space left"), ("2m", "ro", "Read-only file")])
def test_a_full_or_read_only_disk_loses_nothing(on_disks: dict[Any, Any], size: str, mode: str, reason: str) -> None:
    refusal, listed, loaded = on_disks[size, mode]
    assert reason in refusal
    assert listed == ["artifact"]
    assert loaded == list("abcdefghij")


@needs_mount
@pytest.mark.slow
def test_a_disk_with_room_for_both_is_enough(on_disks: dict[Any, Any]) -> None:
    assert on_disks["2m", "rw"] == [None, ["artifact"], ["new"]]


@pytest.mark.parametrize("at", range(1, 8))
def test_a_disk_that_fails_at_any_file_leaves_the_old_artifact(
    folder: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    opened: list[Path] = []
    original = Path.open

    def failing(self: Path, mode: str = "r", *arguments: object, **options: object) -> object:
        if "w" in mode or "x" in mode:
            opened.append(self)
            if len(opened) == at:
                raise OSError(5, "Input/output error")
        return original(self, mode, *arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", failing)
    with pytest.raises(ArtifactError, match="Input/output error"):
        tiny_artifact(class_names=()).save(folder, overwrite=True)
    assert len(opened) == at
    assert load(folder, verify=True).class_names == tuple("abcdefghij")
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_seven_files_are_written(folder: Path) -> None:
    """What the test above runs over."""
    assert {path.name for path in folder.iterdir()} == {
        CARD, DESCRIPTION, EXAMPLES, MANIFEST, PROCESSOR, REPORT, WEIGHTS
    }  # fmt: skip


def test_a_parent_that_is_a_file_is_named(folder: Path) -> None:
    with pytest.raises(ArtifactError, match="could not be written"):
        tiny_artifact().save(folder / WEIGHTS / "below")


def test_an_interrupted_save_leaves_the_old_artifact(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pah_opt.artifact import saving

    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(saving, "write_weights", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tiny_artifact(class_names=()).save(folder, overwrite=True)
    assert load(folder, verify=True).class_names == tuple("abcdefghij")
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_full_disk_is_named_when_weights_are_compressed(folder: Path, full_disk: Any) -> None:
    pytest.importorskip("zstandard")
    large = tiny_artifact(model=tiny_vit(hidden=128, mlp=512, blocks=4, heads=2))  # written before all is compressed
    with full_disk(), pytest.raises(ArtifactWriteError, match=r"could not be written to .*File too large"):
        large.save(folder, overwrite=True, compress=True)
    assert load(folder, verify=True).class_names == tuple("abcdefghij")


def test_an_interrupt_amid_compressing_stays_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("zstandard")
    from pah_opt.storage import compression

    def interrupted(weights: Weights) -> Iterator[bytes]:
        yield weights.header()
        raise KeyboardInterrupt

    monkeypatch.setattr(compression, "weights_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tiny_artifact().save(tmp_path / "artifact", compress=True)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def packed(compressed: Path, tmp_path: Path) -> Path:
    """A copy of the compressed artifact that a test may damage."""
    return shutil.copytree(compressed, tmp_path / "packed")


def test_a_zip_bomb_is_refused_before_it_is_unpacked(packed: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    size = 2**31
    compressor = zstandard.ZstdCompressor(level=1).compressobj(size=size)
    bomb = b"".join(compressor.compress(bytes(2**26)) for _ in range(size // 2**26)) + compressor.flush()
    assert len(bomb) < 2**18
    started = time.monotonic()
    change(packed, COMPRESSED_WEIGHTS, lambda _: bomb)
    with pytest.raises(ArtifactError, match=r"states a content of 2147483648 bytes; at most"):
        load(packed)
    assert time.monotonic() - started < 10


def test_a_frame_that_states_no_size_is_refused(packed: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    compressor = zstandard.ZstdCompressor(write_content_size=False)
    change(packed, COMPRESSED_WEIGHTS, lambda _: compressor.compress(bytes(1000)))
    with pytest.raises(ArtifactError, match="states a content of"):
        load(packed)


@pytest.mark.parametrize("damage", ["truncated", "garbage", "two frames"])
def test_a_damaged_frame_is_refused_when_checksums_fit(packed: Path, damage: str) -> None:
    how = {
        "truncated": lambda data: data[: len(data) // 2],
        "garbage": lambda data: data[:40] + bytes(100) + data[140:],
        "two frames": lambda data: data + data,
    }[damage]
    change(packed, COMPRESSED_WEIGHTS, how)
    with pytest.raises(ArtifactError, match=COMPRESSED_WEIGHTS):
        load(packed)


def test_both_kinds_of_weights_at_once_are_refused(packed: Path, saved: Path) -> None:
    shutil.copy(saved / WEIGHTS, packed / WEIGHTS)
    with pytest.raises(ArtifactError, match=r"holds model\.safetensors"):
        load(packed)
