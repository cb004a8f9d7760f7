"""Words that are tokenised one by one, and where their tags go: on the first piece of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from tokenizers import Encoding, Tokenizer
from torch import Tensor

from ssl_suite.core.batch import IGNORE, Target
from ssl_suite.core.errors import UserError
from ssl_suite.data.common.source import Rows
from ssl_suite.encoders.tokenizer import unknown_token


def expect_words(rows: Rows, index: int, words: Sequence[Any]) -> None:
    """Raises UserError at a word that is empty or no text."""
    for number, word in enumerate(words, 1):
        if not isinstance(word, str) or not word.strip():
            what = "is empty" if word is None or isinstance(word, str) else f"is {word!r}, no text"
            raise UserError(f"{rows.where(index)}: word {number} {what}; mend it.")


def encode_words(tokenizer: Tokenizer, rows: Sequence[Sequence[str]]) -> list[Encoding]:
    """Encodes rows of words, cut as the tokenizer is set to.

    A word that the tokenizer leaves nothing of (a lone control character, say) is read as the unknown token, so that it
    has a place and its tag no other's.
    """
    encodings = tokenizer.encode_batch(list(rows), is_pretokenized=True)
    unknown = unknown_token(tokenizer)
    for i, (row, encoding) in enumerate(zip(rows, encodings, strict=True)):
        there, end = set(encoding.word_ids), reach(encoding, len(row))
        if unknown and (lost := set(range(end)) - there):
            words = [unknown if w in lost else word for w, word in enumerate(row)]
            encodings[i] = tokenizer.encode(words, is_pretokenized=True)
    return encodings


def reach(encoding: Encoding, words: int) -> int:
    """How many of the words lie before the cut."""
    if not encoding.overflowing:
        return words
    return 1 + max((w for w in encoding.word_ids if w is not None), default=-1)


def first_pieces(encoding: Encoding, words: int) -> list[int | None]:
    """Position of each word's first piece; None for a word that is cut off."""
    first: list[int | None] = [None] * words
    for t, word in reversed(list(enumerate(encoding.word_ids))):
        if word is not None:
            first[word] = t
    return first


def place(target: Target, first: Sequence[int | None], length: int) -> Target:
    """Tags at the first pieces of `length` positions, `IGNORE` elsewhere; behind them the tags of words cut off.

    The latter have no position in the sequence, so a task learns nothing from them but counts them as wrong. A target
    of the whole row stays as it is.
    """
    if isinstance(target, dict):
        return {slot: cast(Tensor, place(part, first, length)) for slot, part in target.items()}
    if target.ndim == 0:
        return target
    placed = torch.full((length,), IGNORE)
    at = torch.tensor([-1 if t is None else t for t in first])
    placed[at[at >= 0]] = target[at >= 0]
    return torch.cat([placed, target[at < 0]])
