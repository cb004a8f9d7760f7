"""Phrases: sentences as lists of words whose phrases and names are known, which ERNIE masks whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError
from ssl_suite.data.common.source import Rows
from ssl_suite.data.text.items import TextItem
from ssl_suite.data.text.sequences.sequences import Sequences
from ssl_suite.data.text.sequences.tagged import TaggedWords
from ssl_suite.data.text.text import Text

Span = tuple[int, int]
"""First word and the one after the last."""


class Phrases(Text):
    """Sentences to pretrain on with `mask: {kind: phrase}`, a row each.

    A row has a list of words and two lists of [first, after] word spans. A source without the lists of spans but with
    universal parts of speech gets them by rule: `noun_phrases` and `names`.

    Args:
        source: where the sentences are.
        column: of the words.
        phrases: column of the phrases' spans.
        entities: column of the entities' spans.
        tags: column of universal parts of speech, where there are no spans.
        options: of `Text`; sentences are not joined.
    """

    knows_phrases = True

    def __init__(
        self,
        source: str,
        column: str = "tokens",
        phrases: str = "phrases",
        entities: str = "entities",
        tags: str = "tags",
        **options: Any,
    ) -> None:
        super().__init__(source, column=column, pack=False, **options)
        self.span_columns, self.tags_column = (phrases, entities), tags

    def sequences(self, split: str, request: Request) -> Sequences:
        if not request.phrases:
            return super().sequences(split, request)
        return PhraseWords(self.rows[split], [self.input_column], self.spans(split))

    def spans(self, split: str) -> list[tuple[list[Span], list[Span]]]:
        """Phrases and entities of each row."""
        rows = self.rows[split]
        words = rows.column(self.input_column)
        if all(c in rows.columns for c in self.span_columns):
            given = list(zip(*(rows.column(c) for c in self.span_columns), strict=True))
            for i, levels in enumerate(given):
                for a, b in (span for level in levels for span in level):
                    if not 0 <= a < b <= len(words[i]):
                        raise UserError(f"{rows.where(i)}: [{a}, {b}] is no span of its {len(words[i])} words.")
            return given
        if self.tags_column not in rows.columns:
            wanted = f"{' and '.join(self.span_columns)} (word spans) or {self.tags_column!r} (parts of speech)"
            raise UserError(f"{rows.name} has no {wanted}; it has {', '.join(rows.columns)}.")
        known = rows.label_names(self.tags_column)
        tags = [[known[t] if known else str(t) for t in row] for row in rows.column(self.tags_column)]
        return [(noun_phrases(t), names(w, t)) for w, t in zip(words, tags, strict=True)]


class PhraseWords(TaggedWords):
    """Lists of words, of which is known where phrases and entities begin.

    Args:
        rows: of the source.
        columns: of the words.
        spans: phrases and entities of each row.
    """

    def __init__(self, rows: Rows, columns: Sequence[str], spans: list[tuple[list[Span], list[Span]]]) -> None:
        super().__init__(rows, columns)
        self.spans = spans

    def item(self, index: int, encoding: Encoding) -> TextItem:
        item = super().item(index, encoding)
        item.phrases = self.begins(index, encoding.word_ids)
        return item

    def begins(self, index: int, words: list[int | None]) -> NDArray[np.bool_]:
        """(2, T): where a phrase and where an entity begins; a word outside them begins one of its own.

        Args:
            index: of the row.
            words: number of each token's word, None for special tokens.
        """
        first = np.array([t == 0 or w is None or words[t - 1] != w for t, w in enumerate(words)])
        inside = [{w for a, b in level for w in range(a + 1, b)} for level in self.spans[index]]
        return np.stack([first & np.array([w not in rest for w in words]) for rest in inside])


def noun_phrases(tags: Sequence[str]) -> list[Span]:
    """Spans of two or more words: determiner, adjectives and numbers, nouns; as far as each is there."""
    spans, i = [], 0
    while i < len(tags):
        start = i
        i += tags[i] == "DET"
        while i < len(tags) and tags[i] in ("ADJ", "NUM"):
            i += 1
        nouns = i
        while i < len(tags) and tags[i] in ("NOUN", "PROPN"):
            i += 1
        if i > nouns and i - start > 1:
            spans.append((start, i))
        i = max(i, start + 1)
    return spans


def names(words: Sequence[str], tags: Sequence[str]) -> list[Span]:
    """Spans of capitalised nouns and the adjectives before them: `New Orleans`, `Fulton County Grand Jury`.

    A sentence's first word counts only with another capitalised one after it.
    """
    capital = [w[:1].isupper() and t in ("NOUN", "PROPN", "ADJ") for w, t in zip(words, tags, strict=True)]
    spans, i = [], 0
    while i < len(words):
        start = i
        while i < len(words) and capital[i]:
            i += 1
        noun = any(t in ("NOUN", "PROPN") for t in tags[start:i])
        if noun and not (start == 0 and i == 1):
            spans.append((start, i))
        i = max(i, start + 1)
    return spans
