"""Rows of a corpus as pairs: what is left of them, and what is to be said."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ssl_suite.core.batch import Target
from ssl_suite.core.errors import UserError
from ssl_suite.core.random import item_seed
from ssl_suite.core.seq2seq import Corrupt, Seq2SeqItem
from ssl_suite.data.text.corpus.corpus import Corpus


class Corrupted:
    """The rows of a corpus, corrupted anew every epoch; of documents kept apart in a row each by itself.

    Args:
        corpus: whose rows begin with a start token.
        corrupt: makes a pair of ids without start and end.
    """

    def __init__(self, corpus: Corpus, corrupt: Corrupt) -> None:
        self.corpus, self.corrupt, self.file, self.rows = corpus, corrupt, corpus.file, corpus.rows
        self.lengths: Sequence[float] | None = corpus.lengths
        self.start, self.end = corpus.start, corpus.file.end

    def __len__(self) -> int:
        return len(self.corpus)

    def read(self, index: int, seed: int) -> Seq2SeqItem:
        item = self.corpus.read(index, seed)
        cuts = [] if item.documents is None else (np.flatnonzero(np.diff(item.documents)) + 1).tolist()
        bodies = [self._body(piece) for piece in np.split(item.ids, cuts)]
        kept = [body for body in bodies if len(body)] or [item.ids]
        seeds = [seed] if len(kept) == 1 else [item_seed(seed, number, index) for number in range(len(kept))]
        return Seq2SeqItem(index, seed, [self.corrupt(body, s) for body, s in zip(kept, seeds, strict=True)])

    def _body(self, ids: np.ndarray) -> np.ndarray:
        """Without the start and the end of a document that it begins or ends with."""
        ids = ids[int(ids[0] == self.start) :]
        return ids[: len(ids) - int(len(ids) > 0 and ids[-1] == self.end)]

    def target(self, index: int) -> Target:
        raise UserError("What an encoder–decoder is to say is drawn anew every epoch; there are no other targets.")

    def answer(self, index: int, answer: object) -> object:
        return answer
