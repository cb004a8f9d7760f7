"""Words in their sentences, and the states an encoder gives each: the mean over its pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_suite.analysis.states import spread
from ssl_suite.core.batch import TextBatch
from ssl_suite.core.encoder import Encoder, expect
from ssl_suite.core.errors import UserError
from ssl_suite.data.common.layout import SPLIT_OF
from ssl_suite.data.common.source import open_source
from ssl_suite.data.text.items import TextItem, collate
from ssl_suite.data.text.listing import list_text
from ssl_suite.data.text.sequences.words import encode_words

LONGEST = 60
"""Words of a sentence; longer ones are passed over."""
BATCH = 64


@dataclass(frozen=True)
class Sentences:
    """Sentences as lists of words.

    Attributes:
        words: of each.
        labels: of each sentence, or of each of its words; empty without any.
    """

    words: list[list[str]]
    labels: list[Any]

    @property
    def tagged(self) -> bool:
        """Whether a label is a word's, not a sentence's."""
        return bool(self.labels) and isinstance(self.labels[0], list)


def read_sentences(source: str, column: str, target: str | None, split: str, wanted: int) -> Sentences:
    """At most `wanted` sentences, evenly over a split.

    Args:
        source: samples:NAME, a file or a folder, as data modules take it.
        column: of lists of words, or of texts, whose words stand between blanks.
        target: of a label a sentence, or of a list with one a word; None: none.
        split: of the source.
        wanted: how many.

    Raises:
        UserError: the source has no such column or split.
    """
    opened, split = open_source(source, list_text, column), SPLIT_OF.get(split, split)
    if split not in opened:
        raise UserError(f"{source} has no {split} split; it has: {', '.join(opened)}.")
    rows = opened[split]
    for name in filter(None, (column, target)):
        rows.expect(name)
    words = [text if isinstance(text, list) else str(text).split() for text in rows.column(column)]
    fitting = [i for i, row in enumerate(words) if 0 < len(row) <= LONGEST]
    chosen = [fitting[i] for i in spread(len(fitting), wanted)]
    if not chosen:
        raise UserError(f"{source}, {split}: no row of {column!r} has 1 to {LONGEST} words.")
    values, known = (rows.column(target), rows.label_names(target)) if target else ([], None)
    labels = [values[i] for i in chosen] if target else []
    if known:
        labels = [[known[t] for t in value] if isinstance(value, list) else known[value] for value in labels]
    return Sentences([words[i] for i in chosen], labels)


class Reader:
    """Runs a text encoder over sentences.

    Args:
        encoder: with its tokenizer.

    Raises:
        UserError: it reads no text, or has no tokenizer.
    """

    def __init__(self, encoder: Encoder) -> None:
        expect(encoder, "text", "This analysis")
        if encoder.tokenizer is None:
            raise UserError(f"This {type(encoder).__name__} has no tokenizer, so that it cannot read words.")
        self.encoder, self.tokenizer = encoder.eval(), encoder.tokenizer
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.device = next(encoder.parameters(), torch.empty(0)).device

    def encode(self, sentences: Sequence[Sequence[str]]) -> tuple[list[list[int]], list[list[int | None]]]:
        """Ids of each sentence, and to which of its words each id belongs.

        Raises:
            UserError: a sentence is longer than the encoder reads.
        """
        encodings = encode_words(self.tokenizer, sentences)
        longest = max((len(e.ids) for e in encodings), default=0)
        if self.encoder.longest is not None and longest > self.encoder.longest:
            raise UserError(f"A sentence has {longest} tokens, the encoder reads {self.encoder.longest}; shorten it.")
        return [e.ids for e in encodings], [e.word_ids for e in encodings]

    def fitting(self, sentences: Sentences) -> Sentences:
        """Those that the encoder can read whole."""
        longest = self.encoder.longest
        if longest is None:
            return sentences
        kept = [i for i, e in enumerate(encode_words(self.tokenizer, sentences.words)) if len(e.ids) <= longest]
        labels = [sentences.labels[i] for i in kept] if sentences.labels else []
        return Sentences([sentences.words[i] for i in kept], labels)

    def batch(self, ids: Sequence[Sequence[int]]) -> TextBatch:
        items = [TextItem(i, 0, np.asarray(row), None, None) for i, row in enumerate(ids)]
        return collate(items, self.tokenizer).to(self.device)

    def words(self, sentences: Sequence[Sequence[str]]) -> list[Tensor]:
        """For each state of the encoder (W, D), on the host: every word of every sentence, in their order."""
        totals, pieces = self._sums(sentences)
        return [total / pieces.clamp(min=1) for total in totals]

    def token_means(self, sentences: Sequence[Sequence[str]]) -> list[Tensor]:
        """For each state (D,): the mean over all tokens of all sentences but special ones, however words are told."""
        totals, pieces = self._sums(sentences)
        return [total.sum(0) / pieces.sum() for total in totals]

    @torch.no_grad()
    def _sums(self, sentences: Sequence[Sequence[str]]) -> tuple[list[Tensor], Tensor]:
        """Of every word: in each state (W, D) the sum over its pieces, and (W, 1) how many they are."""
        ids, owners = self.encode(sentences)
        starts = np.cumsum([0, *map(len, sentences)])
        made = [torch.zeros(int(starts[-1]), d) for d in self.encoder.widths]
        pieces = torch.zeros(int(starts[-1]), 1)
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        for first in range(0, len(order), BATCH):
            part = order[first : first + BATCH]
            states = self.encoder(self.batch([ids[i] for i in part])).states
            places = [
                (b, t, int(starts[i]) + word)
                for b, i in enumerate(part)
                for t, word in enumerate(owners[i])
                if word is not None
            ]
            rows, columns, words = torch.tensor(places).T
            for total, state in zip(made, states, strict=True):
                total.index_add_(0, words, state.float().cpu()[rows, columns])
            pieces.index_add_(0, words, torch.ones(len(words), 1))
        return made, pieces

    def sentences(self, sentences: Sequence[Sequence[str]]) -> list[Tensor]:
        """For each state (N, D): the mean over the words of each sentence."""
        owner = torch.arange(len(sentences)).repeat_interleave(torch.tensor([len(s) for s in sentences]))
        count = torch.tensor([[float(len(s))] for s in sentences])
        zeros = (torch.zeros(len(sentences), d) for d in self.encoder.widths)
        return [z.index_add_(0, owner, words) / count for z, words in zip(zeros, self.words(sentences), strict=True)]
