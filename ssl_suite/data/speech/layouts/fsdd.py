"""Free Spoken Digit Dataset (Jackson et al.): ten digits of English by a few speakers, 50 takes each."""

from __future__ import annotations

import re
from pathlib import Path

from ssl_suite.core.errors import UserError
from ssl_suite.data.common.lists import Splits, options
from ssl_suite.data.common.walk import visible

NAME = re.compile(r"(?P<label>\d)_(?P<speaker>[^_]+)_(?P<take>\d+)\.wav")
TAKES = {"test": range(5), "validation": range(5, 10)}
"""The data set's own test set, and as many for validation."""


def fsdd(folder: Path, part: str) -> Splits:
    """Rows of `id`, `audio`, `label` (the digit), `speaker` and `take`, of files DIGIT_SPEAKER_TAKE.wav.

    Args:
        folder: with the recordings, or with recordings/.
        part: a speaker, who alone is tested, the next one being for validation; empty: takes 0 to 4 of everyone are
            tested, 5 to 9 for validation.
    """
    place = folder / "recordings" if (folder / "recordings").is_dir() else folder
    found = [(path, match) for path in visible(place) if (match := NAME.fullmatch(path.name))]
    if not found:
        raise UserError(f"{folder} has no recordings DIGIT_SPEAKER_TAKE.wav, so it is no folder of fsdd.")
    speakers = sorted({match["speaker"] for _, match in found})
    tested = sorted(options(part, speakers, "fsdd"))
    if len(tested) > 1 or (tested and len(speakers) < 3):
        raise UserError(f"The layout fsdd tests one of three speakers or more, not {' and '.join(tested)}.")
    held = {}
    if tested:
        following = speakers[(speakers.index(tested[0]) + 1) % len(speakers)]
        held = {tested[0]: "test", following: "validation"}
    splits: Splits = {"train": [], "validation": [], "test": []}
    for path, match in found:
        take = next((split for split, takes in TAKES.items() if int(match["take"]) in takes), "train")
        split = held.get(match["speaker"], "train") if tested else take
        row = {"id": path.name, "audio": {"bytes": None, "path": str(path)}, **match.groupdict()}
        splits[split].append(row)
    return splits
