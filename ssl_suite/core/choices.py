"""ChoiceBatch: token sequences of which only the end is scored: the answers of a prompt, the windows of a document."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ssl_suite.core.batch import TextBatch, lengths_to_mask


@dataclass(eq=False, kw_only=True)
class ChoiceBatch(TextBatch):
    """N sequences that belong to B items: `ids` and `mask` are (N, T), `index` and `target` (B,).

    Attributes:
        owner: (N,) the item of this batch each sequence belongs to.
        choice: (N,) which of its item's sequences it is.
        first: (N,) the first scored position; it is predicted from the one before.
        size: (N,) what a score is divided by: characters of an answer, bytes of a document.
        answers: the answers of each item, as text.
    """

    owner: Tensor
    choice: Tensor
    first: Tensor
    size: Tensor
    answers: list[list[str]] = field(default_factory=list)

    @property
    def scored(self) -> Tensor:
        """(N, T) True where a token counts."""
        places = torch.arange(self.ids.shape[1], device=self.ids.device)
        return (places >= self.first[:, None]) & self.mask


@dataclass
class ChoiceItem:
    """One item: its sequences and where each begins to count."""

    index: int
    ids: list[list[int]]
    first: list[int]
    size: list[int]
    target: int | None = None
    answers: list[str] = field(default_factory=list)


def collate_choices(items: list[ChoiceItem], pad: int) -> ChoiceBatch:
    """Stacks all sequences of all items, padded on the right."""
    sequences = [torch.tensor(ids) for item in items for ids in item.ids]
    lengths = torch.tensor([len(s) for s in sequences])
    counts = torch.tensor([len(item.ids) for item in items])
    index = torch.tensor([item.index for item in items])
    targets = [item.target for item in items]
    return ChoiceBatch(
        index=index,
        seed=torch.zeros_like(index),
        target=None if None in targets else torch.tensor(targets),
        ids=torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=pad),
        mask=lengths_to_mask(lengths, int(lengths.max())),
        dense=bool((lengths == lengths[0]).all()),
        owner=torch.arange(len(items)).repeat_interleave(counts),
        choice=torch.cat([torch.arange(n) for n in counts.tolist()]),
        first=torch.tensor([f for item in items for f in item.first]),
        size=torch.tensor([s for item in items for s in item.size]),
        answers=[item.answers for item in items],
    )
