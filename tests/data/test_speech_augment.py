"""Speed, voices, rooms and noise for training: as asked, new every epoch, and never in what is evaluated."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch
from host_waits import HostWaits
from torch import Tensor
from torchaudio.transforms import Speed

from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError
from ssl_suite.core.random import item_seed
from ssl_suite.data.speech.augment import Augment
from ssl_suite.data.speech.mixing import coloured, loudness
from ssl_suite.data.speech.reading import RATE
from ssl_suite.data.speech.speech import Speech
from ssl_suite.encoders.waves import Mixing, reverberant

Maker = Callable[..., Path]
TEXT = Request(target="characters")


def served(augment: Augment, request: Request = Request(target="class"), **options: Any) -> Speech:
    data = Speech("samples:prompts", **({"target": "language", "augment": augment} | options))
    data.serve(request)
    return data


def trained(data: Speech, *items: tuple[int, int]) -> list[Tensor]:
    """Waves (N,) as a step sees those of these (index, seed)."""
    batch = data.finish(data.collate([data.read_for_training(*item) for item in items]))
    assert batch.added is None
    return [wave[:n] for wave, n in zip(batch.wave, batch.lengths, strict=True)]


def test_noise_is_as_loud_as_asked_and_new_every_epoch() -> None:
    data, plain = served(Augment(noise="pink", snr=(6.0, 6.0), chance=1.0)), served(Augment())
    clean = plain.read_for_training(5, 0).wave
    assert torch.equal(data.read("train", 5, 0).wave, clean)
    noises = []
    for seed in (1, 2):
        (noisy,) = trained(data, (5, seed))
        assert torch.equal(noisy, trained(data, (5, seed))[0])
        noises.append(noisy - clean)
        assert float(20 * np.log10(loudness(clean) / loudness(noises[-1]))) == pytest.approx(6, abs=0.05)
    assert not torch.allclose(*noises, atol=1e-3)
    assert (data.augments, plain.augments) == (True, False)
    assert data.fingerprint("test") == plain.fingerprint("test")
    evaluated = data.collate([data.read("test", i, 0) for i in range(3)])
    assert data.finish(evaluated) is evaluated


def test_some_are_left_as_they_are() -> None:
    data, plain = served(Augment(noise="white", chance=0.25)), served(Augment())
    same = [torch.equal(trained(data, (i, i))[0], plain.read_for_training(i, i).wave) for i in range(200)]
    assert 0.65 < np.mean(same) < 0.85


def everything(folder: Path) -> Augment:
    """All there is at once, of recordings in a folder."""
    rng = np.random.default_rng(0)
    for name, seconds in (("noise", 0.4), ("voices", 3.0), ("rooms", 0.2)):
        (folder / name).mkdir(parents=True)
        for i in range(3):
            wave = rng.standard_normal(int(seconds * RATE)) * np.exp(-np.linspace(0, 5, int(seconds * RATE)))
            soundfile.write(folder / name / f"{i}.wav", 0.2 * wave, RATE)
    places = {name: str(folder / name) for name in ("noise", "voices", "rooms")}
    return Augment(**places, mixing=Mixing(rate=0.5), speeds=(0.9, 1.0, 1.1))  # type: ignore[arg-type]


def test_a_batch_is_changed_as_each_of_its_recordings_alone_and_no_step_waits(tmp_path: Path) -> None:
    data = served(everything(tmp_path))
    items = [(i, item_seed(3, 1, i)) for i in range(8)]
    alone = [trained(data, item)[0] for item in items]
    for wave, wanted in zip(trained(data, *items), alone, strict=True):
        assert wave.shape == wanted.shape
        assert torch.allclose(wave, wanted, atol=1e-5)
    batch = data.collate([data.read_for_training(*item) for item in items])
    with HostWaits() as waited:
        data.finish(batch)
    assert waited.found == []


def test_a_room_is_scipys_convolution_with_the_direct_sound_in_place() -> None:
    wave, response = coloured("pink", 3000, 1), torch.zeros(800)
    response[100], response[300], response[700] = 1.0, -0.5, 0.25
    shorter, alone = torch.cat([wave[:2000], torch.zeros(1000)]), torch.zeros(800)
    alone[20] = 0.3
    rooms = torch.stack([response, response, alone, torch.zeros(800)])
    lengths = torch.tensor([3000, 2000, 3000, 3000])
    found = reverberant(torch.stack([wave, shorter, wave, wave]), lengths, rooms)
    for heard, n in ((found[0], 3000), (found[1], 2000)):
        wanted = torch.from_numpy(scipy.signal.fftconvolve(wave[:n].numpy(), response.numpy())[100 : 100 + n])
        assert torch.allclose(heard[:n] / loudness(heard[:n]), wanted / loudness(wanted), atol=1e-4)
        assert loudness(heard[:n]) == pytest.approx(loudness(wave[:n]), rel=1e-4)
        assert not heard[n:].any()
    assert torch.allclose(found[2], wave, atol=1e-5)
    assert torch.equal(found[3], wave)


def test_noise_and_rooms_of_folders_are_for_pretraining_too(tmp_path: Path, sound: Maker) -> None:
    sound(tmp_path / "noise/a.wav", 0.3, pitch=3000.0)
    echo = np.zeros(4000)
    echo[[0, 3200]] = 1.0, 0.9
    (tmp_path / "rooms").mkdir()
    soundfile.write(tmp_path / "rooms/hall.wav", echo, 16000, subtype="FLOAT")
    request = Request(pretrains=True)
    both = Augment(noise=str(tmp_path / "noise"), snr=(0.0, 0.0), rooms=str(tmp_path / "rooms"), chance=1.0)
    (wave,), clean = trained(served(both, request), (0, 3)), served(Augment(), request).read("train", 0, 3).wave
    spectrum = torch.fft.rfft(wave).abs()
    assert float(spectrum.argmax()) * 16000 / len(wave) == pytest.approx(3000, rel=0.01)
    dry = wave - torch.fft.irfft(torch.fft.rfft(wave) * (spectrum > 0.5 * spectrum.max()), len(wave))
    late = [float((w[3200:] * clean[:-3200]).sum() / (clean.square().sum())) for w in (dry, clean)]
    assert late[0] > late[1] + 0.3  # the echo
    assert len(wave) == len(clean)


def test_others_talk_into_a_share_of_the_recordings(tmp_path: Path, sound: Maker) -> None:
    sound(tmp_path / "a.wav", 4.0, pitch=5000.0)
    mixing = Mixing(rate=0.4, quietest=0.0, loudest=0.0)
    of_folder, of_batch = served(Augment(voices=str(tmp_path), mixing=mixing)), served(Augment(mixing=mixing))
    items = [(i, i) for i in range(60)]
    for data in (of_folder, of_batch):
        plain = [data.read("train", *item).wave for item in items]
        added = [a - b for a, b in zip(trained(data, *items), plain, strict=True)]
        changed = [i for i, wave in enumerate(added) if wave.abs().max() > 1e-3]
        assert 0.2 < len(changed) / len(items) < 0.6
        assert all((added[i] != 0).float().mean() < 0.51 for i in changed if (plain[i] + added[i]).abs().max() < 1)
        high = [float(torch.fft.rfft(added[i]).abs().argmax()) * RATE / len(added[i]) for i in changed]
        assert (np.median(high) == pytest.approx(5000, abs=20)) == (data is of_folder)


def test_a_speed_is_torchaudios_and_batches_are_of_the_lengths_it_leaves() -> None:
    augment = Augment(speeds=(0.9, 1.0, 1.1))
    data = served(augment, batch_seconds=20.0)
    lengths, seen = data._lengths_of(2), set()
    for index in range(12):
        seed = item_seed(0, 2, index)
        clean, (wave,) = data.read("train", index, seed).wave, trained(data, (index, seed))
        speed = next(s for s in augment.speeds if abs(len(wave) - len(clean) / s) < 2)
        seen.add(speed)
        assert lengths[index] == pytest.approx(len(wave) / RATE, abs=1e-3)
        wanted = Speed(RATE, speed)(clean)[0] if speed != 1 else clean
        assert torch.allclose(wave, wanted, atol=1e-5)
    assert len(seen) > 1
    for chosen in data.train_batches(2):
        assert max(lengths[i] for i in chosen) * len(chosen) <= 20.0
    assert data._lengths_of(2) != data._lengths_of(3)
    assert data._lengths_of(2) == list(served(augment)._lengths_of(2))  # as after a resume


def test_a_crop_is_as_long_at_any_speed() -> None:
    data = served(Augment(speeds=(0.8, 1.25)), Request(pretrains=True), max_seconds=1.0)
    items = [(i, item_seed(0, 0, i)) for i in range(10)]
    lengths = [len(wave) for wave in trained(data, *items)]
    assert lengths == pytest.approx([RATE * data._lengths_of(0)[i] for i in range(10)], abs=8)
    assert max(lengths) == RATE


def test_targets_along_time_are_played_as_fast(tmp_path: Path, sound: Maker) -> None:
    names = [("train/a.wav", 1.0), ("validation/b.wav", 1.0)]
    for split, seconds in names:
        sound(tmp_path / split, seconds)
        frames = [0] * 20 + [1] * 30
        row = {"file_name": Path(split).name, "label": frames, "who": [["x"] * v for v in frames], "clean": split}
        table = tmp_path / split.split("/")[0] / "metadata.csv"
        table.with_suffix(".jsonl").write_text(json.dumps(row))
    where = {s: str(tmp_path / s / "metadata.jsonl") for s in ("train", "validation")}
    for kind, column in (("frames", "label"), ("multi_frames", "who")):
        data = Speech(None, target=column, augment=Augment(speeds=(0.8,)), **where)  # type: ignore[arg-type]
        data.serve(Request(target=kind, stride=320))
        item = data.read_for_training(0, 0)
        target = item.target
        assert isinstance(target, Tensor)
        marks = target.flatten() if kind == "frames" else target[:, 0]
        assert (len(item.wave), len(target)) == (20000, 63)
        assert marks.tolist() == [0] * 25 + [1] * 38
        assert torch.equal(data.read("train", 0, 0).target, data.target("train", 0))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (Augment(noise="nowhere"), "No data at 'nowhere'"),
        (Augment(noise="pink", chance=0.0), r"data\.augment\.chance is 0\.0, but must be a number above 0"),
        (Augment(noise="pink", snr=(5.0, 1.0)), r"data\.augment\.snr, to is 1\.0, but must be a number at least 5"),
        (Augment(speeds=(0.1,)), r"data\.augment\.speeds is 0\.1, but must be a number at least 0\.5 and at most 2"),
        (Augment(speeds=()), r"data\.augment\.speeds names no speed"),
        (Augment(voices="pink"), r"mixed into no recording; set data\.augment\.mixing\.rate"),
    ],
)
def test_what_cannot_be_added_is_one_sentence(augment: Augment, message: str) -> None:
    with pytest.raises(UserError, match=message):
        served(augment)


def test_transcripts_stay() -> None:
    data = served(Augment(speeds=(0.9, 1.1)), TEXT, target="text")
    item, plain = data.read_for_training(4, 9), data.read("train", 4, 9)
    assert len(item.wave) != len(plain.wave)
    assert torch.equal(item.target, plain.target)  # type: ignore[arg-type]
    assert replace(item, wave=plain.wave, added=None).index == 4
