"""What a user learns of recordings before anything is trained on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ssl_suite.core.data import Request
from ssl_suite.core.errors import BadItem, UserError
from ssl_suite.data.speech.reading import measured
from ssl_suite.data.speech.speech import Speech

Maker = Callable[..., Path]
SPEAKERS = {"train": "anna bea cid dan", "validation": "eve eve", "test": "anna dan fay"}


@pytest.fixture
def voices(tmp_path: Path, sound: Maker) -> str:
    for split, speakers in SPEAKERS.items():
        rows = ["path,label,speaker"]
        for i, speaker in enumerate(speakers.split()):
            sound(tmp_path / "wavs" / f"{split}{i}.wav", 0.1)
            rows.append(f"wavs/{split}{i}.wav,{'ab'[i % 2]},{speaker}")
        (tmp_path / f"{split}.csv").write_text("\n".join(rows) + "\n")
    return str(tmp_path)


def test_speakers_of_training_in_another_split_are_counted(voices: str) -> None:
    with pytest.warns(UserWarning, match=r"test\.csv, test: 2 of 3 speakers are in training too \(anna, dan\)") as said:
        Speech(voices).serve(Request(target="class"))
    assert len([w for w in said if "speakers are in training" in str(w.message)]) == 1


def test_a_task_about_speakers_may_share_them(voices: str, recwarn: pytest.WarningsRecorder) -> None:
    same = f"{voices}/train.csv"
    Speech(voices, target="speaker", validation=same, test=same).serve(Request(target="class"))
    Speech(voices).serve(Request())
    assert not [w for w in recwarn if "speakers are in training" in str(w.message)]


def test_a_recording_that_is_cut_short_is_known_by_its_header(voices: str) -> None:
    path = Path(voices) / "wavs/train1.wav"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(BadItem, match=r"train1\.wav is not readable audio \(the last 999 bytes are missing\)"):
        measured({"bytes": None, "path": str(path)}, "")
    with pytest.warns(UserWarning, match=r"train\.csv: 1 of 4 recordings cannot be read; the first is of row 2"):
        Speech(voices).serve(Request(target="class"))


def test_who_forgets_units_is_told_where_they_come_from(voices: str) -> None:
    with pytest.raises(
        UserError, match=r"'label' holds 'a', not .*`ssl-suite prepare units` makes some, --data\.units"
    ):
        Speech(voices).serve(Request(target="frames"))
