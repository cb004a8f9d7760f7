"""LibriMix (Cosentino et al. 2020, arXiv:2005.11262): mixtures of two or three voices of LibriSpeech."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ssl_suite.core.errors import UserError
from ssl_suite.data.common.files import read_rows
from ssl_suite.data.common.lists import Splits, options, require
from ssl_suite.data.speech.layouts.lists import audio

MODES, MIXTURES, TRAINS = ("min", "max"), ("mix_both", "mix_clean", "mix_single"), ("train-100", "train-360")


def librimix(folder: Path, part: str) -> Splits:
    """Rows of `id`, `audio` (the mixture), `s1`, `s2` (and `s3`), `noise` where there is some, `speakers`, `seconds`;
    and `voices`, a list of s1, s2 (and s3), of which Diarize learns who is heard when.

    Which mixtures there are is read in the metadata; the files lie beside it, wherever they were made.

    Args:
        folder: Libri2Mix or Libri3Mix, with wav16k/ (or wav8k/).
        part: any of `min` (as long as the shortest voice; the default) or `max`, `mix_both` (voices and noise; the
            default), `mix_clean` or `mix_single`, `train-100` (the default) or `train-360`, joined by +.
    """
    chosen = options(part, (*MODES, *MIXTURES, *TRAINS), "librimix")

    def one(choices: tuple[str, ...]) -> str:
        found = [choice for choice in choices if choice in chosen] or [choices[0]]
        if len(found) > 1:
            raise UserError(f"The layout librimix is read as {' or '.join(found)}, not as both.")
        return found[0]

    mixture = one(MIXTURES)
    rate = 16000 if (folder / "wav16k").is_dir() else 8000
    place = require(folder / f"wav{rate // 1000}k", "LibriMix") / one(MODES)
    subsets = {"train": one(TRAINS), "validation": "dev", "test": "test"}
    return {split: _subset(place, subset, mixture, rate) for split, subset in subsets.items()}


def _subset(place: Path, subset: str, mixture: str, rate: int) -> list[dict[str, Any]]:
    table = require(place / "metadata" / f"mixture_{subset}_{mixture}.csv", "LibriMix")
    rows = []
    for number, row in enumerate(read_rows(table), 1):
        where, name = f"{table}, row {number}", row.get("mixture_ID")
        if not name or not str(row.get("length")).isdigit():
            raise UserError(f"{where} has no mixture_ID or no length in samples.")
        voices = [f"s{n}" for n in range(1, 4) if f"source_{n}_path" in row]
        noise = ["noise"] if row.get("noise_path") and (place / subset / "noise").is_dir() else []
        files = {v: audio(place / subset / v / f"{name}.wav", where) for v in (*voices, *noise)}
        recording = audio(place / subset / mixture / f"{name}.wav", where)
        speakers = [voice.split("-")[0] for voice in name.split("_")]
        seconds = int(row["length"]) / rate
        who = {"voices": [files[voice] for voice in voices], "speakers": speakers}
        rows.append({"id": name, "audio": recording, **files, **who, "seconds": seconds})
    return rows
