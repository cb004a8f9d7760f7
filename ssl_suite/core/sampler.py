"""Which items make up which batch: a pure function of (seed, epoch), so that any step can be returned to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch.utils.data import Sampler

from ssl_suite.core.errors import UserError
from ssl_suite.core.random import item_seed

Key = tuple[int, int]
"""(epoch, index): what a dataset is asked for, so that a worker can seed the item."""


def plain_batches(n: int, batch_size: int, seed: int, epoch: int, drop_last: bool) -> list[list[int]]:
    """A random permutation cut into batches."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(item_seed(seed, epoch, n))).tolist()
    batches = [order[i : i + batch_size] for i in range(0, n, batch_size)]
    return batches[:-1] if drop_last and len(batches) > 1 and len(batches[-1]) < batch_size else batches


def bucketed_batches(
    lengths: Sequence[float], batch_size: int, seed: int, epoch: int, drop_last: bool, window: int = 50
) -> list[list[int]]:
    """Batches of similar lengths: sort inside windows of `window` batches of a permutation, shuffle the batches."""
    n = len(lengths)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(item_seed(seed, epoch, n))).tolist()
    span = window * batch_size
    ordered = [i for start in range(0, n, span) for i in sorted(order[start : start + span], key=lengths.__getitem__)]
    batches = [ordered[i : i + batch_size] for i in range(0, n, batch_size)]
    if drop_last and len(batches) > 1 and len(batches[-1]) < batch_size:
        batches.pop()
    shuffle = torch.randperm(len(batches), generator=torch.Generator().manual_seed(item_seed(seed, epoch, n + 1)))
    return [batches[i] for i in shuffle.tolist()]


def budget_batches(lengths: Sequence[float], budget: float, seed: int, epoch: int) -> list[list[int]]:
    """Batches whose padded size max(length) · B stays within `budget` (seconds, tokens); their number never changes."""
    batches: list[list[int]] = []
    current: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if current and lengths[i] * (len(current) + 1) > budget:
            batches.append(current)
            current = []
        current.append(i)
    batches.append(current)
    generator = torch.Generator().manual_seed(item_seed(seed, epoch, len(batches)))
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


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
        mine = self.batches(epoch)[self.rank :: self.world][: self.length]
        return iter([[(epoch, i) for i in batch] for batch in mine[start:]])


class EvalSampler(Sampler[list[Key]]):
    """Every item once, in order, split over ranks; nothing is dropped or repeated.

    With `lengths`, batches go from the longest to the shortest, so that the first one shows whether memory suffices.
    """

    def __init__(
        self, n: int, batch_size: int, lengths: Sequence[float] | None = None, rank: int = 0, world: int = 1
    ) -> None:
        order = list(range(n)) if lengths is None else sorted(range(n), key=lambda i: -lengths[i])
        mine = order[rank::world]
        self.keys = [[(0, i) for i in mine[s : s + batch_size]] for s in range(0, len(mine), batch_size)]

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.keys)
