"""Artifacts go to the hub and come back, without any network here."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from pah_opt.artifact import load, push_to_hub
from pah_opt.artifact.files import CARD, COMPRESSED_WEIGHTS, KNOWN, WEIGHTS
from pah_opt.artifact.hub import PATTERNS, is_hub_name
from pah_opt.errors import ArtifactError

huggingface_hub = pytest.importorskip("huggingface_hub")


def in_the_cache(saved: Path, cache: Path) -> Path:
    """Lay an artifact out as huggingface_hub's cache does: links to blobs that are named by their hash."""
    root = cache / "models--user--model"
    snapshot = root / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    (root / "blobs").mkdir()
    for path in saved.iterdir():
        blob = root / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
        blob.write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(Path("../../blobs") / blob.name)
    return snapshot


@pytest.fixture
def hub(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Calls of snapshot_download; it finds ``user/model`` in a cache."""
    calls: ClassVar[list[tuple[str, dict[str, Any]]]] = []
    snapshot = in_the_cache(saved, tmp_path)

    def snapshot_download(name: str, **options: Any) -> str:
        calls.append((name, options))
        if name != "user/model":
            raise huggingface_hub.errors.LocalEntryNotFoundError("there is no such model")
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return calls


def test_a_hub_name_is_downloaded_and_loaded(hub: list[tuple[str, dict[str, Any]]]) -> None:
    assert load("user/model", verify=True, revision="v1").recipe.name == "tiny"
    assert hub == [("user/model", {"revision": "v1", "allow_patterns": PATTERNS})]


def test_only_files_of_an_artifact_are_downloaded() -> None:
    assert set(PATTERNS) > KNOWN
    assert not any("*" in pattern or pattern.endswith((".bin", ".py", ".pt")) for pattern in PATTERNS)


def test_a_local_folder_goes_before_the_hub(
    hub: list[tuple[str, dict[str, Any]]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.parent / "user").mkdir()
    folder.rename(folder.parent / "user" / "model")
    monkeypatch.chdir(folder.parent)
    load("user/model")
    assert hub == []


def test_a_name_that_is_nowhere_says_both_places(hub: list[tuple[str, dict[str, Any]]]) -> None:
    with pytest.raises(ArtifactError, match=r"'user/other' is neither a folder here nor.*there is no such model"):
        load("user/other")


def test_links_of_the_cache_may_lead_to_its_own_blobs_only(saved: Path, tmp_path: Path) -> None:
    snapshot = in_the_cache(saved, tmp_path)
    load(snapshot)
    outside = tmp_path / "outside"
    outside.write_bytes((saved / WEIGHTS).read_bytes())
    (snapshot / WEIGHTS).unlink()
    (snapshot / WEIGHTS).symlink_to(outside)
    with pytest.raises(ArtifactError, match="symbolic link"):
        load(snapshot)


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("google/vit-base-patch16-224", True), ("a/b/c", False), ("../b", False), ("a", False), ("a/ b", False)],
)
def test_hub_names_are_told_from_paths(name: str, is_one: bool) -> None:
    assert is_hub_name(name) is is_one


class FakeApi:
    """Remembers what would be pushed."""

    calls: ClassVar[list[tuple[str, dict[str, Any]]]] = []
    fails = False

    def create_repo(self, name: str, **options: Any) -> None:
        self.calls.append(("create", {"name": name, **options}))

    def upload_folder(self, **options: Any) -> str:
        if self.fails:
            raise OSError("no network")
        self.calls.append(("upload", options))
        return "https://hub/user/model/commit/1"

    def model_info(self, name: str) -> Any:
        card = huggingface_hub.ModelCardData(license="apache-2.0")
        return type("Info", (), {"card_data": card})


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> type[FakeApi]:
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    monkeypatch.setattr(FakeApi, "calls", [])
    monkeypatch.setattr(FakeApi, "fails", False)
    return FakeApi


def front_matter(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((folder / CARD).read_text().split("---")[1])
    return data


def test_an_artifact_is_pushed_with_its_card_and_the_licence_of_its_base(folder: Path, api: type[FakeApi]) -> None:
    assert push_to_hub(folder, "user/model") == "https://hub/user/model/commit/1"
    (_, made), (_, pushed) = api.calls
    assert made == {"name": "user/model", "private": True, "exist_ok": True}
    assert pushed["repo_id"] == "user/model"
    assert Path(pushed["folder_path"]) == folder
    assert CARD in pushed["allow_patterns"]
    assert pushed["delete_patterns"] == [COMPRESSED_WEIGHTS]
    assert front_matter(folder)["license"] == "apache-2.0"
    load(folder, verify=True)


def test_a_given_licence_wins(folder: Path, api: type[FakeApi]) -> None:
    push_to_hub(folder, "user/model", license_id="mit")
    assert front_matter(folder)["license"] == "mit"


def test_a_damaged_artifact_is_not_pushed(folder: Path, api: type[FakeApi]) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match="damaged"):
        push_to_hub(folder, "user/model")
    assert api.calls == []


def test_a_refusal_of_the_hub_is_an_artifact_error(
    folder: Path, api: type[FakeApi], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "fails", True)
    with pytest.raises(ArtifactError, match="could not be pushed to 'user/model': no network"):
        push_to_hub(folder, "user/model")


def test_an_edited_card_is_pushed_as_it_is(folder: Path, api: type[FakeApi]) -> None:
    (folder / CARD).write_text("---\nlicense: mit\n---\nMine.\n", encoding="utf-8")
    push_to_hub(folder, "user/model")
    assert (folder / CARD).read_text(encoding="utf-8").endswith("Mine.\n")
