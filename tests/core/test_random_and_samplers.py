"""Draws that depend on (seed, epoch, item) only, and samplers that give every item once."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest
import torch
from scipy import stats

from ssl_suite.core.errors import UserError
from ssl_suite.core.random import draw, item_seed, normal, uniform
from ssl_suite.core.sampler import EpochSampler, EvalSampler, bucketed_batches, budget_batches, plain_batches

SEEDS = torch.tensor([item_seed(1, e, i) for e in range(20) for i in range(50)])


def test_rows_do_not_depend_on_their_mates_order_or_width() -> None:
    rows = uniform(SEEDS, 30)
    shuffle = torch.randperm(len(SEEDS))
    assert torch.equal(uniform(SEEDS[shuffle], 30), rows[shuffle])
    assert torch.equal(uniform(SEEDS[7:8], 50)[:, :30], rows[7:8])


def test_one_items_draw_is_its_row_without_a_tensor() -> None:
    rows = uniform(SEEDS, 12, 205)
    assert [[draw(seed, column, 205) for column in range(12)] for seed in SEEDS.tolist()] == rows.tolist()


def test_draws_are_uniform() -> None:
    draws = uniform(SEEDS, 200)
    assert draws.min() >= 0
    assert draws.max() < 1
    n = draws.numel()
    assert abs(draws.mean() - 0.5) < 5 * (1 / 12 / n) ** 0.5
    counts = torch.histc(draws, 100, 0, 1)
    assert stats.chisquare(counts.numpy().astype(float)).pvalue > 1e-4
    for column in (draws[:, 0], draws[:, 1], draws[0]):
        assert stats.kstest(column.double().numpy(), "uniform").pvalue > 1e-4


def test_normal_draws_are_normal_and_a_row_depends_on_its_seed_alone() -> None:
    draws = normal(SEEDS, 200)
    assert torch.isfinite(draws).all()
    assert stats.kstest(draws.flatten()[:20000].double().numpy(), "norm").pvalue > 1e-4
    assert abs(float(torch.corrcoef(torch.stack([draws[:, :-1].flatten(), draws[:, 1:].flatten()]))[0, 1])) < 0.02
    assert torch.equal(normal(SEEDS[7:8], 50)[:, :30], normal(SEEDS, 30)[7:8])


def test_streams_columns_items_and_epochs_are_uncorrelated() -> None:
    n = 1000
    first = uniform(SEEDS, 50)

    def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
        return abs(float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]))

    for stream in (1, 2, 100, 101):
        assert correlation(first, uniform(SEEDS, 50, stream)) < 5 / (n * 50) ** 0.5
    assert correlation(first[:, :-1], first[:, 1:]) < 5 / (n * 49) ** 0.5
    assert correlation(first[:-1], first[1:]) < 5 / (n * 50) ** 0.5
    assert correlation(first[:-50], first[50:]) < 5 / (n * 50) ** 0.5  # the same items an epoch later


def test_item_seeds_differ() -> None:
    seeds = [item_seed(s, e, i) for s in (0, 1, 2**40 + 5) for e in range(10) for i in range(100)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= s < 2**32 for s in seeds)


def lengths(n: int) -> list[float]:
    rng = random.Random(0)
    return [rng.uniform(1, 30) for _ in range(n)]


def epochs_of(kind: str, n: int, epoch: int, drop_last: bool = False) -> list[list[int]]:
    if kind == "plain":
        return plain_batches(n, 8, 3, epoch, drop_last)
    if kind == "bucketed":
        return bucketed_batches(lengths(n), 8, 3, epoch, drop_last, window=5)
    return budget_batches(lengths(n), 100.0, 3, epoch)


@pytest.mark.parametrize("kind", ["plain", "bucketed", "budget"])
@pytest.mark.parametrize("n", [1, 8, 103])
def test_every_item_comes_once_an_epoch_in_a_new_order(kind: str, n: int) -> None:
    epochs = [epochs_of(kind, n, e) for e in range(3)]
    for batches in epochs:
        assert sorted(itertools.chain(*batches)) == list(range(n))
    assert len({len(b) for b in epochs}) == 1
    assert epochs_of(kind, n, 1) == epochs[1]
    if n > 8:
        assert epochs[0] != epochs[1]


@pytest.mark.parametrize("kind", ["plain", "bucketed"])
def test_dropping_the_last_batch_leaves_full_ones_but_never_nothing(kind: str) -> None:
    assert [len(b) for b in epochs_of(kind, 103, 0, True)] == [8] * 12
    assert [len(b) for b in epochs_of(kind, 96, 0, True)] == [8] * 12
    assert [len(b) for b in epochs_of(kind, 5, 0, True)] == [5]


def test_buckets_hold_similar_lengths() -> None:
    size = lengths(400)

    def padding(batches: list[list[int]]) -> float:
        return sum(max(size[i] for i in b) * len(b) for b in batches) / sum(size) - 1

    assert padding(bucketed_batches(size, 8, 0, 0, False)) < 0.05
    assert padding(plain_batches(400, 8, 0, 0, False)) > 0.5


def test_budget_is_respected_except_by_one_item_longer_than_it() -> None:
    size = [*lengths(103), 150.0]
    for batch in budget_batches(size, 100.0, 3, 0):
        assert len(batch) == 1 or max(size[i] for i in batch) * len(batch) <= 100
    assert [103] in budget_batches(size, 100.0, 3, 0)


@pytest.mark.parametrize("kind", ["plain", "bucketed"])
def test_what_is_dropped_is_drawn_anew_whatever_its_length(kind: str) -> None:
    """7 of 103 items are left out of each epoch: over 400 epochs each item 27 times, long ones too."""
    left_out = [set(range(103)) - set(itertools.chain(*epochs_of(kind, 103, e, True))) for e in range(400)]
    assert {len(items) for items in left_out} == {7}
    counts = [sum(i in items for items in left_out) for i in range(103)]
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("kind", ["plain", "bucketed", "budget"])
def test_what_ranks_leave_is_drawn_anew_whatever_its_length(kind: str) -> None:
    """A rank takes as many batches as any other; over the epochs every item is among them about equally often."""
    epochs = 300
    seen = [0] * 103
    for epoch in range(epochs):
        made = [EpochSampler(lambda e: epochs_of(kind, 103, e), lambda: 0, r, 4) for r in range(4)]
        for ranked in made:
            ranked.position = lambda at=epoch, size=ranked.per_epoch: at * size  # type: ignore[misc]
        ranks = [list(ranked) for ranked in made]
        assert len({len(r) for r in ranks}) == 1
        for batch in itertools.chain(*ranks):
            for at, i in batch:
                assert at == epoch
                seen[i] += 1
    longest = sorted(range(103), key=lengths(103).__getitem__)[-10:]
    assert min(seen) > 0.75 * epochs
    assert sum(seen[i] for i in longest) / 10 > 0.97 * sum(seen) / 103


def test_a_budget_makes_other_batches_every_epoch() -> None:
    sets = [{frozenset(batch) for batch in epochs_of("budget", 103, e)} for e in range(10)]
    for a, b in itertools.combinations(sets, 2):
        assert len(a & b) < 0.5 * len(a)


@pytest.mark.parametrize("n", [1, 2, 7, 50, 400])
@pytest.mark.parametrize("budget", [0.5, 40.0, 100.0, 1e6])
def test_a_budget_makes_as_many_batches_every_epoch_at_little_cost(n: int, budget: float) -> None:
    size = lengths(n)
    epochs = [budget_batches(size, budget, 3, e) for e in range(30)]
    fewest = 1 + sum(1 for _ in itertools.islice(boundaries(sorted(size), budget), n))
    assert {len(batches) for batches in epochs} == {len(epochs[0])}
    assert fewest <= len(epochs[0]) <= max(fewest + 1, 1.15 * fewest + 1)
    for batches in epochs:
        assert sorted(itertools.chain(*batches)) == list(range(n))
        assert all(batches)


def boundaries(ordered: list[float], budget: float) -> Iterator[int]:
    """Where the next batch of lengths in order begins, when each takes what it can."""
    start = 0
    for i, length in enumerate(ordered):
        if i > start and length * (i + 1 - start) > budget:
            start = i
            yield i


def sampler(position: int = 0, rank: int = 0, world: int = 1, limit: int | None = None, n: int = 103) -> EpochSampler:
    return EpochSampler(lambda e: epochs_of("plain", n, e), lambda: position, rank, world, limit)


def test_ranks_share_an_epoch_disjointly_and_equally() -> None:
    ranks = [list(sampler(rank=r, world=3)) for r in range(3)]
    assert [len(r) for r in ranks] == [4, 4, 4]
    items = [index for rank in ranks for batch in rank for _, index in batch]
    assert len(set(items)) == len(items)


def test_resuming_yields_what_was_left() -> None:
    whole = [list(sampler(position=13 * e)) for e in range(3)]
    for position in range(39):
        epoch, done = divmod(position, 13)
        assert list(sampler(position)) == whole[epoch][done:]
        assert {e for batch in sampler(position) for e, _ in batch} == {epoch}


def test_limited_epochs_count_only_what_is_taken() -> None:
    """With 5 of 13 batches an epoch, batch 7 is the third of the second epoch."""
    assert list(sampler(7, limit=5))[:3] == list(sampler(13))[2:5]


def test_fewer_batches_than_ranks_is_refused() -> None:
    with pytest.raises(UserError, match=r"2 batches.* 3 "):
        sampler(n=16, world=3)


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("by_length", [False, True])
def test_evaluation_sees_each_item_once_over_all_ranks(world: int, by_length: bool) -> None:
    size = lengths(20) if by_length else None
    ranks = [EvalSampler(20, 3, size, r, world) for r in range(world)]
    assert sorted(i for r in ranks for b in r for _, i in b) == list(range(20))
    assert all(len(list(r)) == len(r) for r in ranks)


@pytest.mark.parametrize("world", [1, 2])
def test_evaluation_within_a_budget_sees_each_item_once(world: int) -> None:
    size = [*lengths(40), 0.0, 150.0]
    ranks = [EvalSampler(42, 6, size, r, world, budget=100.0) for r in range(world)]
    batches = [[i for _, i in batch] for rank in ranks for batch in rank]
    assert sorted(itertools.chain(*batches)) == list(range(42))
    assert [41] in batches
    for batch in batches:
        assert len(batch) <= 6
        assert len(batch) == 1 or max(size[i] for i in batch) * len(batch) <= 100.0
    assert any(len(batch) == 6 for batch in batches)
    free = [EvalSampler(42, 6, size, r, world, budget=1e9).keys for r in range(world)]
    assert free == [EvalSampler(42, 6, size, r, world).keys for r in range(world)]


def test_an_epoch_that_is_limited_ends_there() -> None:
    """What comes after the limit is never trained on, so nothing may look at it either."""
    sampler = EpochSampler(lambda epoch: [[i] for i in range(10)], lambda: 0, limit=5)
    assert list(sampler) == [[(0, i)] for i in range(5)]
    later = EpochSampler(lambda epoch: [[i] for i in range(10)], lambda: 7, rank=0, limit=5)
    assert list(later) == [[(1, i)] for i in range(2, 5)]
