"""A layer makes up for what is missing after it: the least-squares solution, on the weights that may change."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pah_opt.models.shortfall import Shortfall, regression

WIDTH, OUT = 12, 5


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def correlated(count: int = 40, tokens: int = 9) -> Tensor:
    return numbers(count, tokens, WIDTH) @ numbers(WIDTH, WIDTH, seed=1) + 0.7


def layer(bias: bool = True) -> nn.Linear:
    made = nn.Linear(WIDTH, OUT, bias=bias)
    with torch.no_grad():
        made.weight.copy_(numbers(OUT, WIDTH, seed=2))
    return made


def made_up(missing: Tensor, inputs: Tensor, own: nn.Linear, factor: Tensor | float = 1.0, **how: object) -> nn.Linear:
    shortfall = Shortfall(own)
    for part, lost in zip(inputs.split(16), missing.split(16), strict=True):
        with torch.no_grad():
            shortfall.update(part, factor * own(part), lost)
    shortfall.make_up(1e-9, **how)  # type: ignore[arg-type]
    return own


def test_what_the_inputs_tell_is_made_up_for_whatever_factor_follows_the_layer() -> None:
    inputs, lost = correlated(), nn.Linear(WIDTH, OUT)
    factor = torch.tensor([1.0, 0.1, -2.0, 1e-3, 30.0])
    own = layer()
    before = own(inputs).detach()
    missing = lost(inputs).detach()
    after = factor * made_up(missing, inputs, own, factor)(inputs)
    assert torch.allclose(after, factor * before + missing, atol=1e-3)


def test_only_the_mean_is_made_up_for_without_the_linear_part() -> None:
    inputs, own = correlated(), layer()
    weight, before = own.weight.detach().clone(), own(inputs).detach()
    missing = numbers(*before.shape, seed=3) + 2.0
    made_up(missing, inputs, own, linear=False)
    assert torch.equal(own.weight, weight)
    assert torch.allclose((own(inputs) - before).mean(dim=(0, 1)), missing.mean(dim=(0, 1)), atol=1e-4)


def test_weights_that_are_held_stay_and_the_others_are_the_best_that_are_left() -> None:
    inputs, own = correlated(), layer()
    free = torch.rand(OUT, WIDTH, generator=torch.Generator().manual_seed(4)) < 0.5
    with torch.no_grad():
        own.weight[~free] = 0.0
    missing = numbers(40, 9, OUT, seed=5) + inputs[..., :OUT]
    before = own.weight.detach().clone()
    made_up(missing, inputs, own, free=free)
    rows = (inputs - inputs.mean(dim=(0, 1))).flatten(0, 1).double()
    wanted = (missing - missing.mean(dim=(0, 1))).flatten(0, 1).double()
    for row in range(OUT):
        best = torch.linalg.lstsq(rows[:, free[row]], wanted[:, row]).solution
        assert torch.allclose((own.weight - before)[row, free[row]].double(), best, atol=1e-4)
    assert bool((own.weight[~free] == 0).all())


@pytest.mark.parametrize("free", [None, torch.ones(OUT, WIDTH, dtype=torch.bool)])
def test_a_ridge_holds_coefficients_back(free: Tensor | None) -> None:
    covariance, cross = torch.eye(WIDTH, dtype=torch.float64), numbers(OUT, WIDTH).double()
    assert torch.allclose(regression(covariance, cross, 1.0, free), cross / 2)


def test_inputs_that_never_vary_change_nothing() -> None:
    inputs, own = torch.ones(20, 3, WIDTH), layer()
    before = own.weight.detach().clone()
    made_up(numbers(20, 3, OUT), inputs, own)
    assert torch.allclose(own.weight, before, atol=1e-6)


def test_the_weights_of_a_layer_without_bias_make_up_for_the_mean_too() -> None:
    inputs, own = correlated() + 2.0, layer(bias=False)
    missing = inputs @ numbers(WIDTH, OUT, seed=6)
    before = own(inputs).detach()
    assert torch.allclose(made_up(missing, inputs, own)(inputs), before + missing, atol=1e-2)


def test_an_output_that_what_was_added_does_not_come_from_stays_as_it_is() -> None:
    inputs, own = correlated(), layer()
    weight, bias = own.weight.detach().clone(), own.bias.detach().clone()
    shortfall = Shortfall(own)
    with torch.no_grad():
        added = own(inputs)
    added[..., 0] = 1e-3 * numbers(*added.shape[:-1], seed=7)  # rounded away, all but noise
    shortfall.update(inputs, added, numbers(*added.shape, seed=8) + inputs[..., :OUT])
    shortfall.make_up(1e-6)
    changed = (own.weight != weight).any(dim=1)
    assert changed.tolist() == [False, True, True, True, True]
    assert own.bias[0] == bias[0]


def test_a_layer_without_bias_is_changed_too() -> None:
    inputs, own = correlated() - correlated().mean(dim=(0, 1)), layer(bias=False)
    missing = inputs[..., :OUT]
    before = own(inputs).detach()
    assert torch.allclose(made_up(missing, inputs, own)(inputs), before + missing, atol=1e-3)
