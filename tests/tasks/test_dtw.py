"""Time warping and distances against loops written from their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ssl_suite.core.errors import UserError
from ssl_suite.tasks import dtw as module
from ssl_suite.tasks.dtw import DISTANCES, Pieces, dtw, pair_distances, subsequence_dtw


def warped(cost: Tensor) -> float:
    """The cost of the cheapest path over the length of the one that is found from its end."""
    height, width = cost.shape
    total = torch.zeros(height, width)
    for i in range(height):
        for j in range(width):
            before = [total[i - 1, j - 1]] * bool(i and j) + [total[i, j - 1]] * bool(j) + [total[i - 1, j]] * bool(i)
            total[i, j] = cost[i, j] + (min(before) if before else 0)
    i, j, length = height - 1, width - 1, 1
    while i or j:
        diagonal = total[i - 1, j - 1] if i and j else math.inf
        left, up = total[i, j - 1] if j else math.inf, total[i - 1, j] if i else math.inf
        if diagonal <= left and diagonal <= up:
            i, j = i - 1, j - 1
        elif left <= up:
            j -= 1
        else:
            i -= 1
        length += 1
    return float(total[-1, -1] / length)


def found_anywhere(cost: Tensor) -> float:
    """The cheapest way through all rows, each of which stays, goes on by one column or by two; over their number."""
    height, width = cost.shape
    total = [list(map(float, cost[0]))]
    for i in range(1, height):
        total.append([float(cost[i, j]) + min(total[-1][max(0, j - 2) : j + 1]) for j in range(width)])
    return min(total[-1]) / height


@pytest.mark.parametrize("ties", [False, True])
def test_every_pair_is_warped_as_alone(ties: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    shape = (50, 6, 8)
    cost = torch.randint(0, 3, shape, generator=draw).float() if ties else torch.rand(shape, generator=draw)
    rows, columns = (torch.randint(1, n + 1, (50,), generator=draw) for n in shape[1:])
    wanted = [warped(cost[p, : rows[p], : columns[p]]) for p in range(50)]
    torch.testing.assert_close(dtw(cost, rows, columns), torch.tensor(wanted), rtol=0, atol=1e-6)


def test_of_equal_ways_the_diagonal_counts() -> None:
    assert float(dtw(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([2]), torch.tensor([2]))) == 2 / 2
    assert float(dtw(torch.tensor([[[1.0, 1.0], [1.0, 0.0]]]), torch.tensor([2]), torch.tensor([2]))) == 1 / 2


def test_a_query_is_found_wherever_it_is() -> None:
    draw = torch.Generator().manual_seed(0)
    cost = torch.rand(5, 20, 9, generator=draw)
    wanted = torch.tensor([found_anywhere(cost[:, n]) for n in range(20)])
    torch.testing.assert_close(subsequence_dtw(cost), wanted)
    shorter = torch.cat([cost[..., :6], cost[..., 5:6].expand(-1, -1, 3)], -1)  # goes on with its last state
    torch.testing.assert_close(subsequence_dtw(shorter), subsequence_dtw(cost[..., :6]))


def test_distances_are_those_of_libri_light() -> None:
    x = torch.tensor([[[1.0, 0, 0, 0], [0, 0, 0, 0]], [[0, 0, -1, 0], [0.5, -0.5, 0.5, -0.5]]])
    y = torch.tensor([[[-0.5, -0.5, -0.5, 0.5], [0, 0, 0, 0], [0, 1, 0, 0]]]).expand(2, -1, -1)
    prepare, angular = DISTANCES["angular"].prepare, DISTANCES["angular"].between
    wanted = [[[2 / 3, 1, 1 / 2], [1, 0, 1]], [[1 / 3, 1, 1 / 2], [2 / 3, 1, 2 / 3]]]
    torch.testing.assert_close(angular(prepare(3 * x), prepare(y)), torch.tensor(wanted))
    units = torch.tensor([[[1.0], [4.0]]])
    assert DISTANCES["different"].between(units, units).tolist() == [[[0, 1], [1, 0]]]


def test_divergence_is_that_of_distributions() -> None:
    p, q = torch.rand(1, 3, 5).softmax(-1), torch.rand(1, 4, 5).softmax(-1)
    wanted = [[[float(((a - b) * (a / b).log()).sum()) / 2 for b in q[0]] for a in p[0]]]
    torch.testing.assert_close(DISTANCES["kl"].between(p, q), torch.tensor(wanted), rtol=1e-3, atol=1e-5)
    with pytest.raises(UserError, match="kl is between distributions"):
        DISTANCES["kl"].prepare(-p[0])


@pytest.mark.parametrize("elements", [1, 2000, 1 << 23])
def test_distances_do_not_depend_on_which_pairs_are_together(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ELEMENTS", elements)
    draw = torch.Generator().manual_seed(0)
    sequences = [torch.randn(n, 4, generator=draw) for n in (3, 9, 1, 5, 7)]
    pieces = Pieces.of(sequences, DISTANCES["angular"].prepare)
    first, second = torch.tensor([0, 1, 2, 3, 4, 4]), torch.tensor([1, 2, 3, 3, 0, 1])
    got = pair_distances(pieces, first, second, DISTANCES["angular"])
    for n, (i, j) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        one, two = sequences[i], sequences[j]
        cosine = torch.cosine_similarity(one[:, None], two[None], dim=-1).clamp(-1, 1)
        assert float(got[n]) == pytest.approx(warped(cosine.acos() / math.pi), abs=1e-3)  # acos is steep at 1
