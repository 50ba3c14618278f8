"""The header of a safetensors file is read as strictly as the safetensors library does, or more."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize
from safetensors.torch import save

from pah_opt.errors import ArtifactError
from pah_opt.storage.dtypes import DTYPES
from pah_opt.storage.header import parse_header


def file_of(described: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = described if isinstance(described, bytes) else json.dumps(described).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(start: int = 0, end: int = 4, dtype: str = "F32", shape: Any = (1,)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def test_files_of_the_safetensors_library_are_understood() -> None:
    tensors = {"a": torch.randn(3, 4), "b": torch.zeros(0, 7, dtype=torch.int64), "c": torch.tensor(2.0).bfloat16()}
    data = save(tensors, metadata={"who": "me"})
    header = parse_header(memoryview(data), "x")
    assert header.metadata == {"who": "me"}
    assert {e.name: (DTYPES[e.dtype], e.shape) for e in header.starts} == {
        name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()
    }
    for e, start in header.starts.items():
        found = torch.frombuffer(bytearray(data[start : start + e.nbytes]) or bytearray(1), dtype=torch.uint8)
        assert torch.equal(found[: e.nbytes], tensors[e.name].reshape(-1).view(torch.uint8))


MALFORMED = {
    "empty": b"",
    "seven bytes": b"1234567",
    "length beyond the file": file_of({}, length=3),
    "huge length": file_of({}, length=2**63),
    "not JSON": file_of(b"hello"),
    "another encoding": file_of("{}".encode("utf-16")),
    "a list": file_of([]),
    "a pickle": pickle.dumps(Path("/")),
    "deeply nested": file_of(b"[" * 100_000),
    "a name twice": file_of(b'{"a":%s,"a":%s}' % ((json.dumps(entry()).encode(),) * 2), bytes(4)),
    "unknown type": file_of({"a": entry(dtype="F31")}, bytes(4)),
    "negative size": file_of({"a": entry(shape=(-1,))}, bytes(4)),
    "size that is true": file_of({"a": entry(shape=(True,))}, bytes(4)),
    "fractional size": file_of({"a": entry(shape=(1.0,))}, bytes(4)),
    "a missing field": file_of({"a": {"dtype": "F32", "shape": [1]}}, bytes(4)),
    "an extra field": file_of({"a": {**entry(), "more": 1}}, bytes(4)),
    "an offset too many": file_of({"a": {**entry(), "data_offsets": [0, 4, 8]}}, bytes(4)),
    "offsets outside": file_of({"a": entry(4096, 4100)}, bytes(4)),
    "offsets backwards": file_of({"a": entry(4, 0)}, bytes(4)),
    "offsets of another size": file_of({"a": entry(0, 3)}, bytes(3)),
    "a gap": file_of({"a": entry(), "b": entry(8, 12)}, bytes(12)),
    "an overlap": file_of({"a": entry(0, 8, shape=(2,)), "b": entry(4, 8)}, bytes(8)),
    "bytes too many": file_of({"a": entry()}, bytes(5)),
    "bytes too few": file_of({"a": entry()}, bytes(3)),
    "metadata that is not text": file_of({"__metadata__": {"a": 1}, "b": entry()}, bytes(4)),
    "metadata that is a list": file_of({"__metadata__": []}),
    "enormous dimension": file_of({"a": entry(0, 0, shape=(0, 2**80))}),
    "too many dimensions": file_of({"a": entry(shape=(1,) * 1000)}, bytes(4)),
    "a number of a million digits": file_of(
        b'{"a":{"dtype":"F32","shape":[' + b"9" * 10**6 + b'],"data_offsets":[0,4]}}'
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_file_is_refused_by_name(name: str) -> None:
    with pytest.raises(ArtifactError, match=r"bad\.safetensors"):
        parse_header(memoryview(MALFORMED[name]), "bad.safetensors")


def accepted_by_the_library(data: bytes) -> dict[str, tuple[str, tuple[int, ...]]] | None:
    try:
        return {name: (spec["dtype"], tuple(spec["shape"])) for name, spec in deserialize(data)}
    except (SafetensorError, ValueError, OverflowError):
        return None


GOOD = save({"a": torch.randn(3, 4), "b": torch.arange(5), "c": torch.ones(2, dtype=torch.int8)}, metadata={"k": "v"})


@settings(max_examples=500)
@given(place=st.integers(0, 400), value=st.integers(0, 255), cut=st.integers(0, 40))
def test_whatever_is_accepted_the_library_accepts_too(place: int, value: int, cut: int) -> None:
    data = bytearray(GOOD)
    data[place % len(data)] = value
    mutated = bytes(data[: len(data) - cut] if cut < 8 else data)
    try:
        header = parse_header(memoryview(mutated), "x")
    except ArtifactError:
        return
    assert accepted_by_the_library(mutated) == {e.name: (e.dtype, e.shape) for e in header.starts}


def test_files_are_read_by_the_safetensors_library(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from pah_opt.storage.weights import Weights
    from pah_opt.storage.writer import write_weights

    sparse = torch.randn(64, 64) * (torch.rand(64, 64) < 0.2)
    tensors = {"dense": torch.randn(33, 7), "sparse": sparse, "odd": torch.tensor([True]), "half": torch.ones(3).half()}
    with (tmp_path / "w.safetensors").open("wb") as file:
        write_weights(file, Weights.of_tensors(tensors))
    found = load_file(tmp_path / "w.safetensors")
    assert torch.equal(found["dense"], tensors["dense"])
    assert torch.equal(found["sparse.values"], sparse[sparse != 0])
    assert set(found) == {"dense", "sparse.mask", "sparse.values", "odd", "half"}
