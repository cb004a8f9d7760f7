"""Speech Commands, version 1 and 2 (Warden 2018, arXiv:1804.03209)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ssl_suite.core.errors import UserError
from ssl_suite.data.common.lists import Splits, lines, options, require
from ssl_suite.data.common.walk import visible
from ssl_suite.data.speech.layouts.lists import audio
from ssl_suite.data.speech.reading import duration

WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
NOISE, SILENCE, UNKNOWN = "_background_noise_", "_silence_", "_unknown_"
SHARES = {"train": (0.0, 0.8), "validation": (0.8, 0.9), "test": (0.9, 1.0)}
"""Which part of each recording of noise is silence of which split."""


def speech_commands(folder: Path, part: str) -> Splits:
    """Rows of `id`, `audio`, `label`, `speaker`, `start` and `end`, split by validation_list.txt and testing_list.txt.

    Twelve classes are the ten words, `_unknown_` for all others, and `_silence_`: the recordings of noise, a second a
    row. Version 1's official test set of twelve classes is a folder of its own: name it with --data.test.

    Args:
        folder: of a version, with a folder a word.
        part: `all` for every word as it is, without silence; empty: twelve classes.
    """
    every = bool(options(part, ("all",), "speech_commands"))
    listed = {
        line: split
        for split, name in (("validation", "validation_list.txt"), ("test", "testing_list.txt"))
        for where, line in lines(require(folder / name, "Speech Commands"))
        if audio(folder / line, where)
    }
    splits: Splits = {"train": [], "validation": [], "test": []}
    for word in (p for p in visible(folder) if p.is_dir() and p.name != NOISE):
        for path in sorted(word.glob("*.wav")):
            name = f"{word.name}/{path.name}"
            label = word.name if every or word.name in WORDS else UNKNOWN
            splits[listed.get(name, "train")].append(_row(name, path, label) | {"speaker": path.name.split("_")[0]})
    if not splits["train"]:
        raise UserError(f"{folder} has no recordings WORD/*.wav, so it is no folder of Speech Commands.")
    if not every:
        for path in sorted(require(folder / NOISE, "Speech Commands").glob("*.wav")):
            seconds = int(duration(_row("", path, "")["audio"]))
            for split, (first, last) in SHARES.items():
                for start in range(round(first * seconds), round(last * seconds)):
                    name = f"{NOISE}/{path.name}:{start}"
                    splits[split].append(_row(name, path, SILENCE) | {"start": start, "end": start + 1})
    return splits


def _row(name: str, path: Path, label: str) -> dict[str, Any]:
    recording = {"bytes": None, "path": str(path)}
    return {"id": name, "audio": recording, "label": label, "speaker": None, "start": None, "end": None}
