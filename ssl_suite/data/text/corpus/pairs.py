"""Pairs of text segments for BERT's and ALBERT's second objectives, drawn anew every epoch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from ssl_suite.core.errors import UserError
from ssl_suite.core.random import uniform
from ssl_suite.data.text.corpus.tokens import TokenFile

SHORT = 0.1
"""Share of pairs made short, so that positions and segments of every length are seen (arXiv:1810.04805, A.2)."""

Ids = NDArray[np.integer]


def split_sentences(text: str) -> list[str]:
    """The lines of a document; where it is one line, its parts up to `.`, `!` or `?` before a space."""
    lines = text.splitlines() if "\n" in text.strip() else re.split(r"(?<=[.!?])\s+", text)
    return [line.strip() for line in lines if line.strip()]


def sentence_stream(documents: Iterable[str]) -> Iterator[str]:
    """All sentences, and an empty one after each document: in a token file, two end tokens in a row."""
    for document in documents:
        yield from split_sentences(document)
        yield ""


class SentencePairs:
    """Cuts a corpus into chunks of a document and makes a pair of each, as a function of its number and seed.

    A chunk begins with a sentence and is split at a random sentence boundary. `nsp`: the second segment is the rest of
    the chunk, or as many tokens from a sentence of another document on. `sop`: the chunk is whole sentences, and its
    two segments are swapped or not. Lengths and cuts are the same under both labels: only content tells them apart.

    Args:
        file: the tokens of `sentence_stream`.
        start: id of [CLS].
        max_length: tokens of [CLS] A [SEP] B [SEP].
        kind: nsp or sop.
        name: of the corpus, for messages.

    Raises:
        UserError: no document has two sentences, or (nsp) there is only one document.
    """

    lengths: list[int] | None = None
    document: NDArray[np.int64] | None = None
    """As of `TokenRows`: rows are drawn anew every epoch, so neither is fixed."""

    def __init__(self, file: TokenFile, start: int, max_length: int, kind: str, name: str) -> None:
        self.tokens, self.start, self.end, self.room, self.kind = file.tokens, start, file.end, max_length - 3, kind
        ends = file.ends()
        places = np.concatenate([[0], ends + 1])[:-1]
        real = ends > places
        self.places = places[real]  # of each sentence in the file
        self.begins = np.concatenate([[0], (ends - places)[real].cumsum()])  # the same, counting no end tokens
        self.belongs = (~real).cumsum()[real]  # of each sentence
        closes = np.flatnonzero(np.diff(self.belongs, append=-1)) + 1
        self.close = np.repeat(closes, np.diff(closes, prepend=0))  # the sentence after each one's document
        self.left = self.begins[self.close] - self.begins[:-1]  # tokens from each sentence to its document's end
        self.by_left = self.left.argsort(kind="stable")
        self.sorted_left = self.left[self.by_left]
        self.chunks = self._chunks()
        if max_length < 8 or not self.chunks:
            raise UserError(
                f"{name} gives no pairs: {kind} needs documents of two sentences or more (a line each), "
                f"and max_length of at least 8 (it is {max_length})."
            )
        firsts = np.unique(self.belongs, return_index=True)[1]
        self.longest = firsts[self.left[firsts].argsort()[::-1][:2]]  # where the two longest documents begin
        if kind == "nsp" and len(self.longest) < 2:
            raise UserError(f"{name} is one document; nsp takes second segments from others: separate them.")

    def _chunks(self) -> list[int]:
        """The first sentence of each chunk. Chunks tile a document; its last begins early enough to be full."""
        chunks, s = [], 0
        while s < len(self.close):
            close = int(self.close[s])
            full = int(np.searchsorted(-self.left[s:close], -self.room, "right"))  # sentences that begin a full chunk
            last = min(s + full, close - 1) - 1
            while s < close - 1:
                chunks.append(s)
                following = self._after(s, self.room)
                s = close if s == last else last if s < last < following else following
            s = close
        return chunks

    def _after(self, first: int, total: int) -> int:
        """The sentence after the last that ends within `total` tokens from `first`; two or more of its document."""
        after = int(np.searchsorted(self.begins, self.begins[first] + total, "right")) - 1
        return min(max(after, first + 2), int(self.close[first]))

    def _mirrored(self, first: int, after: int, total: int) -> tuple[int, int]:
        """The chunk that ends with the sentence that had no room, rather than begins after the one before it.

        That sentence is longer than most: always at one side, it would make lengths tell the order.
        """
        after = min(after + 1, int(self.close[first]))
        document = int(np.searchsorted(self.belongs, self.belongs[first]))
        begin = int(np.searchsorted(self.begins, self.begins[after] - total))
        return max(min(begin, after - 2), document), after

    def __len__(self) -> int:
        return len(self.chunks)

    def make(self, index: int, seed: int) -> tuple[Ids, Ids, int]:
        """Returns ids and segments (T,) and the label: 0 = the second follows the first, 1 = another one or swapped."""
        short, shorter, where, label, side, *draws = uniform(torch.tensor([seed]), 21, stream=8)[0].tolist()
        total = 2 + int(shorter * (self.room - 1)) if short < SHORT else self.room
        first, broken = self.chunks[index], label >= 0.5
        after = self._after(first, total)
        if self.kind == "sop" and side < 0.5:
            first, after = self._mirrored(first, after, total)
        split = first + 1 + int(where * (after - first - 1))
        begin, middle = int(self.begins[first]), int(self.begins[split])
        if self.kind == "nsp":
            stop = begin + total if middle < begin + total else middle + total // 2
            b = min(self._inside(first, stop, side) - middle, self._elsewhere_most(first))
            a, b = fit(middle - begin, b, total)
            parts = self.read(middle - a, a), self.read(self._elsewhere(first, b, draws) if broken else middle, b)
        else:
            even = total - total % 2  # so that of two long segments the first is not always shorter by one
            a, b = fit(middle - begin, int(self.begins[after]) - middle, even)
            parts = self.read(begin, a), self.read(middle, b)  # both lose their ends, so that neither is marked
            parts = parts[::-1] if broken else parts
        ids = np.concatenate([[self.start], parts[0], [self.end], parts[1], [self.end]])
        return ids, (np.arange(len(ids)) >= len(parts[0]) + 2).astype(np.int64), int(broken)

    def _inside(self, first: int, stop: int, u: float) -> int:
        """Where a chunk stops: at `stop`, or, if its document ends before, somewhere in the last sentence.

        A segment from elsewhere stops anywhere in a sentence; a true one that stopped with its document would show.
        """
        close = int(self.close[first])
        last, finish = int(self.begins[close - 1]), int(self.begins[close])
        return stop if stop < finish else last + 1 + int(u * (finish - last - 1))

    def _elsewhere_most(self, first: int) -> int:
        """Tokens of the longest other document."""
        return max(int(self.left[s]) for s in self.longest if self.belongs[s] != self.belongs[first])

    def _elsewhere(self, first: int, n: int, draws: list[float]) -> int:
        """Place of a sentence of another document, drawn evenly from those with `n` tokens to their document's end."""
        candidates = self.by_left[np.searchsorted(self.sorted_left, n) :]
        for u in draws:
            if self.belongs[s := candidates[int(u * len(candidates))]] != self.belongs[first]:
                return int(self.begins[s])
        others = candidates[self.belongs[candidates] != self.belongs[first]]  # where one document has nearly all
        return int(self.begins[others[int(draws[0] * len(others))]])

    def read(self, begin: int, n: int) -> Ids:
        """The `n` tokens from a place that counts no end tokens."""
        first, last = np.searchsorted(self.begins[:-1], (begin, begin + n - 1), "right") - 1
        place = self.places[first] + begin - self.begins[first]
        ids = np.asarray(self.tokens[place : self.places[last] + begin + n - self.begins[last]])
        return ids[ids != self.end]


def fit(a: int, b: int, total: int) -> tuple[int, int]:
    """Lengths of two segments, the longer cut until both fit into `total`."""
    a = min(a, max(total // 2, total - b))
    return a, min(b, total - a)
