"""Every encoding is lossless, and the smallest one is chosen."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pah_opt.errors import ArtifactError
from pah_opt.storage.dtypes import DTYPES, INTEGERS
from pah_opt.storage.encoding import Bitmask, Dense, Encoding, Entry, Nibbles, choose, encoded_bytes


def bits(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).view(INTEGERS[tensor.itemsize])


def there_and_back(tensor: Tensor, encoding: Encoding | None = None) -> Tensor:
    encoding = encoding or choose(tensor)
    parts = dict(encoding.encode("w", tensor))
    for entry in encoding.entries("w"):
        assert tuple(parts[entry.name].shape) == entry.shape
        assert parts[entry.name].dtype is DTYPES[entry.dtype]
    return encoding.decode("w", lambda entry: parts[entry.name].clone())


def sparse(shape: tuple[int, ...], zeros: float, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator) * 40
    values[torch.rand(shape, generator=generator) < zeros] = 0
    return values.to(dtype)


@pytest.mark.parametrize("name", sorted(DTYPES))
@pytest.mark.parametrize("zeros", [0.0, 0.5, 0.97, 1.0])
def test_every_type_comes_back_bit_for_bit(name: str, zeros: float) -> None:
    raw = torch.randint(0, 256, (2048, DTYPES[name].itemsize), dtype=torch.uint8)
    raw[torch.rand(2048) < zeros] = 0
    tensor = (raw[:, 0] % 2).bool() if name == "BOOL" else raw.view(-1).view(DTYPES[name])
    back = there_and_back(tensor.view(64, 32))
    assert back.dtype is tensor.dtype
    assert back.shape == (64, 32)
    found, wanted = bits(back), bits(tensor)
    if tensor.dtype.is_floating_point:
        # It comes back as zero, and random bits are one now and then.
        minus_zero = bits(torch.tensor([-0.0]).to(tensor.dtype))
        found, wanted = found.where(found != minus_zero, 0), wanted.where(wanted != minus_zero, 0)
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2])
def test_minus_zero_comes_back_as_zero_from_a_mask(dtype: torch.dtype) -> None:
    tensor = torch.tensor([[1.0, *[-0.0] * 31]] * 64)
    assert isinstance(choose(tensor.to(dtype)), Bitmask)
    assert torch.equal(bits(there_and_back(tensor.to(dtype))), bits(tensor.abs().to(dtype)))


@settings(max_examples=60)
@given(
    shape=st.lists(st.integers(0, 80), max_size=3).map(tuple),
    zeros=st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.999, 1.0]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.float8_e4m3fn]),
    seed=st.integers(0, 2**16),
)
def test_any_shape_and_sparsity_comes_back_equal(
    shape: tuple[int, ...], zeros: float, dtype: torch.dtype, seed: int
) -> None:
    tensor = sparse(shape, zeros, dtype, seed)
    back = there_and_back(tensor)
    assert back.shape == tensor.shape
    assert torch.equal(back.float(), tensor.float())


@settings(max_examples=60)
@given(
    shape=st.lists(st.integers(0, 80), max_size=3).map(tuple),
    zeros=st.floats(0, 1),
    dtype=st.sampled_from([torch.float32, torch.int8]),
)
def test_an_encoding_is_never_larger_than_dense(shape: tuple[int, ...], zeros: float, dtype: torch.dtype) -> None:
    tensor = sparse(shape, zeros, dtype)
    assert encoded_bytes(choose(tensor)) <= tensor.nbytes


def test_zeros_cost_a_bit_each() -> None:
    tensor = sparse((256, 256), 0.5)
    kept = int(tensor.count_nonzero())
    assert encoded_bytes(choose(tensor)) == 4 * kept + 256 * 256 // 8


def test_zeros_of_a_very_sparse_tensor_cost_less_than_a_bit() -> None:
    tensor = sparse((256, 256), 0.9, torch.int8)
    kept = int(tensor.count_nonzero())
    assert encoded_bytes(choose(tensor)) < kept + 0.75 * 256 * 256 / 8


def test_zeros_that_masking_by_multiplication_made_negative_count_as_zeros() -> None:
    weight = -torch.ones(64, 64) * torch.tensor([0.0, 1.0]).repeat(32)
    assert (weight == 0).sum() == 2048
    assert torch.signbit(weight).all()
    encoding = choose(weight)
    assert isinstance(encoding, Bitmask)
    assert encoding.values.shape == (2048,)
    assert torch.equal(there_and_back(weight), weight)


def test_subnormal_numbers_are_kept_where_the_processor_flushes_them() -> None:
    tensor = sparse((64, 64), 0.9)
    tensor[0, 0] = 1e-42
    torch.set_flush_denormal(True)
    try:
        back = there_and_back(tensor)
    finally:
        torch.set_flush_denormal(False)
    assert back[0, 0].view(torch.int32) == tensor[0, 0].view(torch.int32)


@pytest.mark.parametrize(("dtype", "low", "high"), [(torch.int8, -8, 8), (torch.uint8, 0, 16)])
@pytest.mark.parametrize("count", [4096, 4097])
def test_integers_of_four_bits_take_half_a_byte(dtype: torch.dtype, low: int, high: int, count: int) -> None:
    tensor = torch.randint(low, high, (count,), dtype=dtype)
    tensor[:2] = torch.tensor([low, high - 1])
    encoding = choose(tensor)
    assert isinstance(encoding, Nibbles)
    assert encoded_bytes(encoding) == math.ceil(count / 2)
    assert torch.equal(there_and_back(tensor), tensor)


def test_sparse_integers_of_four_bits_are_masked_and_packed() -> None:
    tensor = torch.randint(1, 8, (256, 256), dtype=torch.int8) * (torch.rand(256, 256) < 0.1)
    encoding = choose(tensor)
    assert isinstance(encoding, Bitmask)
    assert isinstance(encoding.values, Nibbles)
    assert torch.equal(there_and_back(tensor), tensor)


def test_a_wide_range_of_int8_stays_dense() -> None:
    assert isinstance(choose(torch.arange(-128, 128, dtype=torch.int8).repeat(64)), Dense)


def test_small_tensors_stay_dense_because_names_cost_more_than_is_saved() -> None:
    assert isinstance(choose(torch.zeros(128)), Dense)


def test_tensors_without_values_are_dense() -> None:
    assert choose(torch.zeros(512, 512, device="meta")) == Dense("F32", (512, 512))


def test_transposed_tensors_come_back_in_their_logical_order() -> None:
    tensor = sparse((96, 64), 0.8).T
    assert torch.equal(there_and_back(tensor), tensor)


def test_a_type_that_files_do_not_know_is_named() -> None:
    with pytest.raises(ArtifactError, match=r"torch\.complex128"):
        choose(torch.zeros(2000, dtype=torch.complex128))


def test_a_mask_that_does_not_fit_its_values_is_refused() -> None:
    tensor = sparse((64, 64), 0.5)
    encoding = choose(tensor)
    parts = dict(encoding.encode("w", tensor))
    parts["w.mask"] = torch.full_like(parts["w.mask"], 255)

    def read(entry: Entry) -> Tensor:
        return parts[entry.name]

    with pytest.raises(ArtifactError, match="does not fit"):
        encoding.decode("w", read)


def test_a_mask_too_short_for_its_tensor_cannot_be_described() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        Bitmask("F32", (64, 64), Dense("U8", (8,)), Dense("F32", (1,)))
