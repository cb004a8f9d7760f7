"""Tables of utterances: parts of files, lengths that are given, and what is wrong with either, by its row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from ssl_suite.core.data import Request
from ssl_suite.core.errors import BadItem, UserError
from ssl_suite.data.common.source import open_source
from ssl_suite.data.speech import segments
from ssl_suite.data.speech.reading import list_audio
from ssl_suite.data.speech.speech import Speech

Maker = Callable[..., Path]


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """Writes a recording of 5 s at 200 Hz and 5 s at 800 Hz, and a table of it."""
    time = np.arange(5 * 16000) / 16000
    halves = [0.4 * np.sin(2 * np.pi * pitch * time) for pitch in (200, 800)]
    soundfile.write(tmp_path / "long.wav", np.concatenate(halves), 16000)

    def write(text: str) -> Path:
        (tmp_path / "metadata.csv").write_text(text)
        return tmp_path

    return write


def served(folder: Path, request: Request = Request(pretrains=True), **options) -> Speech:
    data = Speech(str(folder), **options)
    data.serve(request)
    return data


def pitches(data: Speech) -> list[float]:
    """Hz of the strongest partial of each utterance."""
    waves = [data.read("train", i, 0).wave for i in range(data.size("train"))]
    return [float(torch.fft.rfft(w).abs().argmax()) * 16000 / len(w) for w in waves]


@pytest.mark.parametrize(
    "text",
    [
        "file_name,start,end,label\nlong.wav,0,5,low\nlong.wav,5,10,high\n",
        "file_name,offset,duration,label\nlong.wav,0,5,low\nlong.wav,5,5,high\n",
        "path,start,end,text,speaker,label\nlong.wav,,5,one,x,low\nlong.wav,5.0,,two,y,high\n",
        "path,start,end,seconds,label\nlong.wav,0,5,5,low\nlong.wav,5,10,5.0,high\n",
        "path,start,label,end\nlong.wav,0,low,5\nlong.wav,5,high,10.04\n",
    ],
)
def test_rows_are_parts_of_a_file(text: str, table: Callable[..., Path]) -> None:
    data = served(table(text), Request(target="class"))
    assert data.lengths("train") == [5.0, 5.0]
    assert pitches(data) == [200, 800]
    assert [data.labels[data.target("train", i)] for i in range(2)] == ["low", "high"]
    batch = next(iter(data.eval_dataloader("train")))
    assert batch.lengths.tolist() == [80000, 80000]


def test_a_file_is_opened_once_and_broken_ones_are_told_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(40):
        soundfile.write(tmp_path / f"{i}.wav", np.zeros(1600 * (1 + i)), 16000)
    (tmp_path / "7.wav").write_text("none")
    lines = [f"{i}.wav,{start},{start + 0.1}" for start in (0, 0.05) for i in range(40)]
    (tmp_path / "metadata.csv").write_text("path,start,end\n" + "\n".join(lines))
    opened: list[str] = []
    measure = segments.duration
    monkeypatch.setattr(segments, "duration", lambda value: opened.append(value["path"]) or measure(value))
    rows = open_source(str(tmp_path), list_audio)["train"]
    with pytest.warns(UserWarning, match=r"2 of 80 recordings cannot be read; the first is of row 8\."):
        found = segments.utterances(rows, "audio")
    assert sorted(opened) == sorted(str(tmp_path / f"{i}.wav") for i in range(40))
    assert [u.seconds for u in found][:8] == pytest.approx([0.1] * 7 + [0])


@pytest.mark.parametrize("columns", ["Start,End", "start_time,end_time", "begin,stop", "tmin,tmax"])
def test_other_names_of_start_and_end(columns: str, table: Callable[..., Path]) -> None:
    data = served(table(f"path,{columns}\nlong.wav,0,2\nlong.wav,5,9\n"))
    assert [len(data.read("train", i, 0).wave) / 16000 for i in range(2)] == [2, 4]


@pytest.mark.parametrize("columns", ["start_ms,end_ms", "offset_samples,num_samples", "begin_frame,end_frame"])
def test_parts_of_a_file_in_another_unit_are_named(columns: str, table: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=rf"column '{columns.split(',')[0]}' seems to say which part of a file"):
        served(table(f"path,{columns}\nlong.wav,0,2\n"))


def test_segments_have_ids_of_their_own(table: Callable[..., Path]) -> None:
    data = served(table("path,start,end\nlong.wav,0,5\nlong.wav,5,\n"))
    assert data.ids("train") == ["long.wav:0-5", "long.wav:5-"]
    assert served(table("path,start,end,id\nlong.wav,0,5,a\nlong.wav,5,,b\n")).ids("train") == ["a", "b"]


def test_a_duration_without_an_offset_is_not_a_place(table: Callable[..., Path]) -> None:
    """It may be in any unit; the whole file is meant."""
    data = served(table("path,duration\nlong.wav,10000\nlong.wav,0:10\n"))
    assert data.lengths("train") == [10.0, 10.0]


@pytest.mark.parametrize(
    ("columns", "row", "message"),
    [
        ("start,end", "-1,5", "'start' is -1.0, but must be a number at least 0."),
        ("start,end", "x,5", "'start' is 'x', but must be a number at least 0."),
        ("start,end", "inf,5", "'start' is inf, but must be a number at least 0."),
        ("start,end", "0,nan", "'end' is nan, but must be a number above 0."),
        ("start,end", "0,0", "'end' is 0.0, but must be a number above 0."),
        ("start,end", "4,2", "the segment ends at 2 s, but starts at 4 s."),
        ("start,end", "5,11", "the segment 5-11 s is not in its file of 10.00 s."),
        ("start,end", "10,", "the segment 10- s is not in its file of 10.00 s."),
        ("offset,duration", "5,-1", "'duration' is -1.0, but must be a number above 0."),
        ("offset,duration", "5,6", "the segment 5-11 s is not in its file of 10.00 s."),
        ("start,end,seconds", "0,5,7", "'seconds' is 7, but the segment lasts 5.00 s."),
        ("seconds", "-5", "'seconds' is -5.0, but must be a number above 0."),
        ("seconds", "nan", "'seconds' is nan, but must be a number above 0."),
        ("seconds", "ten", "'seconds' is 'ten', but must be a number above 0."),
        ("seconds", "0", "'seconds' is 0.0, but must be a number above 0."),
    ],
)
def test_what_is_no_part_is_refused_with_its_row(
    columns: str, row: str, message: str, table: Callable[..., Path]
) -> None:
    good = {"start,end": "0,5", "offset,duration": "0,5", "start,end,seconds": "0,5,5", "seconds": "10"}[columns]
    folder = table(f"path,{columns}\nlong.wav,{good}\nlong.wav,{row}\n")
    with pytest.raises(UserError) as caught:
        served(folder)
    assert str(caught.value) == f"{folder}, row 2: {message}"


@pytest.mark.parametrize("seconds", ["1", "20", "10000"])
def test_seconds_that_are_not_the_audios_are_refused_with_the_row(seconds: str, table: Callable[..., Path]) -> None:
    folder = table(f"path,seconds\nlong.wav,10.3\nlong.wav,{seconds}\n")
    data = served(folder)
    assert data.lengths("train") == [10.3, min(float(seconds), 15.0)]
    assert len(data.read("train", 0, 0).wave) == 160000
    with pytest.raises(BadItem, match=rf"row 2: 'seconds' is {seconds}, but the audio lasts 10\.00"):
        data.read("train", 1, 0)


def test_an_empty_cell_of_seconds_is_measured(table: Callable[..., Path]) -> None:
    assert served(table("path,seconds\nlong.wav,\nlong.wav,10.2\n")).lengths("train") == [10.0, 10.2]


def test_parts_of_an_unreadable_file_are_named_when_they_are_read(table: Callable[..., Path]) -> None:
    folder = table("path,start,end\nlong.wav,0,5\nbad.wav,1,2\n")
    (folder / "bad.wav").write_text("no audio")
    data = served(folder, on_error="skip")
    [batch] = data.eval_dataloader("train")
    assert batch.index.tolist() == [0]
    with pytest.raises(BadItem, match=r"bad\.wav is not readable audio"):
        data.read("train", 1, 0)


@pytest.mark.parametrize("seconds", [{}, {"seconds": 2.0}, {"start": 0.5}])
def test_a_row_without_audio_is_named(seconds: dict[str, float], tmp_path: Path, sound: Maker) -> None:
    from datasets import Dataset

    good = {"bytes": sound(tmp_path / "a.wav", 2.0).read_bytes(), "path": None}
    rows = [{"audio": audio, **seconds} for audio in (good, None, {"bytes": None, "path": None})]
    Dataset.from_list(rows).to_parquet(tmp_path / "t.parquet")
    data = served(tmp_path / "t.parquet", limit_seconds=1.0)
    assert len(data.read("train", 0, 0).wave) == 32000 - 16000 * seconds.get("start", 0)
    for i in (1, 2):
        with pytest.raises(BadItem, match=rf"t\.parquet, row {i + 1}"):
            data.read("train", i, 0)
