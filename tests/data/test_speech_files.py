"""Audio files of every kind: what libsndfile reads is read whole or in part, and what is broken is named."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from tiny import values

from ssl_suite.core.data import Request
from ssl_suite.core.errors import BadItem
from ssl_suite.data.speech import reading
from ssl_suite.data.speech.reading import RATE, duration, load_audio, resampler
from ssl_suite.data.speech.speech import Speech
from ssl_suite.encoders.simple import Fbank

Maker = Callable[..., Path]
KINDS: dict[str, dict[str, Any]] = {
    "u8.wav": {"subtype": "PCM_U8"},
    "24.wav": {"subtype": "PCM_24"},
    "32.wav": {"subtype": "PCM_32"},
    "float.wav": {"subtype": "FLOAT"},
    "double.wav": {"subtype": "DOUBLE"},
    "alaw.wav": {"subtype": "ALAW"},
    "ulaw.wav": {"subtype": "ULAW"},
    "gsm.wav": {"subtype": "GSM610"},
    "adpcm.wav": {"subtype": "IMA_ADPCM"},
    "extensible.wav": {"format": "WAVEX"},
    "nist.sph": {"format": "NIST"},
    "a.flac": {},
    "a.ogg": {},
    "a.mp3": {},
    "a.caf": {"format": "CAF"},
    "a.aifc": {"format": "AIFF"},
    "flac_called.wav": {"format": "FLAC"},
    "wav_called.mp3": {"format": "WAV"},
}


def tone(seconds: float, rate: int = RATE) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * 300 * np.arange(round(seconds * rate)) / rate)


def read(path: Path, **part: float) -> torch.Tensor:
    from_disk = load_audio({"bytes": None, "path": str(path)}, "", **part)
    in_table = load_audio({"bytes": path.read_bytes(), "path": None}, "row 1", **part)
    assert torch.equal(from_disk, in_table)
    return from_disk


def streamed(path: Path, riff: int, data: int) -> Path:
    """Writes a second of sound under a header that promises other sizes."""
    soundfile.write(path, tone(1.0), RATE)
    content = bytearray(path.read_bytes())
    content[4:8], content[40:44] = struct.pack("<I", riff), struct.pack("<I", data)
    path.write_bytes(content)
    return path


def piped(path: Path) -> Path:
    """Writes two seconds of FLAC whose STREAMINFO knows neither the number of samples nor their MD5."""
    soundfile.write(path, tone(2.0), RATE)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:42] = bytes(20)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", KINDS)
def test_a_file_is_read_by_what_it_holds_not_by_its_name(name: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / name, tone(1.0), RATE, **KINDS[name])
    wave = read(tmp_path / name)
    assert len(wave) == pytest.approx(RATE, abs=300)  # compressed in blocks
    assert abs(duration({"path": str(tmp_path / name), "bytes": None}) - len(wave) / RATE) < 1e-3
    true = torch.from_numpy(tone(1.0))
    quiet = torch.tensor([torch.nn.functional.mse_loss(wave[s : s + 8000], true[:8000]) for s in range(300)]).min()
    assert quiet < 0.01 * true.square().mean()


@pytest.mark.parametrize("name", [n for n in KINDS if n != "gsm.wav"])
def test_a_part_is_what_the_whole_holds_there(name: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / name, np.random.default_rng(0).normal(0, 0.1, 3 * RATE), RATE, **KINDS[name])
    whole = read(tmp_path / name)
    part = read(tmp_path / name, start=1.25, end=2.0)
    assert torch.equal(part, whole[20000:32000])
    assert torch.equal(read(tmp_path / name, start=1.25), whole[20000:])


def test_a_part_of_what_cannot_seek(tmp_path: Path) -> None:
    path = tmp_path / "gsm.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 3 * RATE), RATE, subtype="GSM610")
    assert not soundfile.SoundFile(path).seekable()
    assert torch.equal(read(path, start=1.25, end=2.0), read(path)[20000:32000])


@pytest.mark.parametrize(
    ("riff", "data"),
    [(2_000_000_036, 2_000_000_000), (0xFFFFFFFF, 0xFFFFFFFF), (0x80000024, 0x80000000), (0x7FFFFFFF, 0x7FFFFFDB)],
)
def test_a_streamed_wav_is_read_to_the_end_of_its_data(riff: int, data: int, tmp_path: Path) -> None:
    path = streamed(tmp_path / "a.wav", riff, data)
    assert len(read(path)) == RATE
    assert len(read(path, start=0.25, end=0.5)) == RATE // 4
    assert duration({"path": str(path), "bytes": None}) == 1.0


def test_a_wav_that_promises_more_than_it_holds_is_cut_short(tmp_path: Path) -> None:
    path = streamed(tmp_path / "a.wav", 100_000_036, 100_000_000)
    with pytest.raises(BadItem, match=r"a\.wav is cut short"):
        load_audio({"bytes": None, "path": str(path)}, "")


def test_piped_flac_is_read_to_its_end(tmp_path: Path) -> None:
    path = piped(tmp_path / "a.flac")
    assert soundfile.info(path).frames > 2**62
    assert len(read(path)) == 2 * RATE
    assert torch.equal(read(path, start=0.5, end=1.0), read(path)[8000:16000])
    assert duration({"path": str(path), "bytes": None}) == 2.0
    data = Speech(str(tmp_path))
    data.serve(Request())
    assert data.lengths("train") == [2.0]
    assert next(iter(data.eval_dataloader("train"))).lengths.tolist() == [2 * RATE]


@pytest.mark.parametrize("samples", [1, 2, 159])
@pytest.mark.parametrize("rate", [8000, RATE, 44100])
def test_very_short_audio_is_read(samples: int, rate: int, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(samples, 0.5), rate)
    wave = read(tmp_path / "a.wav")
    assert len(wave) == -(-samples * RATE // rate)
    assert wave.isfinite().all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_named(bad: float, tmp_path: Path, sound: Maker) -> None:
    wave = tone(1.0)
    wave[8000] = bad
    soundfile.write(tmp_path / "bad.wav", wave, RATE, subtype="FLOAT")
    with pytest.raises(BadItem, match=r"bad\.wav holds samples that are no numbers .*at 0\.500 s.*on_error: skip"):
        load_audio({"bytes": None, "path": str(tmp_path / "bad.wav")}, "")
    sound(tmp_path / "good.wav")
    data = Speech(str(tmp_path), on_error="skip")
    data.serve(Request())
    [batch] = data.eval_dataloader("train")
    assert batch.index.tolist() == [1]
    assert batch.wave.isfinite().all()
    assert data.skipped.value == 1


def test_a_table_that_names_a_format_we_do_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.m4a").write_bytes(bytes(400))
    (tmp_path / "metadata.csv").write_text("path\na.m4a\n")
    data = Speech(str(tmp_path))
    data.serve(Request())
    with pytest.raises(BadItem, match=r"a\.m4a is not readable audio .*convert it, for instance by ffmpeg to \.flac"):
        data.read("train", 0, 0)


def test_features_are_computed_again_where_audio_outside_the_tables_folder_changed(
    tmp_path: Path, sound: Maker
) -> None:
    (tmp_path / "lists").mkdir()
    for i in range(3):
        sound(tmp_path / f"wavs/{i}.wav", 0.1, pitch=200.0 * (i + 1))
    (tmp_path / "lists/train.csv").write_text("path,label\n" + "".join(f"../wavs/{i}.wav,x\n" for i in range(3)))

    def features() -> torch.Tensor:
        data = Speech(str(tmp_path / "lists"))
        data.serve(Request(target="class"))
        data.use_features(Fbank(8), "key")
        return values(data.features("train"))

    before = features()
    assert torch.equal(features(), before)
    for i in range(3):
        sound(tmp_path / f"wavs/{i}.wav", 0.1, pitch=1000.0)
    assert not torch.equal(features(), before)


def test_a_channel_is_chosen_and_else_their_mean_is_taken_and_said(tmp_path: Path) -> None:
    left, right = tone(0.5), 0.1 * np.ones(8000)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], 1), RATE, subtype="DOUBLE")
    value = {"bytes": None, "path": str(tmp_path / "a.wav")}
    for channel, wanted in enumerate((left, right)):
        np.testing.assert_allclose(load_audio(value, "", channel=channel), wanted, atol=1e-6)
    with pytest.warns(UserWarning, match=r"several channels is averaged; --data\.channel 0 takes the first"):
        np.testing.assert_allclose(load_audio(value, ""), (left + right) / 2, atol=1e-6)
    with pytest.raises(BadItem, match=r"a\.wav has 2 channels, no channel 2 \(the first is 0\)"):
        load_audio(value, "", channel=2)
    data = [Speech(str(tmp_path), channel=channel) for channel in (None, 0, 1)]
    for one in data:
        one.serve(Request())
    assert len({one.fingerprint("train") for one in data}) == 3
    np.testing.assert_allclose(data[2].read("train", 0, 0).wave, right, atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000, 96000])
def test_a_filter_that_is_kept_resamples_as_one_that_is_made_anew(rate: int, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(0.5, rate), rate, subtype="FLOAT")
    wave = torch.from_numpy(soundfile.read(tmp_path / "a.wav", dtype="float32")[0])
    assert torch.equal(read(tmp_path / "a.wav"), torchaudio.functional.resample(wave, rate, RATE))
    assert resampler(rate) is resampler(rate)


def m4a(path: Path, seconds: float = 1.5, rate: int = 44100) -> Path:
    """Writes two channels of AAC, the second silent."""
    av = pytest.importorskip("av", reason="pip install 'ssl_suite[m4a]'")
    with av.open(str(path), "w", format="mp4") as file:
        stream = file.add_stream("aac", rate=rate, layout="stereo")
        wave = np.stack([tone(seconds, rate), np.zeros(round(seconds * rate))]).astype(np.float32)
        for start in range(0, wave.shape[1], 1024):
            frame = av.AudioFrame.from_ndarray(wave[:, start : start + 1024].copy(), "fltp", "stereo")
            frame.sample_rate, frame.pts = rate, start
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def test_m4a_is_read_whole_and_in_part(tmp_path: Path) -> None:
    path = m4a(tmp_path / "a.m4a")
    value = {"bytes": None, "path": str(path)}
    wave = load_audio(value, "", channel=0)
    assert duration(value) == pytest.approx(1.5, abs=0.05)
    assert len(wave) == pytest.approx(1.5 * RATE, abs=0.05 * RATE)
    spectrum = torch.fft.rfft(wave).abs()
    assert float(spectrum.argmax()) * RATE / len(wave) == pytest.approx(300, abs=2)
    np.testing.assert_allclose(load_audio(value, "", 0.5, 1.0, 0)[100:-100], wave[8100:15900], atol=1e-3)
    assert float(load_audio(value, "", channel=1).abs().max()) < 0.01
    data = Speech(str(tmp_path))
    data.serve(Request())
    assert data.size("train") == 1
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(BadItem, match=r"a\.m4a is not readable audio"):
        load_audio(value, "")


def test_a_playlist_has_nothing_read(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="pip install 'ssl_suite[m4a]'")
    m4a(tmp_path / "a.m4a")
    (tmp_path / "list.m4a").write_text("ffconcat version 1.0\nfile a.m4a\n")
    with pytest.raises(BadItem, match="is not readable audio"):
        load_audio({"bytes": None, "path": str(tmp_path / "list.m4a")}, "")


def test_what_ffmpeg_would_read_is_said_where_it_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "INSTALLED", False)
    (tmp_path / "a.m4a").write_bytes(bytes(400))
    with pytest.raises(
        BadItem, match=r"a\.m4a is not readable .*pip install 'ssl_suite\[m4a\]' reads such files; else"
    ):
        load_audio({"bytes": None, "path": str(tmp_path / "a.m4a")}, "")


def test_videos_are_counted_and_named(tmp_path: Path, sound: Maker, recwarn: pytest.WarningsRecorder) -> None:
    sound(tmp_path / "a.wav", 1.0)
    for name in ("b.mp4", "c.MKV", "d.mkv"):
        (tmp_path / name).write_bytes(b"none")
    Speech(str(tmp_path)).serve(Request(pretrains=True))
    (said,) = [str(w.message) for w in recwarn if "passed over" in str(w.message)]
    assert "passed over 2 .mkv, 1 .mp4: such files are not read, " in said


@pytest.mark.parametrize("rate", [3, 1_000_000_000])
def test_a_header_of_no_possible_rate_is_named(rate: int, tmp_path: Path, sound: Maker) -> None:
    path = sound(tmp_path / "a.wav", 1.0)
    content = bytearray(path.read_bytes())
    content[24:28] = struct.pack("<I", rate)
    path.write_bytes(content)
    with pytest.raises(BadItem, match=r"a\.wav is not readable audio \(its header promises \d+ samples a second\)"):
        read(path)
    assert duration({"bytes": None, "path": str(path)}) == 0
