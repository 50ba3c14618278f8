r"""What a layer should have added and did not: gathered batch by batch, then made up for by ridge regression.

A linear layer gives :math:`y = W x + b`, of which a model makes :math:`s \odot y`; the factors :math:`s` (LayerScale, 1
where there is none) are found from the data, in float32: half precision rounds most of a small addition to the residual
stream away. What is missing after it, :math:`m`, is predicted from the layer's inputs:

.. math::
    \Delta = \operatorname*{arg\,min}_{\Delta}\; E\,|\Delta (x - \bar x) - (m - \bar m)|^2
    + \lambda\, \overline{\operatorname{var} x}\, |\Delta|^2, \qquad
    W' = W + \Delta / s, \qquad b' = b + (\bar m - \Delta \bar x) / s .

A layer without bias cannot take up a mean: there both means are left out of the sums. Only the entries that are free
take part, so that zeros stay zeros.

References:
    He et al., Channel pruning for accelerating very deep neural networks (arXiv 1707.06168): outputs are fitted to
    those of the original network, from the inputs that the changed one gives;
    Hestenes & Stiefel, Methods of conjugate gradients for solving linear systems (1952).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pah_opt.models.covariance import Covariance, damped

ITERATIONS = 200
"""Conjugate gradient steps at most; each costs one product of the weights with the covariance."""
TOLERANCE = 1e-5
"""Steps end when every row's residual is below this share of what it was at the start."""
SMALLEST_FACTOR = 1e-8
"""An output whose factor is closer to zero is not seen by the rest of the model; it stays as it is."""
EXPLAINED = 0.5
"""Share of what is added that the layer's output times its factor must explain; else the output stays as it is."""


class Shortfall:
    """Moments of a layer's inputs, and of what is missing after it.

    Args:
        layer: in float32 or wider, with values; read, not changed, until :meth:`make_up`.
    """

    def __init__(self, layer: nn.Linear) -> None:
        self.layer = layer
        self._joint = Covariance(layer.in_features + layer.out_features, layer.weight.device)
        self._products = torch.zeros(3, layer.out_features, dtype=self._joint.mean.dtype, device=layer.weight.device)

    def update(self, inputs: Tensor, added: Tensor, missing: Tensor, weights: Tensor | None = None) -> None:
        """Look at a batch.

        Args:
            inputs: of the layer, ``(batch, tokens, in_features)``.
            added: what the model adds to the residual stream because of the layer, ``(batch, tokens, out_features)``.
            missing: what it should add besides, of the same shape.
            weights: how much each token counts, ``(tokens,)``.
        """
        returned = self.layer(inputs.to(self.layer.weight.dtype)).flatten(0, -2).to(self._products.dtype)
        seen = added.flatten(0, -2).to(returned.dtype)
        self._products += torch.stack([(seen * returned).sum(0), returned.square().sum(0), seen.square().sum(0)])
        self._joint.update(torch.cat([inputs.float(), missing.float()], dim=-1), weights)

    @property
    def is_finite(self) -> bool:
        """Whether every sum is a finite number."""
        return self._joint.is_finite

    @torch.no_grad()
    def make_up(self, ridge: float, *, linear: bool = True, free: Tensor | None = None) -> None:
        """Let the layer add what is missing, as far as its inputs tell.

        Args:
            ridge: share of the inputs' mean variance that holds the weights where they are.
            linear: change the weights; otherwise only the bias, by the mean of what is missing.
            free: which weights may change, ``(out_features, in_features)``; all by default.
        """
        width = self.layer.in_features
        mean, undo = self._joint.mean, self._inverse_factors()
        bias: Tensor | None = self.layer.bias
        missing = mean[width:]
        if linear:
            joint = self._joint.second_moment if bias is None else self._joint.matrix
            change = regression(joint[:width, :width], joint[width:, :width], ridge, free)
            missing = missing - change @ mean[:width]
            self.layer.weight += (change * undo[:, None]).to(self.layer.weight.dtype)
        if bias is not None:
            bias += (missing * undo).to(bias.dtype)

    def _inverse_factors(self) -> Tensor:
        """Return 1 / s, or 0 for outputs that what was added does not come from."""
        together, own, whole = self._products
        factor = together / own
        explained = factor * together / whole
        return torch.where((factor.abs() > SMALLEST_FACTOR) & (explained > EXPLAINED), 1.0 / factor, 0.0)


def regression(covariance: Tensor, cross: Tensor, ridge: float, free: Tensor | None = None) -> Tensor:
    """Return the coefficients of a ridge regression, ``(out, width)``.

    Args:
        covariance: of what is given, ``(width, width)``.
        cross: of what is looked for with what is given, ``(out, width)``.
        ridge: share of the mean variance that is added to every variance.
        free: which coefficients may differ from zero, ``(out, width)``; all by default.
    """
    normal = damped(covariance, ridge)
    if free is None or bool(free.all()):
        return torch.cholesky_solve(cross.T, torch.linalg.cholesky(normal)).T
    return _conjugate_gradients(normal, cross, free.to(cross.dtype))


def _conjugate_gradients(normal: Tensor, cross: Tensor, free: Tensor) -> Tensor:
    """Solve every row's own system, the rows and columns of its free coefficients, all rows at once."""
    inverse = free / normal.diagonal()
    solution = torch.zeros_like(cross)
    residual = cross * free
    step = residual * inverse
    product = (residual * step).sum(dim=1, keepdim=True)
    enough = TOLERANCE**2 * product
    tiny = torch.finfo(cross.dtype).tiny
    for _ in range(ITERATIONS):
        if bool((product <= enough).all()):
            break
        moved = (step @ normal) * free
        length = product / (step * moved).sum(dim=1, keepdim=True).clamp_min(tiny)
        solution += length * step
        residual -= length * moved
        ahead = residual * inverse
        following = (residual * ahead).sum(dim=1, keepdim=True)
        step = ahead + following / product.clamp_min(tiny) * step
        product = following
    return solution
