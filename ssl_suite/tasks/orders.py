"""Orders: which answer is meant for which truth, where both are a set: the voices of a recording."""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations

import torch
from torch import Tensor

from ssl_suite.core.errors import UserError

MOST = 6
"""Things that are told apart: all of their orders are tried, 720 of six."""


@lru_cache
def all_orders(n: int, device: torch.device) -> Tensor:
    """(n!, n) every order of `n` things.

    Raises:
        UserError: there are too many.
    """
    if n > MOST:
        raise UserError(
            f"At most {MOST} voices can be told apart, and data.target has {n}; number those of a recording: 0, 1, ..."
        )
    return torch.tensor(list(permutations(range(n))), device=device)


def cheapest(costs: Tensor) -> tuple[Tensor, Tensor]:
    """The order of truths that costs least (permutation invariant training, arXiv:1607.00325).

    Args:
        costs: (..., C, C) of answer i for truth j.

    Returns:
        (...) Σ costs[i, order[i]], and (..., C) that order.
    """
    orders = all_orders(costs.shape[-1], costs.device)
    totals = costs[..., torch.arange(costs.shape[-1], device=costs.device), orders].sum(-1)  # (..., C!)
    least, place = totals.min(-1)
    return least, orders[place]
