"""Narrowing a head keeps its scores and its output as well as so few dimensions can."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pah_opt.strategies.structured.lowrank import apply_rows, readout, roots, score_bases, value_basis


def samples(count: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64)
    return torch.randn(count, width, generator=generator, dtype=torch.float64) @ mixing + 1.0


def centred(data: Tensor) -> Tensor:
    return data - data.mean(0)


def test_roots_multiply_back() -> None:
    moment = torch.cov(samples(50, 5, 0).T)
    root, inverse = roots(moment)
    torch.testing.assert_close(root @ root, moment)
    torch.testing.assert_close(root @ inverse, torch.eye(5, dtype=moment.dtype), atol=1e-8, rtol=0)


def test_roots_ignore_directions_without_variance() -> None:
    root, inverse = roots(torch.diag(torch.tensor([4.0, 0.0], dtype=torch.float64)))
    torch.testing.assert_close(root, torch.diag(torch.tensor([2.0, 0.0], dtype=torch.float64)))
    torch.testing.assert_close(inverse, torch.diag(torch.tensor([0.5, 0.0], dtype=torch.float64)))


def score_error(rank: int, query: Tensor, key: Tensor) -> float:
    second = query.T @ query / len(query)
    bases = score_bases(second, torch.cov(key.T, correction=0), rank)
    dense = query @ centred(key).T
    narrow = (query @ bases[0].T) @ (centred(key) @ bases[1].T).T
    return float((dense - narrow).square().mean())


def test_all_dimensions_keep_the_scores() -> None:
    assert score_error(6, samples(80, 6, 1), samples(80, 6, 2)) < 1e-16


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_fewer_dimensions_lose_exactly_the_smallest_singular_values(rank: int) -> None:
    """Eckart-Young: no other linear maps to so few dimensions keep the scores better."""
    query, key = samples(80, 6, 1), samples(80, 6, 2)
    product = roots(query.T @ query / 80)[0] @ roots(torch.cov(key.T, correction=0))[0]
    lost = torch.linalg.svdvals(product)[rank:].square().sum()
    assert score_error(rank, query, key) == pytest.approx(float(lost), rel=1e-6)


def test_the_softmax_does_not_see_what_is_constant_in_the_key() -> None:
    query, key = samples(40, 6, 3), samples(40, 6, 4)
    second = query.T @ query / len(query)
    bases = score_bases(second, torch.cov(key.T, correction=0), 6)
    shifted = (query @ bases[0].T) @ (key @ bases[1].T).T
    torch.testing.assert_close(shifted.softmax(-1), (query @ key.T).softmax(-1))


@pytest.mark.parametrize("rank", [2, 4])
def test_fewer_value_dimensions_lose_the_smallest_singular_values_of_what_is_read(rank: int) -> None:
    joined = samples(200, 6, 5)
    output = samples(9, 6, 6)
    covariance = torch.cov(joined.T, correction=0)
    basis = value_basis(output, covariance, rank)
    narrow = readout(output, covariance, basis, ridge=0.0)
    error = centred(joined) @ output.T - centred(joined) @ basis.T @ narrow.T
    lost = torch.linalg.svdvals(output @ roots(covariance)[0])[rank:].square().sum()
    assert float(error.square().sum(1).mean()) == pytest.approx(float(lost), rel=1e-6)


def test_mapped_rows_come_first_and_the_rest_stays() -> None:
    weight, bias = torch.arange(12.0).reshape(4, 3), torch.arange(4.0)
    mapping = torch.tensor([[0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    before = weight.clone()
    apply_rows(mapping, weight, bias)
    assert torch.equal(weight, torch.stack([before[3], before[0], before[2], before[3]]))
    assert bias.tolist() == [3.0, 0.0, 2.0, 3.0]
