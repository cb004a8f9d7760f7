"""TextItem, one sequence as it is read; the items of a split; and the batch that is made of some."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ssl_suite.core.batch import Target, TextBatch, lengths_to_mask, padded, stacked
from ssl_suite.encoders.tokenizer import token_id


@dataclass
class TextItem:
    """One sequence: ids, segments and documents (T,), and where it belongs; the first piece of each tagged word."""

    index: int
    seed: int
    ids: NDArray[Any]
    segments: NDArray[Any] | None
    target: Target | None
    documents: NDArray[Any] | None = None
    pair: int | None = None
    phrases: NDArray[Any] | None = None
    first: list[int | None] | None = None


class TextItems(ABC):
    """The items of one split."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, index: int, seed: int) -> TextItem:
        """Item `index`; what is drawn of it follows from the seed."""

    @property
    @abstractmethod
    def lengths(self) -> Sequence[float] | None:
        """Tokens of each item; None where all are equal."""

    @property
    @abstractmethod
    def rows(self) -> Sequence[int] | None:
        """The row of the source that each item is of; None where items join several."""

    @abstractmethod
    def target(self, index: int) -> Target:
        """Of an item, where the split has targets."""

    def answer(self, index: int, answer: Any) -> Any:
        """What `predict` writes of a task's answer on an item."""
        return answer


def collate(items: list[TextItem], tokenizer: Tokenizer) -> TextBatch:
    """Pads items to the longest of them."""
    lengths = torch.tensor([len(i.ids) for i in items])
    longest = int(lengths.max())
    ids = padded([i.ids for i in items], longest, token_id(tokenizer, "pad"))
    segments = padded([i.segments for i in items if i.segments is not None], longest, 0)
    documents = padded([i.documents for i in items if i.documents is not None], longest, 0)
    phrases = [np.pad(i.phrases, ((0, 0), (0, longest - len(i.ids)))) for i in items if i.phrases is not None]
    return TextBatch(
        torch.tensor([i.index for i in items]),
        torch.tensor([i.seed for i in items]),
        stacked([i.target for i in items if i.target is not None]),
        ids,
        lengths_to_mask(lengths, longest),
        segments=segments if len(segments) else None,
        documents=documents if len(documents) else None,
        dense=bool((lengths == longest).all()),
        pair=torch.tensor([i.pair for i in items]) if items[0].pair is not None else None,
        phrases=torch.from_numpy(np.stack(phrases)) if phrases else None,
    )
