"""What a long pass over data says of itself where no progress bar does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from pytorch_lightning.utilities import rank_zero_info

T = TypeVar("T")
FIRST, MOST = 15.0, 600.0
"""Seconds until the first line, and the most between two; each waits for twice as long as the one before."""


def told(
    items: Iterable[T],
    what: str,
    total: int,
    size: Callable[[T], int] = lambda _: 1,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[T]:
    """Hands the items on, and says now and then how many there were: nothing at all of what is soon done.

    Args:
        items: of the pass, one by one or in batches.
        what: is done to them, as the line begins.
        total: how many there are.
        size: how many an item stands for.
        clock: seconds.
    """
    begun, wait, done = clock(), FIRST, 0
    due = begun + wait
    for item in items:
        yield item
        done += size(item)
        if (now := clock()) >= due:
            rank_zero_info(f"{what}: {done:,} of {total:,} after {now - begun:,.0f} s")
            wait = min(2 * wait, MOST)
            due = now + wait
