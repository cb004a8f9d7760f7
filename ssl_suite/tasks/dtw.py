"""Dynamic time warping of many pairs at once: whole against whole (ABX), and a query anywhere in an utterance."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_suite.core.errors import UserError

ELEMENTS = 1 << 23
"""Numbers that a chunk of pairs, or of utterances, takes at most: 32 MB."""
TINY = 1e-6
"""Added to probabilities before their logarithm is taken."""


@dataclass(frozen=True)
class Pieces:
    """Sequences of states of any lengths, one behind the other.

    Attributes:
        states: (F, D) of all pieces.
        starts: (N,) the first state of each.
        lengths: (N,) how many it has, at least 1.
    """

    states: Tensor
    starts: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, pieces: list[Tensor], prepare: Callable[[Tensor], Tensor]) -> Pieces:
        """Of N tensors (T, D), all states prepared at once."""
        lengths = torch.tensor([len(piece) for piece in pieces])
        return cls(prepare(torch.cat(pieces)), lengths.cumsum(0) - lengths, lengths)

    def padded(self, which: Tensor) -> Tensor:
        """(M, T, D) of M pieces; what is too short goes on with its last state."""
        lengths = self.lengths[which]
        steps = torch.arange(int(lengths.max()), device=lengths.device)
        return self.states[self.starts[which, None] + torch.minimum(steps, lengths[:, None] - 1)]

    def to(self, device: torch.device) -> Pieces:
        return Pieces(self.states.to(device), self.starts.to(device), self.lengths.to(device))


def directions(states: Tensor) -> Tensor:
    """(F, D) of length 1, but for those of zeros."""
    return F.normalize(states, dim=-1)


def distributions(states: Tensor) -> Tensor:
    """(F, D) as they are.

    Raises:
        UserError: a state is no distribution.
    """
    if bool((states < 0).any() | ((states.sum(-1) - 1).abs() > 1e-3).any()):
        raise UserError("model.distance kl is between distributions, and these states are none; take angular.")
    return states


def angular(x: Tensor, y: Tensor) -> Tensor:
    """arccos(cosine) / π of `directions`, 0 to 1; one of zeros is as far from any other as can be."""
    cosine = x @ y.mT
    silent, mute = (x == 0).all(-1)[:, :, None], (y == 0).all(-1)[:, None]
    return cosine.masked_fill_(silent & mute, 1).masked_fill_(silent ^ mute, -1).clamp_(-1, 1).acos_() / math.pi


def kl(x: Tensor, y: Tensor) -> Tensor:
    """Half the divergence both ways, ½ Σ (p − q)(log p − log q)."""
    p, q = (x + TINY).log(), (y + TINY).log()
    own = (x * p).sum(-1)[:, :, None] + (y * q).sum(-1)[:, None]
    return (own - x @ q.mT - p @ y.mT) / 2


def different(x: Tensor, y: Tensor) -> Tensor:
    """1 where two states differ at all, 0 where they are the same: for discrete units."""
    return (x[:, :, None] != y[:, None]).any(-1).float()


@dataclass(frozen=True)
class Distance:
    """Between states.

    Attributes:
        prepare: (F, D) → (F, D), once for all states.
        between: (P, S, D), (P, T, D) → (P, S, T).
    """

    prepare: Callable[[Tensor], Tensor]
    between: Callable[[Tensor, Tensor], Tensor]


DISTANCES = {
    "angular": Distance(directions, angular),
    "kl": Distance(distributions, kl),
    "different": Distance(lambda states: states, different),
}


def dtw(cost: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(P,) mean cost along the cheapest path from the first states of both sequences to their last.

    A path goes one state on in one sequence or in both; of equal ways it takes the diagonal, then the one along the
    columns, as libri-light's ABX does. All pairs advance together, one anti-diagonal of the lattice after the other.

    Args:
        cost: (P, S, T) between states; what lies beyond the lengths does not matter.
        rows: (P,) length of each first sequence, up to S.
        columns: (P,) of each second one, up to T.
    """
    pairs, height, width = cost.shape
    diagonals = height + width - 1
    # Row i shifted right by i: cell (i, j) lies in column i + j. Before all stand two diagonals and a row to come from.
    skewed = F.pad(cost, (0, height), value=math.inf).flatten(1)[:, : height * diagonals].view(pairs, height, diagonals)
    total = F.pad(skewed.permute(2, 1, 0), (0, 0, 1, 0, 2, 0), value=math.inf)  # (2 + diagonals, 1 + S, P)
    steps = torch.zeros_like(total)
    total[0, 0] = 0
    for k in range(2, diagonals + 2):
        diagonal, up, left = total[k - 2, :-1], total[k - 1, :-1], total[k - 1, 1:]
        side = torch.minimum(up, left)
        along = torch.where(left <= up, steps[k - 1, 1:], steps[k - 1, :-1])
        torch.add(torch.where(diagonal <= side, steps[k - 2, :-1], along), 1, out=steps[k, 1:])
        total[k, 1:] += torch.minimum(diagonal, side)
    end = rows + columns, rows, torch.arange(pairs, device=cost.device)
    return total[end] / steps[end]


def pair_distances(pieces: Pieces, first: Tensor, second: Tensor, distance: Distance) -> Tensor:
    """(P,) `dtw` of pairs of pieces, those of similar lengths together.

    Args:
        pieces: N sequences.
        first: (P,) of each pair the one along the rows.
        second: (P,) the other.
        distance: between states that it has prepared.
    """
    rows, columns = pieces.lengths[first], pieces.lengths[second]
    order = (rows * (columns.max() + 1) + columns).argsort()
    found = torch.empty(len(first), device=pieces.states.device)
    for chunk in _chunks(order, rows[order].tolist(), int(columns.max()), pieces.states.shape[1]):
        x, y = pieces.padded(first[chunk]), pieces.padded(second[chunk])
        found[chunk] = dtw(distance.between(x, y), rows[chunk], columns[chunk])
    return found


def _chunks(order: Tensor, heights: list[int], width: int, dim: int) -> Iterator[Tensor]:
    """Parts of `order`, ascending in height, that take `ELEMENTS` numbers at most, or are one pair."""
    start = 0
    while start < len(heights):
        size = 1
        for _ in range(2):  # by the height of its first, then of its last
            height = heights[min(start + size, len(heights)) - 1]
            size = max(1, ELEMENTS // ((height + width) * (dim + 3 * height)))
        yield order[start : start + size]
        start += size


def subsequence_dtw(cost: Tensor) -> Tensor:
    """(N,) mean cost a query state of the best match of a query anywhere in each of N utterances.

    Each query state is matched once, while the utterance stays, goes on by one state, or skips one; where a match
    begins and ends is free (the asymmetric steps of SUPERB's QbE). An utterance that is padded with its last state has
    the same matches as without.

    Args:
        cost: (Q, N, T) of the Q query states.
    """
    _, utterances, width = cost.shape
    best = cost.new_full((utterances, width + 2), math.inf)
    best[:, 2:] = cost[0]
    for row in cost[1:]:
        best[:, 2:] = row + torch.minimum(torch.minimum(best[:, 2:], best[:, 1:-1]), best[:, :-2])
    return best[:, 2:].amin(1) / len(cost)
