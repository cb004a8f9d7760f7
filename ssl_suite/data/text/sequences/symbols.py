"""Symbols: sequences that are no text (DNA, proteins, music), each letter said as a word the encoder knows."""

from __future__ import annotations

import numpy as np
from tokenizers import Tokenizer

from ssl_suite.core.errors import UserError
from ssl_suite.data.common.source import Rows
from ssl_suite.encoders.tokenizer import unknown_token

Spelling = dict[str, str]
"""Letter → word, as arXiv:2103.07162 maps nucleotides to words of BERT: {A: we, C: you, G: he, T: she}."""
Symbols = Spelling | str
"""A spelling, or letters alone ("ACGT"), for each of which a word of the vocabulary is drawn, as in its experiments."""


def spell(text: str, spelling: Spelling) -> list[str]:
    return [spelling[letter] for letter in text]


def check_letters(rows: Rows, column: str, symbols: Symbols) -> None:
    """Raises UserError at the first row with a letter that stands for no word."""
    known = set(symbols)
    for i, text in enumerate(rows.column(column)):
        if unknown := set(text) - known:
            more = "add it to" if isinstance(symbols, str) else "give it a word in"
            raise UserError(f"{rows.where(i)}: {column!r} has the symbol {min(unknown)!r}; {more} data.symbols.")


def spelling_of(symbols: Symbols, tokenizer: Tokenizer, seed: int) -> Spelling:
    """The words that letters are said as, each one token; those of letters alone are drawn by the seed.

    Raises:
        UserError: a letter is not one character, or is there twice; a word is not one token, or the same one as
            another's; or the vocabulary has fewer words than there are letters.
    """
    if isinstance(symbols, str):
        if twice := next((letter for letter in symbols if symbols.count(letter) > 1), None):
            raise UserError(f"symbols: {symbols!r} has {twice!r} twice; name each letter once.")
        return dict(zip(symbols, _drawn(len(symbols), tokenizer, seed), strict=True))
    _check_words(symbols, tokenizer)
    return symbols


def _drawn(count: int, tokenizer: Tokenizer, seed: int) -> list[str]:
    """So many words of two letters or more from the vocabulary, each one token of its own."""
    words: dict[int, str] = {}
    for i in np.random.default_rng(seed).permutation(tokenizer.get_vocab_size()).tolist():
        if len(words) == count:
            break
        word = (tokenizer.id_to_token(i) or "").lstrip("Ġ▁")
        if len(word) > 1 and word.isalpha() and len(ids := _ids(word, tokenizer)) == 1:
            words.setdefault(ids[0], word)
    if len(words) < count:
        raise UserError(f"symbols: there are {count} letters, and the tokenizer has {len(words)} words of one token.")
    return list(words.values())


def _check_words(spelling: Spelling, tokenizer: Tokenizer) -> None:
    unknown = tokenizer.token_to_id(unknown_token(tokenizer) or "")
    seen: dict[int, str] = {}
    for letter, word in spelling.items():
        if len(letter) != 1:
            raise UserError(f"symbols: {letter!r} must be a single character.")
        ids = _ids(word, tokenizer)
        if len(ids) != 1 or ids[0] == unknown:
            raise UserError(
                f"symbols: {letter} is {word!r}, {_pieces(ids, unknown)} of the tokenizer; take a commoner word."
            )
        if ids[0] in seen:
            raise UserError(f"symbols: {seen[ids[0]]} and {letter} are the same token ({word!r}); take another word.")
        seen[ids[0]] = letter


def _ids(word: str, tokenizer: Tokenizer) -> list[int]:
    return tokenizer.encode([word], is_pretokenized=True, add_special_tokens=False).ids


def _pieces(ids: list[int], unknown: int | None) -> str:
    return "which is no token" if unknown in ids or not ids else f"which is {len(ids)} tokens"
