"""Lists of the official layouts with a line lost or damaged in the middle: counted and named, never silently fewer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ssl_suite.core.errors import UserError
from ssl_suite.data.common.source import open_source
from ssl_suite.data.speech.layouts.iemocap import iemocap
from ssl_suite.data.speech.layouts.kaldi import kaldi
from ssl_suite.data.speech.layouts.librispeech import librispeech
from ssl_suite.data.speech.layouts.quesst import quesst14
from ssl_suite.data.speech.layouts.snips import audio_snips
from ssl_suite.data.speech.layouts.voxceleb import voxceleb1
from ssl_suite.data.speech.reading import list_audio

Maker = Callable[..., Path]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_recordings_without_a_transcript_are_counted(tmp_path: Path, sound: Maker) -> None:
    chapter = tmp_path / "train-clean-100/84/121"
    for i in range(4):
        sound(chapter / f"84-121-000{i}.flac", 0.05)
    write(chapter / "84-121.trans.txt", "84-121-0000 GO\n84-121-0003 ON\n")
    with pytest.warns(UserWarning, match=r"train-clean-100: 2 of 4 recordings are in no list .* is 84-121-0001"):
        assert [row["id"] for row in librispeech(tmp_path, "")["train"]] == ["84-121-0000", "84-121-0003"]
    write(chapter / "84-121.trans.txt", "84-121-0000 GO\n84-1\n")
    with pytest.raises(UserError, match=r"trans\.txt, line 2: there is no file"):
        librispeech(tmp_path, "")


def test_recordings_without_slots_are_counted(tmp_path: Path, sound: Maker) -> None:
    said = []
    for split, speaker in {"train": "Ivy", "valid": "Aditi", "test": "Brian"}.items():
        for i in range(2):
            name = f"{speaker}-snips-{split}-{i}"
            sound(tmp_path / split / f"{name}.wav", 0.05)
            said.append(f"{name} BOS play EOS\tO O PlayMusic")
    said[1] = said[1][3:]  # its name has lost its beginning
    write(tmp_path / "all.iob.snips.txt", "\n".join(said) + "\n")
    with pytest.warns(UserWarning, match="train: 1 of 2 recordings are in no list .* is Ivy-snips-train-1"):
        assert len(audio_snips(tmp_path, "")["train"]) == 1


@pytest.mark.parametrize("damaged", ["[1.2 - 2.3]\tSes01F_impro01_F000\tneu", "[1.2 - 2.3]\tSes01F_impro01_F0"])
def test_a_turn_that_is_cut_off_is_named(damaged: str, tmp_path: Path) -> None:
    for session in range(1, 6):
        head = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
        write(tmp_path / f"Session{session}/dialog/EmoEvaluation/Ses0{session}F_impro01.txt", head + damaged + "\n")
    with pytest.raises(UserError, match=r"Ses01F_impro01\.txt, line 3: .* is no turn"):
        iemocap(tmp_path, "")


def test_lines_that_name_no_query_are_counted(tmp_path: Path, sound: Maker) -> None:
    parts = {"utterances": ("Audio", "quesst14"), "dev": ("dev_queries", "quesst14_dev"),
             "eval": ("eval_queries", "quesst14_eval")}  # fmt: skip
    for part, (folder, stem) in parts.items():
        sound(tmp_path / folder / f"{stem}_0000.wav", 0.05)
        write(tmp_path / f"scoring/language_key_{part}.lst", f"quesst14Database/{folder}/{stem}_0000.wav czech\n")
    for part in ("dev", "eval"):
        line = f"LEXEME quesst14_0000 1 0.0 9.9 quesst14_{part}_0000 lex self 0.5\n"
        damaged = ";; comment\nSPEAKER quesst14_0000 1 0 9 <NA> <NA> self <NA>\nLEXEME quesst14_0000 1 0.0\n"
        write(tmp_path / f"scoring/groundtruth_quesst14_{part}/quesst14_{part}.rttm", line + damaged * (part == "dev"))
    with pytest.warns(UserWarning, match=r"1 lines of the list .*quesst14_dev\.rttm, line 4 first"):
        splits = quesst14(tmp_path, "")
    assert [row["occurs"] for row in splits["test"]] == [[], ["quesst14_0000"]]


def test_trials_are_of_one_identity_or_of_two(tmp_path: Path) -> None:
    write(tmp_path / "veri_test.txt", "01 a/b/c.wav a/b/d.wav\n")
    with pytest.raises(UserError, match=r"veri_test\.txt, line 1: .* is no trial"):
        voxceleb1(tmp_path, "verification")


def test_columns_of_kaldi_stand_between_any_blanks_and_lines_end_with_lines(tmp_path: Path, sound: Maker) -> None:
    for name in "ab":
        sound(tmp_path / f"{name}.wav", 0.05)
    write(tmp_path / "wav.scp", "a\ta.wav\nb  b.wav\n")
    write(tmp_path / "text", "a\tgood\u2028morning all\nb \t good night\n")
    write(tmp_path / "utt2spk", "a\tanna\nb bea\n")
    rows = kaldi(tmp_path, "")["train"]
    assert [(row["id"], row["speaker"], row["text"]) for row in rows] == [
        ("a", "anna", "good\u2028morning all"), ("b", "bea", "good night")
    ]  # fmt: skip


def test_recordings_beside_the_tables_that_name_them_are_not_called_unused(
    tmp_path: Path, sound: Maker, recwarn: pytest.WarningsRecorder
) -> None:
    for split in ("train", "test"):
        sound(tmp_path / f"{split}0.wav", 0.05)
        write(tmp_path / f"{split}.csv", f"path,label\n{split}0.wav,a\n")
    assert {split: len(rows) for split, rows in open_source(str(tmp_path), list_audio).items()} == {
        "train": 1,
        "test": 1,
    }
    assert not [w for w in recwarn if "not used" in str(w.message)]
