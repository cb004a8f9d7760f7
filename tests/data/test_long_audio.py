"""A long recording among short ones: a crop reads that part alone, and an epoch may have all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError
from ssl_suite.data.speech import speech
from ssl_suite.data.speech.speech import Speech

PRETRAIN = Request(pretrains=True)


def served(source: Path, request: Request = PRETRAIN, **options: Any) -> Speech:
    data = Speech(str(source), **options)
    data.serve(request)
    return data


@pytest.fixture
def talks(tmp_path: Path) -> Path:
    """100 s that rise by 0.009 a second, at 16 and at 8 kHz, and a second of noise."""
    for name, rate in {"a.wav": 16000, "b.flac": 8000}.items():
        soundfile.write(tmp_path / name, 0.009 * np.arange(100 * rate) / rate, rate)
    soundfile.write(tmp_path / "c.wav", 0.1 * np.random.default_rng(0).standard_normal(16000), 16000)
    return tmp_path


@pytest.mark.parametrize("index", [0, 1])
def test_a_crop_of_a_long_recording_is_the_part_that_would_have_been_cut(
    index: int, talks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, decoded = served(talks, max_seconds=3.0), []
    load = speech.load_audio

    def noted(*arguments: Any) -> torch.Tensor:
        decoded.append(arguments[2:4])
        return load(*arguments)

    monkeypatch.setattr(speech, "load_audio", noted)
    parts = [data.read("train", index, seed).wave for seed in range(6)]
    assert all(end - start == pytest.approx(3.0) for start, end in decoded)
    monkeypatch.setattr(speech, "LONG", 1000.0)
    for seed, part in enumerate(parts):
        cut = data.read("train", index, seed).wave
        assert len(part) == len(cut) == 48000
        assert torch.allclose(part[200:-200], cut[200:-200], atol=2e-3)  # but for the filter at the ends
    assert len({float(part[24000]) for part in parts}) > 4


def test_targets_along_a_long_recording_are_cut_with_it(talks: Path) -> None:
    frames = list(range(5000))
    (talks / "m.jsonl").write_text(f'{{"audio": "a.wav", "units": {frames}}}\n')
    data = served(
        talks / "m.jsonl", Request(pretrains=True, target="frames", stride=320), target="units", max_seconds=2.0
    )
    for seed in range(5):
        item = data.read("train", 0, seed)
        assert item.target.tolist() == list(range(int(item.target[0]), int(item.target[0]) + 100))
        second = int(item.target[0]) * 320 / 16000
        assert float(item.wave[1000]) == pytest.approx(0.009 * (second + 1000 / 16000), abs=1e-3)


def test_long_recordings_are_cut_to_utterances_and_none_of_them_is_lost(talks: Path) -> None:
    data = served(talks, max_seconds=None, cut_seconds=30.0)
    assert data.lengths("train") == [25.0] * 8 + [1.0]
    assert len(set(data.ids("train"))) == 9
    levels = torch.cat([data.read("train", i, 0).wave for i in range(4)]).view(100, 16000).mean(1)
    assert torch.allclose(levels, (torch.arange(100) + 0.5) * 0.009, atol=1e-3)
    assert served(talks, max_seconds=None, cut_seconds=50.0).fingerprint("train") != data.fingerprint("train")
    assert served(talks, cut_seconds=200.0).lengths("train") == served(talks).lengths("train")


def test_segments_are_cut_too_and_transcripts_are_not(talks: Path) -> None:
    (talks / "metadata.csv").write_text("path,offset,duration,text,label\na.wav,10,60,one,x\nb.flac,0,5,two,y\n")
    data = served(talks, Request(target="class"), cut_seconds=20.0)
    assert data.lengths("train") == [20.0, 20.0, 20.0, 5.0]
    assert [float(data.read("train", i, 0).wave[8000]) for i in range(3)] == pytest.approx(
        [0.0945, 0.2745, 0.4545], abs=1e-3
    )
    assert [data.labels[data.target("train", i)] for i in range(4)] == list("xxxy")
    with pytest.raises(UserError, match=r"data\.cut_seconds cuts recordings, but their characters are of all of one"):
        served(talks, Request(target="characters"), target="text", cut_seconds=20.0)
