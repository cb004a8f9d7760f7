"""Fluent Speech Commands (Lugosch et al. 2019, arXiv:1904.03670): intents of three slots."""

from __future__ import annotations

from pathlib import Path

from ssl_suite.core.errors import UserError
from ssl_suite.data.common.files import read_rows
from ssl_suite.data.common.lists import Splits, options, require
from ssl_suite.data.speech.layouts.lists import audio

FILES = {"train": "train_data.csv", "validation": "valid_data.csv", "test": "test_data.csv"}
SLOTS = ("action", "object", "location")


def fluent(folder: Path, part: str) -> Splits:
    """Rows of `id`, `audio`, `text`, `speaker` and the slots `action`, `object` and `location`.

    Args:
        folder: fluent_speech_commands_dataset, with data/*.csv and wavs/.
        part: empty.
    """
    options(part, (), "fluent")
    splits: Splits = {}
    for split, name in FILES.items():
        table = require(folder / "data" / name, "Fluent Speech Commands")
        rows = splits[split] = []
        for number, row in enumerate(read_rows(table), 1):
            where = f"{table}, row {number}"
            if lacking := [c for c in ("path", "speakerId", "transcription", *SLOTS) if not row.get(c)]:
                raise UserError(f"{where} has no {lacking[0]!r}.")
            rows.append(
                {"id": Path(row["path"]).stem, "audio": audio(folder / row["path"], where)}
                | {"text": row["transcription"], "speaker": row["speakerId"]}
                | {slot: row[slot] for slot in SLOTS}
            )
    return splits
