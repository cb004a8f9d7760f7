"""Which items make up which batch: a pure function of (seed, epoch), so that any step can be returned to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from heapq import heapify, heappop, heappush

import torch
from torch.utils.data import Sampler

from ssl_suite.core.errors import UserError
from ssl_suite.core.random import item_seed

Key = tuple[int, int]
"""(epoch, index): what a dataset is asked for, so that a worker can seed the item."""

PADDING = 0.05
"""Share of a batch of similar lengths that may be padding."""


def plain_batches(n: int, batch_size: int, seed: int, epoch: int, drop_last: bool) -> list[list[int]]:
    """A random permutation cut into batches."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(item_seed(seed, epoch, n))).tolist()
    batches = [order[i : i + batch_size] for i in range(0, n, batch_size)]
    return batches[:-1] if drop_last and len(batches) > 1 and len(batches[-1]) < batch_size else batches


def joined(batches: list[list[int]]) -> list[list[int]]:
    """A last batch of one joins the one before it: no batch norm knows the deviation of one."""
    if len(batches) > 1 and len(batches[-1]) == 1:
        return [*batches[:-2], batches[-2] + batches[-1]]
    return batches


def bucketed_batches(
    lengths: Sequence[float], batch_size: int, seed: int, epoch: int, drop_last: bool, window: int = 50
) -> list[list[int]]:
    """Batches of similar lengths: sort inside windows of `window` batches of a permutation, shuffle the batches.

    With `drop_last` the permutation is cut before it is sorted, so that long items are left out no more than others.
    """
    n = len(lengths)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(item_seed(seed, epoch, n))).tolist()
    if drop_last and n > batch_size:
        order = order[: n - n % batch_size]
    span = window * batch_size
    ordered = [i for start in range(0, n, span) for i in sorted(order[start : start + span], key=lengths.__getitem__)]
    batches = [ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size)]
    shuffle = torch.randperm(len(batches), generator=torch.Generator().manual_seed(item_seed(seed, epoch, n + 1)))
    return [batches[i] for i in shuffle.tolist()]


def budget_batches(
    lengths: Sequence[float], budget: float, seed: int, epoch: int, jitter: float = 0.1
) -> list[list[int]]:
    """Batches whose padded size max(length) · B stays within `budget` (seconds, tokens); every item in each epoch.

    Items are sorted by lengths stretched at random by up to `jitter`, so each epoch has other batches; by up to a half
    or a quarter of it, where that is what keeps padding within `PADDING`. Their number is that of the first epochs: one
    that needs more is stretched less (by nothing, it needs the fewest there can be), one that needs fewer halves its
    largest.

    Args:
        lengths: of each item; one longer than `budget` is a batch of its own.
        budget: padded units a batch.
        seed: of the run.
        epoch: which one.
        jitter: how much longer, relatively, an item may count than it is when the items are sorted.
    """
    tried = (jitter, jitter / 2, jitter / 4)
    jitter = next((j for j in tried if padding(lengths, _fill(lengths, budget, seed, 0, j)) <= PADDING), jitter)
    number = max(len(_fill(lengths, budget, seed, e, jitter)) for e in range(3))
    steps = (_fill(lengths, budget, seed, epoch, share * jitter) for share in (1.0, 0.5, 0.25, 0.0))
    batches = next(made for made in steps if len(made) <= number)
    largest = [(-len(batch), i) for i, batch in enumerate(batches)]
    heapify(largest)
    while len(batches) < number:
        _, i = heappop(largest)
        half = len(batches[i]) // 2
        batches.append(batches[i][:half])
        batches[i] = batches[i][half:]
        for j in (i, len(batches) - 1):
            heappush(largest, (-len(batches[j]), j))
    generator = torch.Generator().manual_seed(item_seed(seed, epoch, number))
    return [batches[i] for i in torch.randperm(number, generator=generator).tolist()]


def padding(lengths: Sequence[float], batches: list[list[int]]) -> float:
    """Share of padding in batches as long as their longest items."""
    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
    return 1 - sum(lengths[i] for batch in batches for i in batch) / padded


def _fill(lengths: Sequence[float], budget: float, seed: int, epoch: int, jitter: float) -> list[list[int]]:
    """Sorts a permutation by stretched lengths and puts as many items into a batch as `budget` allows."""
    generator = torch.Generator().manual_seed(item_seed(seed, epoch, len(lengths)))
    shuffle = torch.randperm(len(lengths), generator=generator)
    stretch = 1 + jitter * torch.rand(len(lengths), generator=generator, dtype=torch.float64)
    order = shuffle[(torch.tensor(lengths, dtype=torch.float64)[shuffle] * stretch).argsort(stable=True)]
    batches: list[list[int]] = []
    longest = 0.0
    for i in order.tolist():
        longest = max(longest, lengths[i])
        if batches and longest * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(i)
        else:
            batches.append([i])
            longest = lengths[i]
    return batches


class EpochSampler(Sampler[list[Key]]):
    """Yields batches of keys from where the run stands.

    Args:
        batches: epoch → all batches of that epoch; the same number in every epoch.
        position: batches this run has finished, over all epochs; read whenever an iterator is made.
        rank: of this process.
        world: number of processes; batch k goes to rank k mod world, and all get equally many.
        limit: batches a rank takes from each epoch (`limit_train_batches`), or None.
    """

    def __init__(
        self,
        batches: Callable[[int], list[list[int]]],
        position: Callable[[], int] = lambda: 0,
        rank: int = 0,
        world: int = 1,
        limit: int | None = None,
    ) -> None:
        self.batches, self.position, self.rank, self.world = batches, position, rank, world
        self.length = len(batches(0)) // world
        if self.length == 0:
            raise UserError(
                f"An epoch has {len(batches(0))} batches for {world} processes; lower batch_size or devices."
            )
        self.per_epoch = min(self.length, limit) if limit else self.length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, start = divmod(self.position(), self.per_epoch)
        mine = self.batches(epoch)[self.rank :: self.world][: self.per_epoch]
        return iter([[(epoch, i) for i in batch] for batch in mine[start:]])


class EvalSampler(Sampler[list[Key]]):
    """Every item once, split over ranks; nothing is dropped or repeated.

    Where there are fewer items than ranks, each has all of them: every rank must take part in what follows, and shares
    of equal parts are those of the whole.

    Args:
        n: items.
        batch_size: most items a batch.
        lengths: of each item: batches go from the longest to the shortest, so that the first one shows whether memory
            suffices; None keeps the order.
        rank: of this process.
        world: number of processes.
        budget: most padded units a batch, max(length) · B; an item longer than that comes alone.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        lengths: Sequence[float] | None = None,
        rank: int = 0,
        world: int = 1,
        budget: float | None = None,
    ) -> None:
        order = list(range(n)) if lengths is None else sorted(range(n), key=lambda i: -lengths[i])
        self.keys: list[list[Key]] = []
        mine, start = order[rank::world] if n >= world else order, 0
        while start < len(mine):
            longest = lengths[mine[start]] if lengths is not None else 0
            size = max(1, min(batch_size, int(budget / longest))) if budget is not None and longest else batch_size
            self.keys.append([(0, i) for i in mine[start : start + size]])
            start += size

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.keys)
