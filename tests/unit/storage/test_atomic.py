"""Files and folders are replaced whole, whatever happens to the process that writes them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pah_opt.storage import atomic
from pah_opt.storage.atomic import replace_folder, whole_folder, write_bytes, write_text


def fill(folder: Path, text: str, files: int = 3) -> None:
    for number in range(files):
        (folder / f"{number}.txt").write_text(text)


def contents(folder: Path) -> set[str]:
    return {path.read_text() for path in folder.iterdir()}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_text_is_replaced(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    write_text(tmp_path / "a.txt", "neu: ä")
    assert (tmp_path / "a.txt").read_bytes() == "neu: ä".encode()
    assert names(tmp_path) == {"a.txt"}


def test_a_failed_write_leaves_the_old_content_and_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bytes(tmp_path / "a", b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == {"a"}


def test_writing_through_a_link_replaces_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_a_new_folder_appears_with_its_parents(tmp_path: Path) -> None:
    with replace_folder(tmp_path / "a" / "b") as new:
        fill(new, "new")
    assert contents(tmp_path / "a" / "b") == {"new"}
    assert names(tmp_path / "a") == {"b"}


def test_a_folder_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with replace_folder(tmp_path / "a", overwrite=True) as new:
            fill(new, text)
    assert contents(tmp_path / "a") == {"new"}
    assert names(tmp_path) == {"a"}


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to list open files")
def test_the_space_of_a_replaced_folder_is_given_back_at_the_latest_before_the_next_is_written(tmp_path: Path) -> None:
    def still_open() -> list[str]:
        links = [str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
        return [link for link in links if link.startswith(str(tmp_path)) and "(deleted)" in link]

    for content in ("old", "new", "newer"):
        with replace_folder(tmp_path / "model", overwrite=True) as folder:
            assert still_open() == []
            (folder / "file").write_text(content)
        assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "file").read_text() == "newer"


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_folder(tmp_path: Path, failure: type[BaseException]) -> None:
    with replace_folder(tmp_path / "a") as new:
        fill(new, "old")

    def write_and_fail() -> None:
        with replace_folder(tmp_path / "a", overwrite=True) as new:
            fill(new, "new")
            raise failure

    with pytest.raises(failure):
        write_and_fail()
    assert contents(tmp_path / "a") == {"old"}
    assert names(tmp_path) == {"a"}


def test_a_folder_that_is_there_is_kept_unless_asked_otherwise(tmp_path: Path) -> None:
    fill(tmp_path, "mine")
    with pytest.raises(FileExistsError), replace_folder(tmp_path):
        pytest.fail("must be refused before anything is written")
    assert contents(tmp_path) == {"mine"}


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with replace_folder(tmp_path / "a") as new:
        fill(new, "new")
    assert contents(tmp_path / "a") == {"new"}


def test_a_file_in_the_way_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(FileExistsError), replace_folder(tmp_path / "a", overwrite=True):
        pytest.fail("must be refused before anything is written")
    assert (tmp_path / "a").read_text() == "mine"


def test_the_caller_may_refuse_to_replace_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    fill(tmp_path / "a", "mine")

    def refuse(folder: Path) -> None:
        raise PermissionError(f"{folder} must stay")

    with (
        pytest.raises(PermissionError, match="must stay"),
        replace_folder(tmp_path / "a", overwrite=True, may_replace=refuse),
    ):
        pytest.fail("must be refused before anything is written")
    assert contents(tmp_path / "a") == {"mine"}


def test_a_folder_filled_by_another_while_writing_is_not_replaced(tmp_path: Path) -> None:
    def write_while_another_does() -> None:
        with replace_folder(tmp_path / "a") as new:
            fill(new, "new")
            (tmp_path / "a").mkdir()
            fill(tmp_path / "a", "other")

    with pytest.raises(FileExistsError):
        write_while_another_does()
    assert contents(tmp_path / "a") == {"other"}


@pytest.mark.parametrize("fails", [False, True])
def test_without_an_atomic_exchange_folders_are_renamed_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    monkeypatch.setattr(atomic, "exchange", lambda first, second: False)
    with replace_folder(tmp_path / "a") as new:
        fill(new, "old")
    if not fails:
        with replace_folder(tmp_path / "a", overwrite=True) as new:
            fill(new, "new")
    else:
        rename = Path.rename

        def fail_second(path: Path, target: Path) -> Path:
            if path.name.endswith(atomic.UNFINISHED):
                raise OSError(5, "Input/output error")
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", fail_second)
        with pytest.raises(OSError, match="Input/output"), replace_folder(tmp_path / "a", overwrite=True) as new:
            fill(new, "new")
    assert contents(tmp_path / "a") == {"old" if fails else "new"}
    assert names(tmp_path) == {"a"}


def test_an_old_folder_that_made_room_is_found_after_a_crash(tmp_path: Path) -> None:
    with replace_folder(tmp_path / "a") as new:
        fill(new, "old")
    (tmp_path / "a").rename(tmp_path / f".a.12345678{atomic.REPLACED}")
    assert contents(whole_folder(tmp_path / "a")) == {"old"}


def test_what_a_neighbour_left_is_neither_taken_nor_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash left the only copy of ``a.int8[1]`` under its hidden name; ``a`` begins alike."""
    monkeypatch.setattr(atomic, "SETTLED_S", -1.0)
    only_copy = tmp_path / f".a.int8[1].12345678{atomic.REPLACED}"
    only_copy.mkdir()
    fill(only_copy, "int8")
    assert whole_folder(tmp_path / "a") == tmp_path / "a"
    with replace_folder(tmp_path / "a") as new:
        fill(new, "new")
    assert contents(whole_folder(tmp_path / "a.int8[1]")) == {"int8"}


def test_leftovers_of_dead_writers_are_removed_and_those_of_live_ones_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "SETTLED_S", -1.0)
    dead = tmp_path / f".a.00000000{atomic.UNFINISHED}"
    dead.mkdir()
    fill(dead, "half")
    with replace_folder(tmp_path / "a") as live:
        fill(live, "first")
        with replace_folder(tmp_path / "a") as second:
            fill(second, "second")
        assert not dead.exists()
        assert live.exists()
        for path in (tmp_path / "a").iterdir():
            path.unlink()
    assert contents(tmp_path / "a") == {"first"}


def test_a_young_leftover_is_left_alone(tmp_path: Path) -> None:
    young = tmp_path / f".a.00000000{atomic.UNFINISHED}"
    young.mkdir()
    with replace_folder(tmp_path / "a") as new:
        fill(new, "new")
    assert young.exists()


WRITER = """
import sys
from pah_opt.storage.atomic import replace_folder
target, text, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
for _ in range(times):
    with replace_folder(target, overwrite=True) as new:
        for name in range(6):
            (new / f"{name}.txt").write_text(text * 100)
        print(flush=True)
"""


def start_writer(target: Path, text: str, times: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITER, target, text, str(times)], stdout=subprocess.PIPE)


def seen_at_this_moment(target: Path) -> set[str]:
    """Read the folder that has the name now, whatever its name is a moment later."""
    descriptor = os.open(target, os.O_RDONLY)
    try:
        return {path.read_text() for path in Path(f"/proc/self/fd/{descriptor}").iterdir()}
    except FileNotFoundError:  # replaced, and being removed while we looked
        return set()
    finally:
        os.close(descriptor)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks at folders through /proc")
def test_two_writers_at_once_leave_the_whole_of_one(tmp_path: Path) -> None:
    target = tmp_path / "a"
    start_writer(target, "0", 1).communicate()
    writers = [start_writer(target, text, 40) for text in ("1", "2")]
    seen = []
    while any(writer.poll() is None for writer in writers):
        seen.append(seen_at_this_moment(target))
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    assert max(len(found) for found in seen) == 1
    assert len(contents(target)) == 1
    assert names(tmp_path) == {"a"}


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_kill_at_any_moment_leaves_the_old_folder_or_the_new(tmp_path: Path) -> None:
    target = tmp_path / "a"
    start_writer(target, "0", 1).communicate()
    for attempt in range(1, 13):
        writer = start_writer(target, str(attempt), 10_000)
        assert writer.stdout is not None
        for _ in range(attempt):
            writer.stdout.readline()
        time.sleep(0.0007 * attempt)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        assert len(contents(whole_folder(target))) == 1
        assert len(names(whole_folder(target))) == 6
