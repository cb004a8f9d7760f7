"""N-gram language models from ARPA files, as SRILM, KenLM and LibriSpeech's page give them."""

from __future__ import annotations

import gzip
import math
import re
from collections.abc import Iterator
from pathlib import Path

from ssl_suite.core.errors import UserError
from ssl_suite.core.reading import a_file

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
NEVER = -100.0
"""Log₁₀ probability of an unknown word where the model has none for it."""

Words = tuple[str, ...]


class NGram:
    """A model with back-off (Katz 1987).

    Attributes:
        order: of its longest n-grams.
        words: those it knows.
    """

    def __init__(self, grams: dict[Words, tuple[float, float]]) -> None:
        """Takes n-gram → (log₁₀ probability, log₁₀ back-off weight)."""
        self._grams = grams
        self.order = max(map(len, grams))
        self.words = {gram[0] for gram in grams if len(gram) == 1}
        self.start: Words = (BEGIN,) if self.order > 1 else ()

    def score(self, history: Words, word: str) -> tuple[float, Words]:
        """Natural log probability of a word after others, and the history of the next one."""
        known = word if word in self.words else UNKNOWN
        total, context = 0.0, history
        while True:
            gram = (*context, known)
            if gram in self._grams:
                total += self._grams[gram][0]
                break
            if not context:
                total += NEVER
                break
            total += self._grams.get(context, (0.0, 0.0))[1]
            context = context[1:]
        return total * math.log(10), (*history, known)[-(self.order - 1) :] if self.order > 1 else ()


def read_arpa(path: Path) -> NGram:
    """Reads an ARPA file, packed with gzip or not.

    Raises:
        UserError: it is none; names the line.
    """
    grams: dict[Words, tuple[float, float]] = {}
    order = 0
    for number, line in enumerate(_lines(path), 1):
        if section := re.fullmatch(r"\\(\d+)-grams:", line):
            order = int(section[1])
        elif line == "\\end\\":
            break
        elif order and line:
            probability, *rest = line.split()
            try:
                back_off = float(rest[order]) if len(rest) > order else 0.0
                grams[tuple(rest[:order])] = float(probability), back_off
            except ValueError:
                rest = []
            if not order <= len(rest) <= order + 1:
                raise UserError(f"{path}, line {number}: {line[:60]!r} is no n-gram of {order} words.")
    else:
        raise UserError(f"{path} is no whole ARPA file: it has no line \\end\\.")
    if not grams:
        raise UserError(f"{path} holds no n-gram.")
    return NGram(grams)


def _lines(path: Path) -> Iterator[str]:
    open_ = gzip.open if path.suffix == ".gz" else open
    try:
        with open_(a_file(path), "rt", encoding="utf-8") as file:
            yield from (line.strip() for line in file)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text ({error}).") from None
