"""Term-weighted value: how much of what was asked for is found, less what is found in vain (NIST STD 2006)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

BETA = 12.49
"""Weight of a false alarm in QUESST 2014, of costs 1 and 100 and a prior p of 0.0008: (1 / 100) · (1 − p) / p."""

NOTHING = 1e9
"""A threshold that no score reaches."""


def gains(found: Tensor, beta: float = BETA) -> Tensor:
    """(Q, U) what accepting a trial adds to 1 − P(miss) − β · P(false alarm), the value of its term.

    Args:
        found: (Q, U) bool: whether term q is in utterance u; each is in one, and not in all.
        beta: of a false alarm.
    """
    hits = found.sum(1, keepdim=True).double()
    return torch.where(found, 1 / hits, -beta / (found.shape[1] - hits))


def term_values(scores: Tensor, found: Tensor, threshold: float, beta: float = BETA) -> Tensor:
    """(Q,) the value of each term where scores of `threshold` or more are accepted; their mean is the ATWV."""
    return (gains(found, beta) * (scores >= threshold)).sum(1)


def best_threshold(scores: Tensor, found: Tensor, beta: float = BETA) -> tuple[float, float]:
    """The greatest mean value over terms that any threshold gives (MTWV), and that threshold; 0 where none helps."""
    ordered, order = scores.flatten().sort(descending=True, stable=True)
    values = gains(found, beta).flatten()[order].cumsum(0) / len(found)
    last = torch.cat([ordered[:-1] != ordered[1:], torch.ones(1, dtype=torch.bool, device=ordered.device)])
    best, where = values.masked_fill(~last, -math.inf).max(0)  # equal scores are accepted together
    return (float(best), float(ordered[where])) if best > 0 else (0.0, NOTHING)
