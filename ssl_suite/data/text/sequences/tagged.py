"""Rows that are lists of words, with a tag for each."""

from __future__ import annotations

from typing import Any

from tokenizers import Encoding

from ssl_suite.core.batch import tensors_of
from ssl_suite.core.errors import UserError
from ssl_suite.data.text.items import TextItem
from ssl_suite.data.text.sequences.sequences import Sequences
from ssl_suite.data.text.sequences.words import encode_words, expect_words, first_pieces, place
from ssl_suite.data.text.values import texts_of


class TaggedWords(Sequences):
    """Words that are tokenised one by one; the tag of each stands at its first piece."""

    words = True

    def check(self) -> None:
        for column in self.columns:
            for i, words in enumerate(texts_of(self.source, column, words=True)):
                expect_words(self.source, i, words)
        if self.row_target is None:
            return
        for i, words in enumerate(self.source.column(self.columns[0])):
            for tags in tensors_of(self.row_target(i)):
                if tags.ndim and len(words) != (n := len(tags)):
                    where = self.source.where(i)
                    raise UserError(f"{where}: {len(words)} words but {n} tags; each word needs one.")

    def encode(self, columns: list[list[Any]]) -> list[Encoding]:
        return encode_words(self.tokenizer, list(zip(*columns, strict=True)) if len(columns) > 1 else columns[0])

    def item(self, index: int, encoding: Encoding) -> TextItem:
        item = super().item(index, encoding)
        item.first = first_pieces(encoding, len(self.source.column(self.columns[0])[index]))
        if item.target is not None:
            item.target = place(item.target, item.first, len(item.ids))
        return item

    def loss(self, items: list[TextItem]) -> str:
        lost = sum(item.first.count(None) for item in items if item.first)
        return f" The {lost} words cut off are not learned from and count as wrongly tagged." if lost else ""

    def answer(self, index: int, answer: Any) -> Any:
        """The tag of each word, None for one that is cut off."""
        first = self.items[index].first
        return answer if first is None else [None if t is None else answer[t] for t in first]
