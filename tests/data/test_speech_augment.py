"""Noise and rooms for training: as loud as asked, new every epoch, and never in what is evaluated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch

from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError
from ssl_suite.data.speech.augment import Augment, reverberant
from ssl_suite.data.speech.mixing import coloured, loudness
from ssl_suite.data.speech.speech import Speech

Maker = Callable[..., Path]


def served(augment: Augment, request: Request = Request(target="class")) -> Speech:
    data = Speech("samples:prompts", target="language", augment=augment)
    data.serve(request)
    return data


def test_noise_is_as_loud_as_asked_and_new_every_epoch() -> None:
    data, plain = served(Augment(noise="pink", snr=(6.0, 6.0), chance=1.0)), served(Augment())
    clean = plain.read_for_training(5, 0)
    assert torch.equal(data.read("train", 5, 0).wave, clean.wave)
    noises = []
    for seed in (1, 2):
        noisy = data.read_for_training(5, seed)
        assert torch.equal(noisy.wave, data.read_for_training(5, seed).wave)
        noises.append(noisy.wave - clean.wave)
        assert float(20 * np.log10(loudness(clean.wave) / loudness(noises[-1]))) == pytest.approx(6, abs=0.05)
        assert torch.equal(noisy.target, clean.target)
    assert not torch.allclose(*noises, atol=1e-3)
    assert (data.augments, plain.augments) == (True, False)
    assert data.fingerprint("test") == plain.fingerprint("test")


def test_some_are_left_as_they_are() -> None:
    data, plain = served(Augment(noise="white", chance=0.25)), served(Augment())
    same = [torch.equal(data.read_for_training(i, i).wave, plain.read_for_training(i, i).wave) for i in range(200)]
    assert 0.65 < np.mean(same) < 0.85


def test_a_room_is_scipys_convolution_with_the_direct_sound_in_place() -> None:
    wave, response = coloured("pink", 3000, 1), torch.zeros(800)
    response[100], response[300], response[700] = 1.0, -0.5, 0.25
    wanted = torch.from_numpy(scipy.signal.fftconvolve(wave.numpy(), response.numpy())[100:3100])
    found = reverberant(wave, response)
    assert torch.allclose(found / loudness(found), wanted / loudness(wanted), atol=1e-4)
    assert loudness(found) == pytest.approx(loudness(wave), rel=1e-4)
    alone = torch.zeros(50)
    alone[20] = 0.3
    assert torch.allclose(reverberant(wave, alone), wave, atol=1e-5)


def test_noise_and_rooms_of_folders_are_for_pretraining_too(tmp_path: Path, sound: Maker) -> None:
    sound(tmp_path / "noise/a.wav", 0.3, pitch=3000.0)
    echo = np.zeros(4000)
    echo[[0, 3200]] = 1.0, 0.9
    (tmp_path / "rooms").mkdir()
    soundfile.write(tmp_path / "rooms/hall.wav", echo, 16000, subtype="FLOAT")
    request = Request(pretrains=True)
    both = Augment(noise=str(tmp_path / "noise"), snr=(0.0, 0.0), rooms=str(tmp_path / "rooms"), chance=1.0)
    wave, clean = (
        served(both, request).read_for_training(0, 3).wave,
        served(Augment(), request).read("train", 0, 3).wave,
    )
    spectrum = torch.fft.rfft(wave).abs()
    assert float(spectrum.argmax()) * 16000 / len(wave) == pytest.approx(3000, rel=0.01)
    dry = wave - torch.fft.irfft(torch.fft.rfft(wave) * (spectrum > 0.5 * spectrum.max()), len(wave))
    late = [float((w[3200:] * clean[:-3200]).sum() / (clean.square().sum())) for w in (dry, clean)]
    assert late[0] > late[1] + 0.3  # the echo
    assert len(wave) == len(clean)


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (Augment(noise="nowhere"), "No data at 'nowhere'"),
        (Augment(noise="pink", chance=0.0), r"data\.augment\.chance is 0\.0, but must be a number above 0"),
        (Augment(noise="pink", snr=(5.0, 1.0)), r"data\.augment\.snr, to is 1\.0, but must be a number at least 5"),
    ],
)
def test_what_cannot_be_added_is_one_sentence(augment: Augment, message: str) -> None:
    with pytest.raises(UserError, match=message):
        served(augment)
