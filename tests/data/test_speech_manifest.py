"""`ssl-suite prepare manifest`: tables that say how long recordings are, and which of them cannot be read and why."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from ssl_suite.cli import main
from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError
from ssl_suite.data.speech import manifest, segments
from ssl_suite.data.speech.manifest import prepare_manifest
from ssl_suite.data.speech.speech import Speech

Maker = Callable[..., Path]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def served(source: Path, **options: Any) -> Speech:
    data = Speech(str(source), **options)
    data.serve(Request(pretrains=True))
    return data


@pytest.fixture
def mixed(tmp_path: Path, sound: Maker) -> Path:
    """A folder of two classes; of its files four are broken."""
    folder = tmp_path / "mixed"
    for i in range(4):
        sound(folder / "yes" / f"{i}.wav", 0.5 + 0.25 * i, rate=(8000, 16000, 44100, 96000)[i])
    whole = sound(folder / "no/cut.wav", 2.0).read_bytes()
    (folder / "no/cut.wav").write_bytes(whole[: len(whole) // 2])
    (folder / "no/text.flac").write_text("no audio")
    soundfile.write(folder / "no/empty.wav", np.zeros(0), 16000)
    soundfile.write(folder / "no/nan.wav", np.full(100, np.nan), 16000, subtype="FLOAT")
    sound(folder / "no/good, indeed.flac", 1.0, channels=2)
    return folder


def test_a_folder_becomes_a_table_and_what_is_broken_is_named_with_its_reason(
    mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "made"
    monkeypatch.setattr(manifest, "CHUNK", 1)  # so that a second process has something to do
    assert main(["prepare", "manifest", f"--source={mixed}", f"--out={out}", "--workers=2"]) == 0
    said = capsys.readouterr().out
    assert "train.csv: 5 of 9 recordings, 0.00 hours" in said
    assert "broken.txt: 4 of 9 files cannot be read" in said
    broken = dict(line.split(" ", 1) for line in (out / "broken.txt").read_text().splitlines())
    why = {Path(name).name: reason for name, reason in broken.items()}
    assert why["cut.wav"].startswith("is cut short")
    assert why["text.flac"].startswith("is not readable audio")
    assert why["empty.wav"].startswith("has no samples")
    assert why["nan.wav"].startswith("holds samples that are no numbers")
    rows = {Path(row["path"]).name: row for row in read(out / "train.csv")}
    assert {name: float(row["seconds"]) for name, row in rows.items()} == pytest.approx(
        {"0.wav": 0.5, "1.wav": 0.75, "2.wav": 1.0, "3.wav": 1.25, "good, indeed.flac": 1.0}, abs=1e-3
    )
    assert {row["label"] for row in rows.values()} == {"yes", "no"}

    opened: list[Any] = []
    monkeypatch.setattr(segments, "duration", lambda value: opened.append(value) or 0.0)
    data = served(out, on_error="raise")
    assert opened == []  # the table says how long they are
    assert sorted(data.lengths("train")) == pytest.approx([0.5, 0.75, 1.0, 1.0, 1.25], abs=1e-3)
    assert all(data.read("train", i, 0).wave.numel() > 0 for i in range(data.size("train")))


def test_a_scan_goes_on_where_it_was_and_reads_what_has_changed(
    mixed: Path, tmp_path: Path, sound: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    look = manifest.look

    def dies(path: str, headers: bool) -> Any:
        if len(looked) == 3:
            raise KeyboardInterrupt
        looked.append(path)
        return look(path, headers)

    monkeypatch.setattr(manifest, "CHUNK", 1)
    monkeypatch.setattr(manifest, "look", dies)
    with pytest.raises(KeyboardInterrupt):
        prepare_manifest(str(mixed), tmp_path / "made")
    assert not (tmp_path / "made/train.csv").exists()
    notes = tmp_path / "made/.scan.jsonl"
    notes.write_text(notes.read_text() + '{"path": "cut sho')
    monkeypatch.setattr(manifest, "look", lambda path, headers: looked.append(path) or look(path, headers))
    prepare_manifest(str(mixed), tmp_path / "made")
    assert len(looked) == len(set(looked)) == 9
    wanted = (tmp_path / "made/train.csv").read_text()
    sound(mixed / "no/cut.wav", 2.0)
    prepare_manifest(str(mixed), tmp_path / "made")
    assert looked[9:] == [str(mixed / "no/cut.wav")]
    assert len(read(tmp_path / "made/train.csv")) == 6
    prepare_manifest(str(mixed), tmp_path / "anew")
    assert (tmp_path / "anew/train.csv").read_text() == (tmp_path / "made/train.csv").read_text() != wanted


def test_what_is_clipped_silent_or_beyond_all_scale_is_named(tmp_path: Path) -> None:
    prompts = Speech("samples:prompts")
    prompts.serve(Request())
    (tmp_path / "in").mkdir()
    for name, factor in (("fine", 0.9), ("clipped", 4.0), ("huge", 300.0), ("silent", 0.0)):
        for i in range(3):
            wave = prompts.read("test", i, 0).wave.numpy()
            wave = wave / abs(wave).max() * factor
            wave = wave if name == "huge" else wave.clip(-1, 1)
            soundfile.write(tmp_path / f"in/{name}{i}.wav", wave, 16000, subtype="FLOAT")
    lines = prepare_manifest(str(tmp_path / "in"), tmp_path / "made")
    assert lines[1].startswith(f"{tmp_path / 'made/remarks.txt'}: 9 of 12 files are odd")
    said = dict(line.split(" ", 1) for line in (tmp_path / "made/remarks.txt").read_text().splitlines())
    for path, what in said.items():
        assert Path(path).name[:3] == {"is c": "cli", "is s": "sil", "reac": "hug"}[what[:4]]
    assert len(read(tmp_path / "made/train.csv")) == 12


def test_headers_are_believed_where_asked(mixed: Path, tmp_path: Path) -> None:
    prepare_manifest(str(mixed), tmp_path / "made", headers=True)
    named = [Path(row["path"]).name for row in read(tmp_path / "made/train.csv")]
    assert "nan.wav" in named
    assert "text.flac" not in named
    prepare_manifest(str(mixed), tmp_path / "made")
    assert len(read(tmp_path / "made/train.csv")) == 5


def test_what_a_layout_tells_of_segments_goes_along(tmp_path: Path, sound: Maker) -> None:
    place = tmp_path / "kaldi"
    sound(place / "a.wav", 3.0)
    for name, text in {
        "wav.scp": f"a {place / 'a.wav'}\n", "segments": "u1 a 0.0 1.25\nu2 a 1.5 3.0\n",
        "text": "u1 good morning\nu2 hello, you\n", "utt2spk": "u1 x\nu2 y\n",
    }.items():  # fmt: skip
        (place / name).write_text(text)
    out = tmp_path / "kaldi/listed"
    prepare_manifest(f"kaldi:{place}", out)
    first, second = read(out / "train.csv")
    assert first == {"path": str((place / "a.wav").resolve()), "seconds": "1.2500", "id": "u1", "start": "0.0",
                     "end": "1.25", "text": "good morning", "speaker": "x"}  # fmt: skip
    data = Speech(str(out / "train.csv"), target="text", test=str(out / "train.csv"))
    data.serve(Request(target="characters"))
    assert data.rows["test"].column("text") == ["good morning", "hello, you"]
    assert [round(s, 2) for s in data.lengths("test")] == [1.25, 1.5]
    assert (first["speaker"], second["speaker"]) == ("x", "y")


def test_columns_that_no_table_can_have_stay_behind_and_paths_below_are_short(tmp_path: Path, sound: Maker) -> None:
    sound(tmp_path / "wavs/a.wav", 1.0)
    row = {"file_name": "wavs/a.wav", "duration": 9.0, "frames": [1, 2], "note": "a"}
    (tmp_path / "in.jsonl").write_text(json.dumps(row))
    prepare_manifest(str(tmp_path / "in.jsonl"), tmp_path)
    assert read(tmp_path / "train.csv") == [
        {"path": "wavs/a.wav", "seconds": "1.0000", "id": "wavs/a.wav", "note": "a"}
    ]


def test_what_cannot_be_listed_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/a.wav").write_text("none")
    for source, workers, message in (
        (str(tmp_path / "bad"), 0, "None of the 1 recordings of"),
        ("samples:prompts", 0, "has its audio inside"),
        (str(tmp_path / "bad"), -1, "--workers is -1"),
        (str(tmp_path / "nowhere"), 0, "No data at"),
    ):
        with pytest.raises(UserError, match=message):
            prepare_manifest(source, tmp_path / "made", workers=workers)
