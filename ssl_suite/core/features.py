"""Frozen features: encoded shard by shard, and served like any other data."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from ssl_suite.core.batch import Batch, Target, lengths_to_mask, stacked
from ssl_suite.core.encoder import Encoded
from ssl_suite.core.errors import UserError
from ssl_suite.core.moments import Moments
from ssl_suite.core.pace import told
from ssl_suite.core.sampler import EvalSampler, Key
from ssl_suite.core.store import Plan, Shard

if TYPE_CHECKING:
    from ssl_suite.core.data import DataModule

SHARD = 32e6
"""Bytes of a shard: what writing one takes of memory, a few times, and little enough to share out among processes."""

Encode = Callable[[Batch], Encoded]
"""A batch → the selected states, on any device."""


@dataclass(eq=False)
class FeatureBatch(Batch):
    """A batch whose encoder has already run.

    Attributes:
        features: (B, S, T, D): S states, T is 1 for features of whole inputs.
        mask: (B, T) True = real.
    """

    features: Tensor
    mask: Tensor

    def encoded(self) -> Encoded:
        return Encoded(self.features.unbind(1), self.mask, self.features[:, -1, 0])


class Features(Dataset[FeatureBatch]):
    """One split's features; fetched a whole batch at a time, in float32.

    Args:
        shards: in the order of their items.
        target: position of an item in its split → its target; None where there are none.

    Attributes:
        index: (N,) position of each item in its split.
        lengths: (N,) T of each item.
        moments: of all values.
        pooled: whether T is 1 everywhere.
    """

    def __init__(self, shards: Sequence[Shard], target: Callable[[int], Target] | None) -> None:
        self.shards, self.target = [shard for shard in shards if len(shard.index)], target
        if not self.shards:
            raise UserError("No input is left to compute features of; every one was skipped as unreadable.")
        self.index = torch.cat([shard.index for shard in self.shards])
        self.lengths = torch.cat([shard.lengths for shard in self.shards])
        self.starts = torch.cat([shard.lengths.cumsum(0) - shard.lengths for shard in self.shards])
        self.ends = torch.tensor([len(shard.index) for shard in self.shards]).cumsum(0)
        self.moments = Moments.join([shard.moments for shard in self.shards])
        self.pooled = bool((self.lengths == 1).all())

    def __len__(self) -> int:
        return len(self.index)

    def __getitems__(self, keys: list[Key]) -> FeatureBatch:
        rows = torch.tensor([i for _, i in keys])
        of = torch.searchsorted(self.ends, rows, right=True)
        if self.pooled:
            values = self._vectors(rows, of)
            mask = torch.ones(len(rows), 1, dtype=torch.bool)
        else:
            pieces = [self._item(row, shard) for row, shard in zip(rows.tolist(), of.tolist(), strict=True)]
            values = pad_sequence(pieces, batch_first=True).transpose(1, 2)
            mask = lengths_to_mask(self.lengths[rows], values.shape[2])
        index = self.index[rows]
        target = stacked([self.target(i) for i in index.tolist()] if self.target else [])
        return FeatureBatch(index, torch.zeros_like(rows), target, values, mask)

    def _vectors(self, rows: Tensor, of: Tensor) -> Tensor:
        """(B, S, 1, D)."""
        values = torch.empty(len(rows), 1, *self.shards[0].values.shape[1:])
        for shard in of.unique().tolist():
            here = of == shard
            values[here, 0] = self.shards[shard].values[self.starts[rows[here]]].float()
        return values.transpose(1, 2)

    def _item(self, row: int, shard: int) -> Tensor:
        """(T, S, D)."""
        return self.shards[shard].values.narrow(0, int(self.starts[row]), int(self.lengths[row])).float()


def planned(data: DataModule, split: str, encode: Encode, dtype: torch.dtype) -> Plan:
    """Cuts a split into shards of about `SHARD` bytes, after encoding its longest item alone to see what it takes.

    A shard holds whole batches, so that the encoder runs as fast as on the split, unless it grew to four times that.
    """
    n, lengths = data.size(split), data.lengths(split)
    order = range(n) if lengths is None else sorted(range(n), key=lambda i: -lengths[i])
    items = data.dataset(split)
    found = next(((i, item) for i in order if (item := items[0, i]) is not None), None)
    if found is None:
        raise UserError("No input is left to compute features of; every one was skipped as unreadable.")
    encoded = encode(data.collate([found[1]]))
    pooled = encoded.mask.shape[1] == 1
    taken = int(encoded.mask.sum()) * sum(state.shape[2] for state in encoded.states) * dtype.itemsize
    longest = 1.0 if lengths is None or pooled else max(lengths[found[0]], 1e-9)
    sizes = [taken / longest * (1.0 if lengths is None or pooled else lengths[i]) for i in range(n)]
    starts, held = [0], 0.0
    for start, more in enumerate(sizes):
        whole = held >= SHARD and (start - starts[-1]) % data.eval_batch_size == 0
        if whole or (held and held + more > 4 * SHARD):
            starts.append(start)
            held = 0.0
        held += more
    return Plan((*starts, n), int(sum(sizes)), pooled)


def encoded_shards(
    data: DataModule, split: str, encode: Encode, plan: Plan, numbers: Iterator[int], dtype: torch.dtype
) -> Iterator[tuple[int, Callable[[], Shard]]]:
    """Runs the encoder over the items of some shards.

    Args:
        data: whose items they are.
        split: of the data.
        encode: runs the encoder.
        plan: of the shards.
        numbers: which of them; drawn one by one, in time for the loader.
        dtype: of the features.

    Yields:
        Number, and what puts the shard together, once, in any thread; one without items where none could be read.
    """
    begun: deque[tuple[int, int]] = deque()
    lengths = data.lengths(split)

    def batches() -> Iterator[list[Key]]:
        for number in numbers:
            items = plan.items(number)
            some = None if lengths is None else lengths[items.start : items.stop]
            made = EvalSampler(len(items), data.eval_batch_size, some, budget=data.eval_budget).keys
            begun.append((number, len(made)))
            yield from ([(epoch, items.start + i) for epoch, i in batch] for batch in made)

    pieces: list[Tensor] = []
    index: list[int] = []
    done = 0
    read = data.loader(batches(), data.dataset(split), False).all()
    for batch in told(read, f"Encoding {split}", plan.starts[-1], lambda b: 0 if b is None else len(b.index)):
        if batch is not None:
            encoded = encode(batch)
            states, mask = torch.stack(list(encoded.states), 2), encoded.mask.cpu()  # (B, T, S, D)
            values = (states.flatten(0, 1) if mask.all() else states[encoded.mask]).to(dtype).cpu()  # (ΣT, S, D)
            pieces += values.split(mask.sum(1).tolist())
            index += batch.index.tolist()
            del encoded, states, values  # not held beside what the next batch makes
        number, count = begun[0]
        done += 1
        if done == count:
            begun.popleft()
            yield number, partial(_shard, pieces, index, dtype)
            pieces, index, done = [], [], 0


def _shard(pieces: list[Tensor], index: list[int], dtype: torch.dtype) -> Shard:
    """Raises UserError at a number that is too large for `dtype`."""
    order = sorted(range(len(index)), key=index.__getitem__)
    values = torch.cat([pieces[i] for i in order]) if order else torch.zeros(0, 1, 1, dtype=dtype)
    lengths = torch.tensor([len(pieces[i]) for i in order], dtype=torch.int64)
    pieces.clear()
    moments = Moments.of(values)
    if dtype == torch.float16 and not moments.squares.isfinite().all():
        raise UserError("Some features are larger than float16 can hold; take --model.features float32.")
    return Shard(values, lengths, torch.tensor([index[i] for i in order], dtype=torch.int64), moments)


def default_cache() -> Path:
    """`$SSL_SUITE_CACHE`, or `~/.cache/ssl_suite`."""
    return Path(os.environ.get("SSL_SUITE_CACHE") or Path.home() / ".cache" / "ssl_suite")
