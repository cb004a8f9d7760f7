"""QUESST 2014 (Anguera et al. 2014): queries by example, in six languages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_warn

from ssl_suite.core.errors import UserError
from ssl_suite.data.common.lists import Splits, lines, options, require
from ssl_suite.data.speech.layouts.lists import audio

SETS = {"validation": "dev", "test": "eval"}
LANGUAGES = ("albanian", "basque", "czech", "nnenglish", "romanian", "slovak")
OTHERS = (";;", "SPEAKER", "SPKR-INFO", "SEGMENT", "NO", "FILLER", "EDIT", "IP", "SU", "CB", "A/P")
"""What other lines of an RTTM begin with."""
FOUND = re.compile(r"LEXEME\s+(?P<utterance>\S+)\s.*\s(?P<query>quesst14_(dev|eval)_\w+)")


def quesst14(folder: Path, part: str) -> Splits:
    """Rows of `id`, `audio`, `language`, `role` (`utterance` or `query`) and `occurs`: of a
    query, the utterances it is in.

    Validation is all utterances and the queries of dev, test the same utterances and the queries of eval.

    Args:
        folder: quesst14Database, with Audio/, dev_queries/, eval_queries/ and scoring/.
        part: languages to read, joined by +; empty: all. SUPERB's: nnenglish.
    """
    chosen = options(part, LANGUAGES, "quesst14") or set(LANGUAGES)

    def rows(name: str, role: str, occurs: dict[str, list[str]]) -> list[dict[str, Any]]:
        found = []
        for where, line in lines(require(folder / "scoring" / f"language_key_{name}.lst", "QUESST 2014")):
            place, _, language = line.partition(" ")
            path = folder / place.partition("/")[2]  # the list begins at the folder's own name
            if language.strip() in chosen:
                row: dict[str, Any] = {
                    "id": path.stem,
                    "audio": audio(path, where),
                    "language": language.strip(),
                    "role": role,
                }
                found.append(row | {"occurs": occurs.get(path.stem, [])})
        return found

    utterances = rows("utterances", "utterance", {})
    there = {row["id"] for row in utterances}
    splits: Splits = {}
    for split, name in SETS.items():
        occurs: dict[str, list[str]] = {}
        odd: list[str] = []
        table = require(folder / f"scoring/groundtruth_quesst14_{name}/quesst14_{name}.rttm", "QUESST 2014")
        for where, line in lines(table):
            if (found := FOUND.match(line)) and found["utterance"] in there:
                occurs.setdefault(found["query"], []).append(found["utterance"])
            elif found is None and not line.startswith(OTHERS):
                odd.append(where)
        if odd:
            rank_zero_warn(
                f"{len(odd)} lines of the list do not say which query is in which utterance: {odd[0]} first."
            )
        queries = rows(name, "query", occurs)
        if not queries or not utterances:
            raise UserError(f"{folder} has no utterances or no queries of {', '.join(sorted(chosen))}.")
        splits[split] = [*utterances, *queries]
    return splits
