"""Whatever happens to the files: a named ArtifactError, nothing executed, nothing lost."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pah_opt.artifact import inspect, load
from pah_opt.artifact.files import DESCRIPTION, EXAMPLES, MANIFEST, PROCESSOR, REPORT, WEIGHTS
from pah_opt.artifact.manifest import Manifest
from pah_opt.errors import ArtifactError
from pah_opt.storage.digest import Digest
from pah_opt.testing import tiny_vit

from .conftest import change, seal, tiny_artifact

HEADER = 2500
"""Bytes of the weights that a mutation is made in: what says where tensors are."""
FILES = (MANIFEST, DESCRIPTION, WEIGHTS, EXAMPLES, PROCESSOR, REPORT)


class Witness:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.trace),)


def places(size: int, count: int) -> list[int]:
    """Return places all over a file: its beginning, its end, and evenly between."""
    return sorted({*range(min(16, size)), *range(max(0, size - 16), size), *range(0, size, max(1, size // count))})


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_anywhere_is_found(folder: Path, name: str) -> None:
    path = folder / name
    content = path.read_bytes()
    for place in range(len(content)) if name == MANIFEST else places(len(content), 300):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError):
            load(folder)
    path.write_bytes(content)
    load(folder, verify=True)


@pytest.mark.parametrize("name", FILES)
def test_truncation_at_any_length_is_found(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    for length in places(len(content), 100):
        (folder / name).write_bytes(content[:length])
        with pytest.raises(ArtifactError):
            load(folder)


@pytest.mark.parametrize("name", FILES)
def test_bytes_behind_the_end_are_found(folder: Path, name: str) -> None:
    with (folder / name).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ArtifactError):
        load(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=name):
        load(folder)
    with pytest.raises(ArtifactError, match=name):
        inspect(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "modeling_vit.py", "model-2.safetensors", ".hidden"])
def test_an_extra_file_is_named(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")
    with pytest.raises(ArtifactError, match=f"holds {name}"):
        load(folder)


def manifest_data(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
    return data


def write_manifest(folder: Path, data: dict[str, Any]) -> None:
    """Write a manifest whose own checksum fits."""
    import hashlib

    blank = json.dumps({**data, "sha256": "0" * 64}).encode()
    (folder / MANIFEST).write_bytes(blank.replace(b"0" * 64, hashlib.sha256(blank).hexdigest().encode()))


@pytest.mark.parametrize("name", FILES[1:])
def test_an_edited_checksum_is_found(folder: Path, name: str) -> None:
    data = manifest_data(folder)
    data["files"][name]["sha256"][0] = "1" * 64
    write_manifest(folder, data)
    with pytest.raises(ArtifactError, match=f"{name} is damaged at or after byte 0"):
        load(folder)


def test_a_checksum_too_many_or_too_few_is_found(folder: Path) -> None:
    for sums in ([], ["0" * 64] * 2):
        data = manifest_data(folder)
        data["files"][WEIGHTS]["sha256"] = data["files"][WEIGHTS]["sha256"][: len(sums)] + sums[1:]
        write_manifest(folder, data)
        with pytest.raises(ArtifactError):
            load(folder)


def test_a_newer_schema_says_to_upgrade(folder: Path) -> None:
    write_manifest(folder, {**manifest_data(folder), "schema_version": 2, "something": "new"})
    with pytest.raises(ArtifactError, match=r"schema version 2.*upgrade"):
        load(folder)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"null", b"{}", b"[" * 50_000, b'{"format":"something else","schema_version":1}', b"\xff\xfe"]
)
def test_a_manifest_of_something_else_is_refused(folder: Path, data: bytes) -> None:
    (folder / MANIFEST).write_bytes(data)
    with pytest.raises(ArtifactError, match="not the manifest of an artifact"):
        load(folder)


@pytest.mark.parametrize("name", ["../outside.json", "/etc/passwd", "..", "", "a/b", "sub\\file", "artifact.json\0"])
def test_names_that_lead_elsewhere_are_refused(folder: Path, name: str) -> None:
    (folder.parent / "outside.json").write_text("{}")
    data = manifest_data(folder)
    data["files"][name] = {"bytes": 2, "sha256": list(Digest.of(b"{}").sha256)}
    write_manifest(folder, data)
    with pytest.raises(ArtifactError, match="lists"):
        load(folder)


def test_a_negative_size_is_refused(folder: Path) -> None:
    data = manifest_data(folder)
    data["files"][WEIGHTS]["bytes"] = -1
    write_manifest(folder, data)
    with pytest.raises(ArtifactError, match="is damaged"):
        load(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_symbolic_link_is_refused(folder: Path, name: str) -> None:
    (folder / name).rename(folder.parent / name)
    (folder / name).symlink_to(folder.parent / name)
    with pytest.raises(ArtifactError, match="symbolic link"):
        load(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", [MANIFEST, WEIGHTS])
def test_a_pipe_is_refused_without_waiting_for_its_writer(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(ArtifactError, match="not an ordinary file"):
        load(folder)


def test_a_folder_in_place_of_a_file_is_refused(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).mkdir()
    with pytest.raises(ArtifactError, match="not an ordinary file"):
        load(folder)


@pytest.mark.parametrize("name", FILES[1:])
@pytest.mark.parametrize("sealed", [False, True])
def test_a_pickle_in_place_of_a_file_is_refused_and_never_run(folder: Path, name: str, sealed: bool) -> None:
    trace = folder.parent / "trace"
    (folder / name).write_bytes(pickle.dumps(Witness(trace)))
    if sealed:
        seal(folder)
    with pytest.raises(ArtifactError):
        load(folder)
    assert not trace.exists()


def test_a_torch_checkpoint_in_place_of_the_weights_is_refused_and_never_run(folder: Path) -> None:
    import torch

    trace = folder.parent / "trace"
    torch.save(Witness(trace), folder / WEIGHTS)
    seal(folder)
    with pytest.raises(ArtifactError, match="not a safetensors file"):
        load(folder)
    assert not trace.exists()


@pytest.mark.parametrize("source", ["nowhere", "user/nothing at all", "a\0b", ""])
def test_a_source_that_is_not_there_is_named(tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArtifactError):
        load(source)


def test_a_file_is_no_artifact(folder: Path) -> None:
    with pytest.raises(ArtifactError, match="is a file"):
        load(folder / WEIGHTS)


def edited(**changes: Any) -> Callable[[bytes], bytes]:
    """Change fields of JSON by dotted path, such as ``structure__arguments__config__hidden_size``."""

    def edit(data: bytes) -> bytes:
        content = json.loads(data)
        for path, value in changes.items():
            *parents, last = path.split("__")
            place = content
            for parent in parents:
                place = place[int(parent)] if isinstance(place, list) else place[parent]
            place[int(last) if isinstance(place, list) else last] = value
        return json.dumps(content).encode()

    return edit


CONFIG = "structure__arguments__config__"


@pytest.mark.parametrize(
    "changes",
    [
        {CONFIG + "hidden_size": 64}, {CONFIG + "num_hidden_layers": 3}, {CONFIG + "num_hidden_layers": 10**9},
        {CONFIG + "hidden_size": 10**12}, {CONFIG + "hidden_size": -1}, {CONFIG + "image_size": "large"},
        {CONFIG + "num_labels": 10**9}, {CONFIG + "hidden_act": "os.system"}, {CONFIG + "patch_size": 0},
        {"structure": {}}, {"structure__class": "os:system"}, {"structure__class": "transformers.models.vit:nothing"},
        {"structure__class": "transformers.models.bert.modeling_bert:BertModel"}, {"structure__format": 99},
        {"structure__blocks": []}, {"structure__shapes": {"vit": [1]}}, {"structure__types": {"x": "y"}},
        {"adapter": "hf-deit"}, {"adapter": "unknown"}, {"recipe": {}}, {"steps": 3}, {"tags": None}, {"more": 1},
        {"weights_origin": "stolen"},
    ],
)  # fmt: skip
def test_a_description_that_does_not_fit_is_refused_even_when_checksums_do(
    folder: Path, changes: dict[str, Any]
) -> None:
    change(folder, DESCRIPTION, edited(**changes))
    with pytest.raises(ArtifactError):
        load(folder)


@pytest.mark.parametrize("place", ["structure__arguments__attn_implementation", CONFIG + "_attn_implementation"])
def test_attention_kernels_from_the_hub_are_refused(folder: Path, place: str) -> None:
    """transformers downloads such kernels and runs them."""
    change(folder, DESCRIPTION, edited(**{place: "somebody/their-kernel"}))
    with pytest.raises(ArtifactError, match=r"somebody/their-kernel.*allowed are"):
        load(folder)


def test_weights_of_another_model_are_refused(folder: Path, tmp_path: Path) -> None:
    from pah_opt.testing import tiny_vit

    from .conftest import tiny_artifact

    other = tiny_artifact(model=tiny_vit(hidden=64, heads=2)).save(tmp_path / "other")
    shutil.copy(other / WEIGHTS, folder / WEIGHTS)
    seal(folder)
    with pytest.raises(ArtifactError, match="has shape"):
        load(folder)


@pytest.mark.parametrize("name", [PROCESSOR, REPORT])
@pytest.mark.parametrize("data", [b"[]", b"nothing", b"[" * 50_000, b"\xff"])
def test_json_that_is_none_is_named(folder: Path, name: str, data: bytes) -> None:
    change(folder, name, lambda _: data)
    with pytest.raises(ArtifactError, match=name):
        load(folder)


def test_examples_without_logits_are_refused(folder: Path) -> None:
    change(folder, EXAMPLES, lambda data: data.replace(b'"logits"', b'"digits"'))
    with pytest.raises(ArtifactError, match="holds no 'logits'"):
        load(folder)


def test_examples_that_would_fill_the_memory_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pah_opt.artifact.loading.MOST_EXAMPLE_BYTES", 100)
    with pytest.raises(ArtifactError, match=r"would take [\d,]+ bytes in memory, .* at most 100 are read"):
        load(folder)


def test_examples_that_do_not_fit_the_model_are_refused(folder: Path) -> None:
    import io

    import torch

    from pah_opt.storage.weights import Weights
    from pah_opt.storage.writer import write_weights

    file = io.BytesIO()
    write_weights(file, Weights.of_tensors({"pixel_values": torch.ones(1, 7), "logits": torch.ones(1, 10)}))
    change(folder, EXAMPLES, lambda _: file.getvalue())
    with pytest.raises(ArtifactError, match="cannot be run"):
        load(folder, verify=True)


def test_a_manifest_without_weights_is_refused(folder: Path) -> None:
    data = manifest_data(folder)
    del data["files"][WEIGHTS]
    write_manifest(folder, data)
    (folder / WEIGHTS).unlink()
    with pytest.raises(ArtifactError, match=WEIGHTS):
        load(folder)


def test_a_reader_whose_folder_is_replaced_meanwhile_begins_again(
    folder: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pah_opt.artifact import loading

    rebuild = loading.rebuild
    moved: list[Path] = []

    def replaced_meanwhile(*arguments: Any) -> Any:
        if not moved:
            moved.append(folder.rename(folder.with_name("old")))
            shutil.copytree(saved, folder)
            raise ArtifactError("half of the old, half of the new")
        return rebuild(*arguments)

    monkeypatch.setattr(loading, "rebuild", replaced_meanwhile)
    load(folder, verify=True)
    assert moved


def mutations(content: bytes, chance: random.Random) -> bytes:
    """Return bytes changed in one of the ways that files get changed."""
    data = bytearray(content)
    start = chance.randrange(len(data) + 1)
    end = min(len(data), start + chance.choice([1, 1, 2, 8, 64, 1000]))
    kind = chance.randrange(6)
    if kind == 0:
        data[start:end] = chance.randbytes(end - start)
    elif kind == 1:
        del data[start:end]
    elif kind == 2:
        data[start:start] = data[start:end]
    elif kind == 3:
        data[start:end] = bytes(end - start)
    elif kind == 4:
        for place in range(start, end):
            data[place] ^= 1 << chance.randrange(8)
    else:
        data = data[:start]
    return bytes(data)


def mutated_json(data: Any, chance: random.Random) -> Any:
    """Return JSON data with one value somewhere in it changed."""
    if isinstance(data, (dict, list)) and data and chance.random() < 0.9:
        key = chance.choice(list(data)) if isinstance(data, dict) else chance.randrange(len(data))
        if chance.random() < 0.1:
            del data[key]
        else:
            data[key] = mutated_json(data[key], chance)
        return data
    sizes = [None, True, -1, 0, 1, 7, 64, 10**9, 2**63, 1.5]
    strange = [*sizes, "", "x", "os.system", "../..", [], {}, [1, 2], {"a": 1}]
    return chance.choice(strange)


@pytest.fixture(scope="module")
def smallest() -> Iterator[Path]:
    """An artifact of one block, in memory where there is a file system for that: it is written and read so often."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as parent:
        model = tiny_vit(hidden=16, mlp=32, blocks=1, heads=2)
        yield tiny_artifact(model=model).save(Path(parent) / "saved")


def fuzz(saved: Path, seed: int, times: int) -> dict[str, int]:
    """Load ``times`` damaged artifacts; returns how often that was refused, and how often the damage was harmless."""
    folder = Path(shutil.copytree(saved, saved.with_name(f"damaged-{seed}")))
    chance = random.Random(seed)
    outcomes = {"refused": 0, "harmless": 0}
    originals = {name: (saved / name).read_bytes() for name in FILES}
    for _ in range(times):
        name = chance.choice(FILES)
        if name != MANIFEST and chance.random() < 0.7:  # with checksums that fit
            content = originals[name]
            if name == DESCRIPTION and chance.random() < 0.8:
                content = json.dumps(mutated_json(json.loads(content), chance)).encode()
            elif name == WEIGHTS:  # where its header is
                content = mutations(content[:HEADER], chance) + content[HEADER:]
            else:
                content = mutations(content, chance)
            (folder / name).write_bytes(content)
            seal_with(folder, originals, name, content)
        else:
            (folder / name).write_bytes(mutations(originals[name], chance))
        try:
            load(folder)
            outcomes["harmless"] += 1
        except ArtifactError:
            outcomes["refused"] += 1
        (folder / name).write_bytes(originals[name])
        (folder / MANIFEST).write_bytes(originals[MANIFEST])
    return outcomes


def seal_with(folder: Path, originals: dict[str, bytes], name: str, content: bytes) -> None:
    digests = {other: Digest.of(data) for other, data in originals.items() if other != MANIFEST}
    (folder / MANIFEST).write_bytes(Manifest.of({**digests, name: Digest.of(content)}).to_bytes())


def test_hundreds_of_mutations_give_no_other_exception(smallest: Path) -> None:
    outcomes = fuzz(smallest, 1, 200)
    assert outcomes["refused"] > 150


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_ten_thousand_mutations_give_no_other_exception(smallest: Path, seed: int) -> None:
    outcomes = fuzz(smallest, 100 + seed, 2600)
    assert outcomes["refused"] > 1900
    assert sum(outcomes.values()) * 4 >= 10_000
