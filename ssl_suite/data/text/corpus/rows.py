"""Rows to pretrain on, cut from a token file: blocks of joined documents, or windows of single documents."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_suite.data.text.corpus.tokens import TokenFile

Ids = NDArray[Any]


class TokenRows(ABC):
    """Row i of a split, for any i at any time.

    Args:
        file: the split's tokens.
        length: most tokens a row.
        start: id of the start token.

    Attributes:
        lengths: tokens of each row, or None where all are full.
        document: (rows,) the document each row is of, or None where rows join several.
    """

    lengths: list[int] | None = None
    document: NDArray[np.int64] | None = None

    @abstractmethod
    def __init__(self, file: TokenFile, length: int, start: int) -> None: ...

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> tuple[Ids, Ids | None]:
        """Ids (T,), and which of the row's documents each belongs to, from 0; None where they are taken as one."""


class Blocks(TokenRows):
    """Documents joined and cut every `length − 1` tokens; each block begins with the start token."""

    def __init__(self, file: TokenFile, length: int, start: int) -> None:
        self.tokens, self.step, self.start = file.tokens, length - 1, start

    def __len__(self) -> int:
        return len(self.tokens) // self.step

    def __getitem__(self, index: int) -> tuple[Ids, None]:
        ids = np.empty(self.step + 1, np.int64)
        ids[0] = self.start
        ids[1:] = self.tokens[index * self.step : (index + 1) * self.step]
        return ids, None


class SeparateBlocks(TokenRows):
    """Documents from start to end token, as in fine-tuning, joined and cut every `length` tokens.

    The start tokens are not in the file: with one before each document, document k begins at place
    ends[k − 1] + 1 + k. A block that begins inside a document goes on with it, without a start token of its own.
    """

    def __init__(self, file: TokenFile, length: int, start: int) -> None:
        self.tokens, self.length, self.start = file.tokens, length, start
        ends = file.ends()
        self.starts = np.arange(len(ends))
        self.starts[1:] += ends[:-1] + 1

    def __len__(self) -> int:
        return (len(self.tokens) + len(self.starts)) // self.length

    def __getitem__(self, index: int) -> tuple[Ids, Ids]:
        begin = index * self.length
        first, last = np.searchsorted(self.starts, (begin, begin + self.length))
        begins = np.zeros(self.length, bool)
        begins[self.starts[first:last] - begin] = True
        ids = np.full(self.length, self.start, np.int64)
        ids[~begins] = self.tokens[begin - first : begin + self.length - last]
        documents = np.cumsum(begins)
        return ids, documents - documents[0]


class DocumentPieces(TokenRows):
    """Each document by itself, from start to end token; a longer one takes several rows, each with a start token.

    A piece that would hold nothing but the end token is left out, and so is a document without a token.
    """

    def __init__(self, file: TokenFile, length: int, start: int) -> None:
        self.tokens, self.start, step = file.tokens, start, length - 1
        ends = file.ends()
        begins = np.concatenate([[0], ends[:-1] + 1])[: len(ends)]
        pieces = -(-(ends - begins) // step)  # of the tokens before the end token
        self.document = np.repeat(np.arange(len(ends)), pieces)
        number = np.arange(len(self.document)) - np.repeat(np.cumsum(pieces) - pieces, pieces)  # of the piece
        self.begins = begins[self.document] + number * step
        self.ends = np.minimum(self.begins + step, ends[self.document] + 1)
        self.lengths = (self.ends - self.begins + 1).tolist()
        self.split = int((pieces > 1).sum())
        """Documents that took more than one row."""

    def __len__(self) -> int:
        return len(self.begins)

    def __getitem__(self, index: int) -> tuple[Ids, None]:
        piece = self.tokens[self.begins[index] : self.ends[index]]
        return np.concatenate([[self.start], piece.astype(np.int64)]), None
