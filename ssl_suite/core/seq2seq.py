"""Sequences in, sequences out: the batch of an encoder–decoder, and what makes one of a single sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_suite.core.batch import IGNORE, TextBatch, lengths_to_mask, padded

Ids = NDArray[np.int64]


@dataclass(eq=False, kw_only=True)
class Seq2SeqBatch(TextBatch):
    """Token sequences for an encoder, and what its decoder reads and has to say.

    Attributes:
        decoder: what the decoder reads: position t holds the token before the t-th that is wanted, which stands in
            `target`, (B, U), `IGNORE` where nothing is. Its documents are those of the inputs, one each.
        places: (B, U) where each of the decoder's positions stands; None: one after the other.
        references: what each item's output should be, as text.
    """

    decoder: TextBatch
    places: Tensor | None = None
    references: list[str] = field(default_factory=list)

    @property
    def wanted(self) -> Tensor:
        """(B, U) the tokens that are to be said."""
        assert isinstance(self.decoder.target, Tensor)
        return self.decoder.target


@dataclass(frozen=True, eq=False)
class SequencePair:
    """What an encoder reads and a decoder says, both (T,) and (U,) ids.

    Attributes:
        inputs: with its end token, where the model has one.
        targets: likewise.
        place: where in the inputs the targets begin, for a decoder that keeps their positions; None: from 0.
    """

    inputs: Ids
    targets: Ids
    place: int | None = None


class Corrupt(Protocol):
    """A sequence of ids and a seed → what is read and what is said."""

    def __call__(self, ids: Ids, seed: int) -> SequencePair: ...


class Corruption(Protocol):
    """A way of making such pairs, before it is known which ids a tokenizer gives."""

    @property
    def tokens(self) -> Sequence[str]:
        """Special tokens it puts into sequences, which a tokenizer gets where it has them not."""

    def bind(self, tokenizer: Any) -> Corrupt:
        """The same for one tokenizer."""


@dataclass
class Seq2SeqItem:
    """One item: the pairs of a row, packed behind one another, and where it belongs."""

    index: int
    seed: int
    pairs: list[SequencePair]
    reference: str | None = None


def collate_pairs(items: Sequence[Seq2SeqItem], pad: int, start: int) -> Seq2SeqBatch:
    """Stacks the pairs of all items, padded on the right.

    Args:
        items: of each the pairs lie in one row, each a document of its own.
        pad: id of padding.
        start: id a decoder begins each pair with.
    """
    index, seed = torch.tensor([i.index for i in items]), torch.tensor([i.seed for i in items])
    inputs = [np.concatenate([p.inputs for p in i.pairs]) for i in items]
    wanted = [np.concatenate([p.targets for p in i.pairs]) for i in items]
    given = [np.concatenate([np.append(start, p.targets)[: len(p.targets)] for p in i.pairs]) for i in items]
    packed = any(len(i.pairs) > 1 for i in items)
    shifted = any(p.place is not None for i in items for p in i.pairs)
    numbers = [np.repeat(np.arange(len(i.pairs)), [len(p.inputs) for p in i.pairs]) for i in items]
    said = [np.repeat(np.arange(len(i.pairs)), [len(p.targets) for p in i.pairs]) for i in items]
    stand = [np.concatenate([(p.place or 0) + np.arange(len(p.targets)) for p in i.pairs]) for i in items]
    size, steps = max(map(len, inputs)), max(map(len, wanted))
    lengths, counts = torch.tensor([len(r) for r in inputs]), torch.tensor([len(r) for r in wanted])
    decoder = TextBatch(
        index,
        seed,
        padded(wanted, steps, IGNORE),
        padded(given, steps, pad),
        lengths_to_mask(counts, steps),
        documents=padded(said, steps, 0) if packed else None,
        dense=bool((counts == steps).all()),
    )
    return Seq2SeqBatch(
        index=index,
        seed=seed,
        target=None,
        ids=padded(inputs, size, pad),
        mask=lengths_to_mask(lengths, size),
        documents=padded(numbers, size, 0) if packed else None,
        dense=bool((lengths == size).all()),
        decoder=decoder,
        places=padded(stand, steps, 0) if shifted else None,
        references=[i.reference for i in items if i.reference is not None],
    )
