"""The mathematics of token merging on plain tensors; nothing here knows a model.

References:
    Bolya et al., Token Merging: Your ViT But Faster, https://arxiv.org/abs/2210.09461, section 3.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Matching(NamedTuple):
    """Which tokens merge into which; positions count from the first token after the protected ones.

    Tokens at even positions may merge, each into one at an odd position.

    Args:
        kept: even tokens that stay, as indices into the even ones, ``(batch, even - r)``.
        merged: even tokens that merge, as indices into the even ones, ``(batch, r)``.
        target: the odd token that each of ``merged`` goes into, ``(batch, r)``.
        protected: tokens at the front that take no part.
    """

    kept: Tensor
    merged: Tensor
    target: Tensor
    protected: int


def bipartite_matching(metric: Tensor, r: int, protected: int = 0) -> Matching:
    """Match the ``r`` most similar pairs of tokens, without iterating.

    Tokens alternate between two sets; each of the first finds its most similar one in the second, and the ``r``
    strongest of these edges are kept (section 3, "bipartite soft matching").

    Args:
        metric: what tokens are compared by (cosine similarity), ``(batch, tokens, channels)``.
        r: how many tokens go; at most half of those not protected.
        protected: tokens at the front (class, distillation, registers) that never merge.

    Raises:
        ValueError: ``r`` is more than can be matched.
    """
    free = metric.shape[1] - protected
    if not 0 <= r <= free // 2:
        raise ValueError(f"{r} of {free} free tokens cannot merge: at most {free // 2} can")
    unit = metric[:, protected:]
    unit = unit / unit.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(unit.dtype).tiny)
    scores = unit[:, ::2] @ unit[:, 1::2].transpose(-1, -2)
    strength, partner = scores.max(dim=-1)
    order = strength.topk(strength.shape[1], dim=-1).indices  # sorted, and known to every exporter
    merged, kept = order[:, :r], order[:, r:].sort(dim=-1).values
    return Matching(kept, merged, partner.gather(1, merged), protected)


def merge(tokens: Tensor, sizes: Tensor, matching: Matching) -> tuple[Tensor, Tensor]:
    """Replace matched tokens by their mean, weighted by how many tokens each stands for.

    The sum of sizes, and the sum of tokens times sizes, stay the same.

    Args:
        tokens: ``(batch, tokens, channels)``.
        sizes: how many original tokens each stands for, ``(batch, tokens, 1)``.
        matching: from :func:`bipartite_matching` on as many tokens.

    Returns:
        Tokens ``(batch, tokens - r, channels)`` and their sizes: the protected ones, the even ones that stay, the odd
        ones.
    """
    mass = _merged_sum(torch.cat((tokens * sizes, sizes), dim=-1), matching)
    weight = mass[..., -1:]
    return mass[..., :-1] / weight, weight


def _merged_sum(values: Tensor, matching: Matching) -> Tensor:
    front, rest = values[:, : matching.protected], values[:, matching.protected :]
    even, odd = rest[:, ::2], rest[:, 1::2]
    added = odd.scatter_add(1, _wide(matching.target, values), even.gather(1, _wide(matching.merged, values)))
    return torch.cat((front, even.gather(1, _wide(matching.kept, values)), added), dim=1)


def _wide(index: Tensor, like: Tensor) -> Tensor:
    return index.unsqueeze(-1).expand(-1, -1, like.shape[-1])


def unmerge(tokens: Tensor, sizes: Tensor, total: int) -> Tensor:
    """Repeat every token as often as its size, so that means over tokens are those before merging.

    Args:
        tokens: ``(batch, tokens, channels)``.
        sizes: whole numbers that sum to ``total`` in every row, ``(batch, tokens, 1)``.
        total: original number of tokens.

    Returns:
        ``(batch, total, channels)``; the protected tokens stay in front, the others are in no spatial order.
    """
    ends = sizes.squeeze(-1).float().cumsum(dim=1)
    places = torch.arange(total, device=tokens.device, dtype=ends.dtype).add(0.5)
    index = (places[None, :, None] > ends[:, None, :]).sum(dim=-1).clamp_max(tokens.shape[1] - 1)
    return tokens.gather(1, _wide(index, tokens))


def attention_bias(sizes: Tensor) -> Tensor:
    """Return what is added to scores so that a merged token counts as often as what it stands for.

    Args:
        sizes: ``(batch, tokens, 1)``.

    Returns:
        ``log(size)`` of each key, ``(batch, 1, 1, tokens)`` (section 3, "proportional attention").
    """
    return sizes.log().transpose(1, 2).unsqueeze(1)
