"""Loader: batches as Lightning takes them, and those that share an optimizer step known together."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from ssl_suite.core.errors import UserError


class Loader:
    """A DataLoader that Lightning takes as it is: our samplers already know ranks, epochs and where to resume.

    Args:
        loader: of batches, None where all items of one were unreadable.
        together: batches that share an optimizer step; all of them are read before the first is given.

    Attributes:
        following: those after the batch given last that share its optimizer step.
    """

    def __init__(self, loader: DataLoader[Any], together: int = 1) -> None:
        self.loader, self.together = loader, together
        self.following: list[Any] = []

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        """A generator, because Lightning asks for an iterator before it restores where the run stood."""
        batches = self._batches()
        while window := list(itertools.islice(batches, self.together)):
            for i, batch in enumerate(window, 1):
                self.following = window[i:]
                yield batch

    def _batches(self) -> Iterator[Any]:
        found = empty = 0
        try:
            for batch in self.loader:
                if batch is None:
                    empty += 1
                else:
                    found += 1
                    yield batch
        except UserError as error:  # from a worker it comes wrapped in that process's traceback
            text = str(error).strip()
            if "Original Traceback" not in text:
                raise
            raise type(error)(text.rpartition("\n")[2].partition(": ")[2]) from None
        if empty and not found:
            raise UserError("Every sample was unreadable; check the source, or its first sample with on_error: raise.")
