"""Rows of a task, each one sequence: a text or a pair of texts, or symbols that are said as words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from pytorch_lightning.utilities import rank_zero_warn
from tokenizers import Encoding, Tokenizer

from ssl_suite.core.batch import Target
from ssl_suite.core.random import run_seed
from ssl_suite.data.common.source import Rows
from ssl_suite.data.text.items import TextItem, TextItems
from ssl_suite.data.text.sequences.symbols import Spelling, Symbols, check_letters, spell, spelling_of
from ssl_suite.data.text.values import expect_texts


class Sequences(TextItems):
    """A text a row, or two, cut at what is read at most; all are encoded once, when the first is read.

    Args:
        rows: of the source.
        columns: of the text, or of the first and the second sequence.
        target: row → its target; None where the split has none.
    """

    words = False
    """Whether a value is a list of words rather than a text."""

    def __init__(self, rows: Rows, columns: Sequence[str], target: Callable[[int], Target] | None = None) -> None:
        self.source, self.columns, self.row_target = rows, columns, target

    def check(self) -> None:
        """Raises UserError at the first row that is not what it should be, before anything is encoded."""
        for column in self.columns:
            expect_texts(self.source, column, self.words)

    def read_with(self, tokenizer: Tokenizer, longest: int) -> None:
        """Settles how the rows are encoded: to at most `longest` tokens each."""
        self.tokenizer, self.longest = tokenizer, longest

    def __len__(self) -> int:
        return len(self.source)

    @property
    def rows(self) -> Sequence[int]:
        return range(len(self))

    @property
    def lengths(self) -> list[float]:
        return [len(item.ids) for item in self.items]

    def read(self, index: int, seed: int) -> TextItem:
        item = self.items[index]
        item.seed = seed
        return item

    def target(self, index: int) -> Target:
        target = self.items[index].target
        assert target is not None
        return target

    @cached_property
    def items(self) -> list[TextItem]:
        """All rows as ids."""
        columns = [self.source.column(column) for column in self.columns]
        self.tokenizer.enable_truncation(self.longest)
        encodings = self.encode(columns)
        self.tokenizer.no_truncation()
        items = [self.item(index, encoding) for index, encoding in enumerate(encodings)]
        if cut := sum(bool(encoding.overflowing) for encoding in encodings):
            rank_zero_warn(
                f"{self.source.name}: {cut} of {len(self)} rows are longer than {self.longest} tokens and were cut."
                + self.loss(items)
            )
        return items

    def encode(self, columns: list[list[Any]]) -> list[Encoding]:
        """The values of each column → an encoding a row."""
        return self.tokenizer.encode_batch(list(zip(*columns, strict=True)) if len(columns) > 1 else columns[0])

    def item(self, index: int, encoding: Encoding) -> TextItem:
        segments = np.asarray(encoding.type_ids) if len(self.columns) > 1 else None
        target = self.row_target(index) if self.row_target is not None else None
        return TextItem(index, 0, np.asarray(encoding.ids), segments, target)

    def loss(self, items: list[TextItem]) -> str:
        """What more a message says of rows that were cut."""
        return ""


class Spelled(Sequences):
    """Rows that are no text, each letter said as a word the encoder knows; as `Sequences`.

    Args:
        rows: of the source.
        columns: of the symbols.
        symbols: letter → word, or the letters alone.
        target: row → its target.
    """

    spelling: Spelling
    """Letter → word, once the tokenizer is settled."""

    def __init__(
        self, rows: Rows, columns: Sequence[str], symbols: Symbols, target: Callable[[int], Target] | None = None
    ) -> None:
        super().__init__(rows, columns, target)
        self.symbols = symbols

    def check(self) -> None:
        super().check()
        for column in self.columns:
            check_letters(self.source, column, self.symbols)

    def read_with(self, tokenizer: Tokenizer, longest: int) -> None:
        self.spelling = spelling_of(self.symbols, tokenizer, run_seed())
        super().read_with(tokenizer, longest)

    def encode(self, columns: list[list[Any]]) -> list[Encoding]:
        said = [[spell(text, self.spelling) for text in column] for column in columns]
        return self.tokenizer.encode_batch(
            list(zip(*said, strict=True)) if len(said) > 1 else said[0], is_pretokenized=True
        )
