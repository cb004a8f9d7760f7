"""IEMOCAP (Busso et al. 2008): emotions of five dyadic sessions, each a fold."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ssl_suite.core.errors import UserError
from ssl_suite.data.common.lists import Splits, lines, options, require
from ssl_suite.data.speech.layouts.lists import audio

EMOTIONS = {"neu": "neutral", "hap": "happy", "exc": "happy", "ang": "angry", "sad": "sad"}
"""The four classes of SUPERB's ER, excitement being happiness."""
TURN = re.compile(r"\[[\d.]+ - [\d.]+\]\t(?P<id>\w+)\t(?P<emotion>\w+)\t\[.*\]")
SESSIONS = range(1, 6)
HELD = 5
"""SUPERB validates on one in so many utterances of the training sessions."""


def iemocap(folder: Path, part: str) -> Splits:
    """Rows of `id`, `audio`, `label`, `speaker` and `session`, of the turns of four emotions.

    Args:
        folder: IEMOCAP_full_release, with Session1 to Session5.
        part: 1 to 5, the fold: the session that is tested; empty: 1. Validation is the next session, whose speakers
            are not trained on; with `superb`, as in 1/superb, a fifth of the training sessions, whose speakers are.
    """
    chosen = options(part, [*map(str, SESSIONS), "superb"], "iemocap")
    folds = sorted(chosen - {"superb"}) or ["1"]
    if len(folds) > 1:
        raise UserError(f"The layout iemocap has one fold at a time, not {' and '.join(folds)}.")
    test, rows = int(folds[0]), {session: _session(folder, session) for session in SESSIONS}
    if "superb" in chosen:
        others = [row for session in SESSIONS if session != test for row in rows[session]]
        train = [row for n, row in enumerate(others) if n % HELD]
        return {"train": train, "validation": others[::HELD], "test": rows[test]}
    following = test % len(SESSIONS) + 1
    train = [row for session in SESSIONS if session not in (test, following) for row in rows[session]]
    return {"train": train, "validation": rows[following], "test": rows[test]}


def _session(folder: Path, number: int) -> list[dict[str, Any]]:
    place, rows = folder / f"Session{number}", []
    for table in sorted(require(place / "dialog" / "EmoEvaluation", "IEMOCAP").glob("*.txt")):
        for where, line in lines(table):
            turn = TURN.fullmatch(line)
            if turn is None and line.startswith("["):
                raise UserError(
                    f"{where}: {line[:60]!r} is no turn: [START - END], its name, its emotion and [V, A, D]."
                )
            if turn and turn["emotion"] in EMOTIONS:
                name = turn["id"]
                dialogue, _, last = name.rpartition("_")
                recording = audio(place / "sentences" / "wav" / dialogue / f"{name}.wav", where)
                rows.append(
                    {"id": name, "audio": recording, "label": EMOTIONS[turn["emotion"]]}
                    | {"speaker": f"{number}{last[0]}", "session": str(number)}
                )
    if not rows:
        raise UserError(f"{place} has no turns of {', '.join(EMOTIONS)} in dialog/EmoEvaluation/*.txt.")
    return rows
