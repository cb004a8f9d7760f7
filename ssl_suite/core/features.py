"""Frozen features: computed once for a split, kept in memory and on disk, served like any other data."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from ssl_suite.core.batch import IGNORE, Batch, lengths_to_mask
from ssl_suite.core.encoder import Encoded
from ssl_suite.core.errors import UserError
from ssl_suite.core.files import replacing
from ssl_suite.core.sampler import Key


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
    """One split's features, flat over items; fetched a whole batch at a time.

    Attributes:
        values: (ΣT, S, D) states of all items one after the other.
        lengths: (N,) T of each item.
        index: (N,) position of each item in its split.
        targets: N targets, or empty.
    """

    def __init__(self, values: Tensor, lengths: Tensor, index: Tensor, targets: list[Tensor]) -> None:
        self.values, self.lengths, self.index, self.targets = values, lengths, index, targets
        self.starts = lengths.cumsum(0) - lengths
        self.pooled = bool((lengths == 1).all())

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitems__(self, keys: list[Key]) -> FeatureBatch:
        rows = torch.tensor([i for _, i in keys])
        if self.pooled:
            values = self.values[rows, :, None]
            mask = torch.ones(len(rows), 1, dtype=torch.bool)
        else:
            pieces = [self.values[self.starts[i] : self.starts[i] + self.lengths[i]] for i in rows.tolist()]
            values = pad_sequence(pieces, batch_first=True).transpose(1, 2)
            mask = lengths_to_mask(self.lengths[rows], values.shape[2])
        target = pad_targets([self.targets[i] for i in rows.tolist()]) if self.targets else None
        return FeatureBatch(self.index[rows], torch.zeros_like(rows), target, values, mask)


def pad_targets(targets: list[Tensor]) -> Tensor:
    """Stacks scalars, pads sequences with `IGNORE`."""
    if targets[0].ndim == 0:
        return torch.stack(targets)
    return pad_sequence(targets, batch_first=True, padding_value=IGNORE)


def compute(batches: Iterable[Batch], encode: Callable[[Batch], Encoded]) -> dict[str, Tensor]:
    """Runs a frozen encoder over a split.

    Args:
        batches: of the split, any order.
        encode: batch → the selected states, on any device.

    Returns:
        `values` (ΣT, S, D), `lengths` (N,) and `index` (N,), on the host, in the order of `index`.
    """
    pieces, index = [], []
    for batch in batches:
        encoded = encode(batch)
        states = torch.stack(list(encoded.states), 2).float().cpu()  # (B, T, S, D)
        pieces += [state[keep] for state, keep in zip(states, encoded.mask.cpu(), strict=True)]
        index.append(batch.index.cpu())
    if not pieces:
        raise UserError("No input is left to compute features of; every one was skipped as unreadable.")
    order = torch.cat(index).argsort()
    ordered = [pieces[i] for i in order.tolist()]
    lengths = torch.tensor([len(p) for p in ordered])
    return {"values": torch.cat(ordered), "lengths": lengths, "index": torch.cat(index)[order]}


_memory: dict[str, dict[str, Tensor]] = {}
_MEMORY_ITEMS = 12


def cached(key: str, make: Callable[[], dict[str, Tensor]], folder: Path | None) -> dict[str, Tensor]:
    """Returns what `make` made for this key, from memory or disk where it was made before."""
    if key not in _memory:
        path = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.safetensors" if folder else None
        tensors = _read(path) if path else None
        if tensors is None:
            tensors = make()
            if path:
                with replacing(path) as temporary:
                    save_file(tensors, str(temporary))
        while len(_memory) >= _MEMORY_ITEMS:
            _memory.pop(next(iter(_memory)))
        _memory[key] = tensors
    return _memory[key]


def _read(path: Path) -> dict[str, Tensor] | None:
    try:
        return load_file(str(path)) if path.exists() else None
    except (SafetensorError, OSError):  # a damaged cache is made again
        return None


def default_cache() -> Path:
    """`$SSL_SUITE_CACHE`, or `~/.cache/ssl_suite`."""
    return Path(os.environ.get("SSL_SUITE_CACHE") or Path.home() / ".cache" / "ssl_suite")
