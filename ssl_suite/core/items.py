"""What a loader's processes do: read items, leave out unreadable ones where the user said so, make batches."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import Dataset

from ssl_suite.core.batch import Batch
from ssl_suite.core.errors import BadItem, UserError
from ssl_suite.core.random import item_seed
from ssl_suite.core.sampler import Key

if TYPE_CHECKING:
    from ssl_suite.core.data import DataModule


class Skipped:
    """Which samples could not be read. Loader processes share it, so that each counts once, however often it is met."""

    def __init__(self) -> None:
        self._marks: dict[str, Tensor] = {}

    def expect(self, split: str, n: int) -> None:
        """Makes room for the `n` samples of a split, before loader processes start."""
        if split not in self._marks:
            self._marks[split] = torch.zeros(n, dtype=torch.uint8).share_memory_()

    def add(self, split: str, index: int) -> bool:
        """Whether this is the first time."""
        first = not self._marks[split][index]
        self._marks[split][index] = 1
        return first

    def clear(self) -> None:
        self._marks.clear()

    @property
    def value(self) -> int:
        """How many there are."""
        return sum(int(marks.sum()) for marks in self._marks.values())


class ItemDataset(Dataset[Any]):
    """Reads items of a split with the randomness of (seed, epoch, index); None for one that is skipped.

    Args:
        data: reads them.
        split: of the data.
        seed: of the run.
        training: whether items are for steps of training. A batch with nothing left is then made of the next readable
            items of the split, so that every step has a batch, on every rank, and the same one after a resume.
    """

    def __init__(self, data: DataModule, split: str, seed: int, training: bool) -> None:
        self.data, self.split, self.seed, self.training = data, split, seed, training
        self.n = data.size(split)
        data.skipped.expect(split, self.n)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, key: Key) -> Any:
        epoch, index = key
        try:
            seed = item_seed(self.seed, epoch, index)
            return (
                self.data.read_for_training(index, seed) if self.training else self.data.read(self.split, index, seed)
            )
        except BadItem as error:
            if self.data.on_error != "skip":
                raise
            if self.data.skipped.add(self.split, index):
                rank_zero_warn(f"Skipped: {error}")
            return None

    def __getitems__(self, keys: list[Key]) -> list[Any]:
        items = [self[key] for key in keys]
        if self.training and all(item is None for item in items):
            epoch, last = keys[-1]
            following = (self[epoch, (last + step) % self.n] for step in range(1, self.n))
            items = list(islice((item for item in following if item is not None), len(keys)))
            if not items:
                raise UserError(f"{self.data.source_name}: every sample of the {self.split} split is unreadable.")
        return items


class Collate:
    """Makes a batch of the items that were read; None where there are none."""

    def __init__(self, collate: Callable[[list[Any]], Batch]) -> None:
        self.collate = collate

    def __call__(self, items: list[Any]) -> Batch | None:
        kept = [item for item in items if item is not None]
        return self.collate(kept) if kept else None
