"""LibriSpeech (Panayotov et al. 2015): read English, with transcripts."""

from __future__ import annotations

from pathlib import Path

from ssl_suite.core.errors import UserError
from ssl_suite.data.common.lists import Splits, lines, options
from ssl_suite.data.common.walk import visible
from ssl_suite.data.speech.layouts.lists import audio, stems, tell_unlisted

SPLIT_OF = {"train": "train", "dev": "validation", "test": "test"}


def librispeech(folder: Path, part: str) -> Splits:
    """Rows of `id`, `audio`, `text`, `speaker` and `chapter`, from SPEAKER/CHAPTER/*.trans.txt.

    Subsets train-* are the training split together; dev-clean is `validation` and dev-other `validation_other`, or, on
    its own, `validation`; test likewise.

    Args:
        folder: with train-clean-100, dev-clean, ... in it.
        part: subsets to read, joined by +; empty: all there are. SUPERB's: train-clean-100+dev-clean+test-clean.
    """
    there = [p.name for p in visible(folder) if p.is_dir() and p.name.partition("-")[0] in SPLIT_OF]
    if not there:
        raise UserError(f"{folder} has no folders train-*, dev-* or test-*, so it is no folder of LibriSpeech.")
    chosen = [name for name in there if name in (options(part, there, "librispeech") or there)]
    splits: Splits = {}
    for name in chosen:
        kind, _, quality = name.partition("-")
        split = SPLIT_OF[kind]
        if quality == "other" and kind != "train" and f"{kind}-clean" in chosen:
            split = f"{split}_other"
        rows = splits.setdefault(split, [])
        for transcripts in sorted((folder / name).glob("*/*/*.trans.txt")):
            for where, line in lines(transcripts):
                identity, _, text = line.partition(" ")
                speaker, chapter, *_ = [*identity.split("-"), ""]
                recording = audio(transcripts.with_name(f"{identity}.flac"), where)
                rows.append({"id": identity, "audio": recording, "text": text, "speaker": speaker, "chapter": chapter})
        if not rows:
            raise UserError(f"{folder / name} has no transcripts SPEAKER/CHAPTER/*.trans.txt.")
        tell_unlisted(stems(folder / name, (".flac",)), [row["id"] for row in rows], folder / name)
    return splits
