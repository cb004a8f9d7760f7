"""Users' own lists of utterances: Kaldi's folders, NeMo's and Lhotse's JSON lines; what is wrong, by its line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError
from ssl_suite.data.speech.speech import Speech

Maker = Callable[..., Path]


def served(source: str | None, request: Request = Request(pretrains=True), **options: Any) -> Speech:
    data = Speech(source, **options)  # type: ignore[arg-type]
    data.serve(request)
    return data


@pytest.fixture
def kaldi(tmp_path: Path, sound: Maker) -> Callable[..., Path]:
    """Writes files of a folder beside two recordings of 2 s."""
    for name in ("a", "b"):
        sound(tmp_path / f"wav/{name}.wav", 2.0)

    def write(**files: str) -> Path:
        for name, text in {"wav": "rec1 wav/a.wav\nrec2 wav/b.wav\n", **files}.items():
            (tmp_path / ("wav.scp" if name == "wav" else name)).write_text(text)
        return tmp_path

    return write


def test_a_folder_of_kaldi(kaldi: Callable[..., Path]) -> None:
    folder = kaldi(text="rec1 one two\nrec2\tthree\n", utt2spk="rec1 ann\nrec2 bob\n")
    data = served(f"kaldi:{folder}", Request(target="characters"), target="text")
    assert data.ids("train") == ["rec1", "rec2"]
    assert data.rows["train"].column("text") == ["one two", "three"]
    assert data.rows["train"].column("speaker") == ["ann", "bob"]
    assert data.lengths("train") == [2, 2]


def test_a_recording_that_lies_elsewhere_is_seen_to_change(tmp_path: Path, sound: Maker) -> None:
    wave = sound(tmp_path / "elsewhere/a.wav", 1.0)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/wav.scp").write_text(f"rec1 {wave}\n")
    before = served(f"kaldi:{tmp_path / 'data'}").fingerprint("train")
    assert served(f"kaldi:{tmp_path / 'data'}").fingerprint("train") == before
    sound(wave, 1.5)
    assert served(f"kaldi:{tmp_path / 'data'}").fingerprint("train") != before


def test_segments_of_kaldi(kaldi: Callable[..., Path]) -> None:
    segments = "u1 rec1 0.0 0.5\nu2 rec1 0.5 2.0\nu3 rec2 1.25 -1\n"
    folder = kaldi(segments=segments, text="u1 one\nu3 three\nu2 two\n", utt2spk="u1 ann\nu2 ann\nu3 bob\n")
    data = served(f"kaldi:{folder}")
    assert data.ids("train") == ["u1", "u2", "u3"]
    assert data.lengths("train") == [0.5, 1.5, 0.75]
    assert data.rows["train"].column("text") == ["one", "two", "three"]
    assert [len(data.read("train", i, 0).wave) for i in range(3)] == [8000, 24000, 12000]


def test_splits_of_kaldi_and_paths_from_the_working_folder(
    kaldi: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kaldi()
    monkeypatch.chdir(tmp_path)  # where Kaldi's paths begin
    for split in ("train", "dev"):
        (tmp_path / "data" / split).mkdir(parents=True)
        (tmp_path / "data" / split / "wav.scp").write_text("rec1 wav/a.wav\n")
    assert set(served("kaldi:data").splits()) == {"train", "validation"}
    assert set(served(None, train="kaldi:data/train", test="kaldi:data/dev").splits()) == {"train", "test"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"wav": "rec1 sph2pipe -f wav a.sph |\n"},
            r"wav\.scp, line 1: 'sph2pipe .* \|' is a pipe, which is never run",
        ),
        ({"wav": "rec1 none.wav\n"}, r"wav\.scp, line 1: there is no file none\.wav"),
        (
            {"wav": "rec1 wav/a.wav\nrec1 wav/b.wav\n"},
            r"wav\.scp, line 2: 'rec1' is there twice, the first in .*line 1",
        ),
        ({"text": "rec3 hello\n"}, r"text, line 1: there is no utterance 'rec3' in wav\.scp or segments"),
        ({"segments": "u1 rec3 0 1\n"}, r"segments, line 1: there is no recording 'rec3'"),
        ({"segments": "u1 rec1 1.5 0.5\n"}, r"segments, line 1: a segment from 1\.5 s to 0\.5 s is none"),
        ({"segments": "u1 rec1 a b\n"}, r"segments, line 1: 'rec1 a b' is not a recording, its start and its end"),
        ({"segments": "u1 rec1 0.5 7\n"}, r"row 1: the segment 0\.5-7 s is not in its file of 2\.00 s"),
    ],
)
def test_what_is_wrong_in_a_folder_of_kaldi(files: dict[str, str], message: str, kaldi: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=message):
        served(f"kaldi:{kaldi(**files)}")


def test_a_pipe_is_not_run(kaldi: Callable[..., Path], tmp_path: Path) -> None:
    for pipe in (f"touch {tmp_path}/ran |", f"| touch {tmp_path}/ran"):
        with pytest.raises(UserError, match="never run"):
            served(f"kaldi:{kaldi(wav=f'rec1 {pipe}')}")
    assert not (tmp_path / "ran").exists()


def test_overlapping_segments_are_counted(kaldi: Callable[..., Path]) -> None:
    segments = "u1 rec1 0.0 1.0\nu2 rec1 0.5 1.5\nu3 rec2 0 1\nu4 rec1 1.5 2.0\nu5 rec1 0.2 0.4\n"
    with pytest.warns(UserWarning, match="2 segments overlap another of their file; the first is row 2"):
        served(f"kaldi:{kaldi(segments=segments)}")


def test_a_manifest_of_nemo(tmp_path: Path, sound: Maker) -> None:
    sound(tmp_path / "clips/a.wav", 2.0)
    rows = [
        {"audio_filepath": "clips/a.wav", "offset": 0.5, "duration": 1.0, "text": "one"},
        {"audio_filepath": str(tmp_path / "clips/a.wav"), "offset": 1.5, "duration": 0.5, "text": "two"},
    ]
    (tmp_path / "train_manifest.json").write_text("\n".join(map(json.dumps, rows)) + "\n")
    data = served(str(tmp_path / "train_manifest.json"), Request(target="characters"), target="text")
    assert data.lengths("train") == [1.0, 0.5]
    assert [len(data.read("train", i, 0).wave) for i in range(2)] == [16000, 8000]
    (tmp_path / "bad.json").write_text(json.dumps(rows[0] | {"audio_filepath": "clips/b.wav"}))
    with pytest.raises(UserError, match=r"bad\.json, row .: there is no file 'clips/b\.wav'"):
        served(str(tmp_path / "bad.json"))


def cut(path: str, start: float = 0.0, duration: float = 2.0, **changes: Any) -> dict[str, Any]:
    recording = {
        "id": "r", "sources": [{"type": "file", "channels": [0], "source": path}],
        "sampling_rate": 16000, "num_samples": 32000, "duration": 2.0, "channel_ids": [0],
    }  # fmt: skip
    said = {
        "id": "s",
        "recording_id": "r",
        "start": 0.0,
        "duration": duration,
        "channel": 0,
        "text": "one",
        "speaker": "ann",
    }
    whole = {"id": f"r-{start}", "start": start, "duration": duration, "channel": 0, "supervisions": [said]}
    return whole | {"recording": recording, "type": "MonoCut"} | changes


def test_cuts_of_lhotse(tmp_path: Path, sound: Maker) -> None:
    sound(tmp_path / "a.wav", 2.0)
    rows = [cut("a.wav"), cut(str(tmp_path / "a.wav"), 0.5, 1.0), cut("a.wav", 1.5, 0.5, supervisions=[])]
    with gzip.open(tmp_path / "cuts.jsonl.gz", "wt") as file:
        file.write("\n".join(map(json.dumps, rows)))
    data = served(f"lhotse:{tmp_path / 'cuts.jsonl.gz'}")
    assert data.ids("train") == ["r-0.0", "r-0.5", "r-1.5"]
    assert data.lengths("train") == [2.0, 1.0, 0.5]
    assert data.rows["train"].column("speaker") == ["ann", "ann", None]
    assert len(data.read("train", 1, 0).wave) == 16000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recording": None}, r"line 1 is no cut of one recording with one file"),
        ({"start": "x"}, r"line 1 is no cut"),
        ({"supervisions": [{}, {}]}, r"line 1: the cut has 2 supervisions; cut it to them, by trim_to_supervisions"),
        (
            {"recording": {"sources": [{"type": "command", "source": "cat a"}], "duration": 2.0}},
            r"line 1: its recording is a command, which is never fetched or run",
        ),
    ],
)
def test_a_cut_that_cannot_be_read(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "cuts.jsonl").write_text(json.dumps(cut("a.wav", **changes)))
    with pytest.raises(UserError, match=message):
        served(f"lhotse:{tmp_path / 'cuts.jsonl'}")
