"""VoiceBank-DEMAND (Valentini-Botinhao et al. 2016): voices in noise, and the same voices alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ssl_suite.core.errors import UserError
from ssl_suite.data.common.files import read_utf8
from ssl_suite.data.common.lists import Splits, options
from ssl_suite.data.speech.layouts.lists import audio, stems

VALIDATION = ("p226", "p287")
"""Speakers of the training set that are for validation, as in SUPERB-SG."""


def voicebank(folder: Path, part: str) -> Splits:
    """Rows of `id`, `audio` (noisy), `clean`, `speaker`, and `text` where the transcripts are there.

    Args:
        folder: with noisy_trainset_28spk_wav, clean_trainset_28spk_wav, noisy_testset_wav and clean_testset_wav, or the
            same called ..._wav_16k.
        part: 56spk for the larger training set; empty: 28spk.
    """
    size = "56spk" if options(part, ("28spk", "56spk"), "voicebank") == {"56spk"} else "28spk"
    train = _set(folder, f"trainset_{size}")
    splits: Splits = {"train": [row for row in train if row["speaker"] not in VALIDATION]}
    splits["validation"] = [row for row in train if row["speaker"] in VALIDATION]
    return splits | {"test": _set(folder, "testset")}


def _set(folder: Path, name: str) -> list[dict[str, Any]]:
    def place(kind: str) -> Path:
        choices = [folder / f"{kind}_{name}_wav{rate}" for rate in ("", "_16k")]
        if not (found := next((choice for choice in choices if choice.is_dir()), None)):
            raise UserError(f"{choices[0]} is not there, so this is no folder of VoiceBank-DEMAND, or not all of it.")
        return found

    noisy, clean, texts = place("noisy"), place("clean"), folder / f"{name}_txt"
    rows = []
    for stem, path in stems(noisy, (".wav",)).items():
        row = {"id": stem, "audio": audio(path, str(noisy)), "clean": audio(clean / path.name, str(path))}
        row |= {"speaker": stem.split("_")[0]}
        if texts.is_dir():
            row["text"] = read_utf8(texts / f"{stem}.txt").strip()
        rows.append(row)
    if not rows:
        raise UserError(f"{noisy} has no recordings.")
    return rows
