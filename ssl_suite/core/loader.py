"""Loader: batches as Lightning takes them, and a look at those that share an optimizer step with one."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from ssl_suite.core.errors import UserError


class Loader:
    """A DataLoader that Lightning takes as it is: our samplers already know ranks, epochs and where to resume.

    Args:
        loader: of batches, None where all items of one were unreadable.
        together: batches that share an optimizer step.
    """

    def __init__(self, loader: DataLoader[Any], together: int = 1) -> None:
        self.loader, self.together = loader, together
        self._source: Iterator[Any] = iter(())
        self._ahead: deque[Any] = deque()
        self._given = 0

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        """A generator, because Lightning asks for an iterator before it restores where the run stood."""
        self._source, self._given = self._batches(), 0
        self._ahead.clear()
        while (batch := self._ahead.popleft() if self._ahead else next(self._source, None)) is not None:
            self._given += 1
            yield batch

    def following(self) -> list[Any]:
        """Those after the batch given last that share its optimizer step; read now, and given in their turn."""
        left = -self._given % self.together
        self._ahead.extend(itertools.islice(self._source, max(0, left - len(self._ahead))))
        return list(itertools.islice(self._ahead, left))

    def all(self) -> Iterator[Any]:
        """Every batch, None where all items of one were unreadable."""
        try:
            yield from self.loader
        except UserError as error:  # from a worker it comes wrapped in that process's traceback
            text = str(error).strip()
            if "Original Traceback" not in text:
                raise
            raise type(error)(text.rpartition("\n")[2].partition(": ")[2]) from None

    def _batches(self) -> Iterator[Any]:
        found = empty = 0
        for batch in self.all():
            if batch is None:
                empty += 1
            else:
                found += 1
                yield batch
        if empty and not found:
            raise UserError("Every sample was unreadable; check the source, or its first sample with on_error: raise.")
