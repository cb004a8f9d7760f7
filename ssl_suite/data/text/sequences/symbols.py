"""Symbols: sequences that are no text (DNA, proteins, music), each letter said as a word the encoder knows."""

from __future__ import annotations

from tokenizers import Tokenizer

from ssl_suite.core.errors import UserError
from ssl_suite.data.common.source import Rows

Symbols = dict[str, str]
"""Letter → word, as arXiv:2103.07162 maps nucleotides to words of BERT: {A: we, C: you, G: he, T: she}."""


def spell(text: str, symbols: Symbols) -> list[str]:
    return [symbols[letter] for letter in text]


def check_letters(rows: Rows, column: str, symbols: Symbols) -> None:
    """Raises UserError at the first row with a letter that stands for no word."""
    known = set(symbols)
    for i, text in enumerate(rows.column(column)):
        if unknown := set(text) - known:
            raise UserError(
                f"{rows.where(i)}: {column!r} has the symbol {min(unknown)!r}; give it a word in data.symbols."
            )


def check_words(tokenizer: Tokenizer, symbols: Symbols) -> None:
    """Raises UserError unless every word is one token, and no two are the same one."""
    seen: dict[int, str] = {}
    for letter, word in symbols.items():
        if len(letter) != 1:
            raise UserError(f"symbols: {letter!r} must be a single character.")
        ids = tokenizer.encode([word], is_pretokenized=True, add_special_tokens=False).ids
        unknown = tokenizer.token_to_id("[UNK]")
        if len(ids) != 1 or ids[0] == unknown:
            raise UserError(
                f"symbols: {letter} is {word!r}, {_pieces(ids, unknown)} of the tokenizer; take a commoner word."
            )
        if ids[0] in seen:
            raise UserError(f"symbols: {seen[ids[0]]} and {letter} are the same token ({word!r}); take another word.")
        seen[ids[0]] = letter


def _pieces(ids: list[int], unknown: int | None) -> str:
    return "which is no token" if unknown in ids or not ids else f"which is {len(ids)} tokens"
