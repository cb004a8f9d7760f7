"""Mixtures: of whom, how loud, when; the same for a seed and new every epoch; what a task gets of them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny import tiny_speech_encoder
from torch import Tensor

from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError
from ssl_suite.data.speech.mixing import Mix, Others, coloured, heard, loudness, repeated
from ssl_suite.data.speech.mixtures import Mixtures
from ssl_suite.data.speech.speech import Speech

Maker = Callable[..., Path]
TWO = {"a": "waveform", "b": "waveform"}
ALL = {"who": "multi_frames", **TWO}


def served(request: Request = Request(target=TWO), source: Path | str = "samples:prompts", **options) -> Mixtures:
    data = Mixtures(str(source), **options)
    data.serve(request)
    return data


def decibels(a: Tensor, b: Tensor) -> float:
    return float(20 * np.log10(loudness(a) / loudness(b)))


def sounding(wave: Tensor) -> Tensor:
    """From the first sample to the last that is not zero."""
    places = wave.nonzero()[:, 0]
    return wave[places[0] : places[-1] + 1]


def test_a_mixture_is_the_sum_of_clean_voices_of_different_speakers() -> None:
    data = served()
    alone = Speech("samples:prompts")
    alone.serve(Request())
    waves = [alone.read("test", i, 0).wave for i in range(alone.size("test"))]
    speakers = alone.rows["test"].column("speaker")
    for index in range(8):
        item = data.read("test", index, 0)
        assert torch.allclose(item.wave, item.target["a"] + item.target["b"], atol=1e-6)
        assert item.wave.abs().max() <= 1
        first, other = (sounding(item.target[slot]) for slot in "ab")
        assert torch.allclose(
            first / loudness(first), sounding(waves[index]) / loudness(sounding(waves[index])), atol=1e-3
        )
        mine = [j for j, w in enumerate(waves) if len(sounding(w)) == len(other) and _same(sounding(w), other)]
        assert len(mine) == 1
        assert speakers[mine[0]] != speakers[index]


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a / loudness(a), b / loudness(b), atol=1e-3)


def test_all_others_are_drawn_evenly_and_no_speaker_twice() -> None:
    speakers = list("aabbbcabdd")
    others = Others(speakers)
    drawn = others.draw([3] * 20000, torch.arange(20000), 2)
    assert {row[0] for row in drawn} == {3}
    count = Counter(row[1] for row in drawn)
    assert set(count) == {i for i, name in enumerate(speakers) if name != "b"}
    assert all(abs(n / 20000 - 1 / 6) < 0.01 for n in count.values())
    for row in others.draw(list(range(10)) * 50, torch.arange(500), 4):
        assert sorted(speakers[i] for i in row) == list("abcd")


@pytest.mark.parametrize("overlap", [(0.0, 1.0), (1.0, 1.0), (0.5, 0.5), (-1.0, -0.25)])
def test_the_overlap_is_a_share_of_the_shorter_voice(overlap: tuple[float, float]) -> None:
    mix, found = Mix(overlap=overlap), []
    for seed, (a, b) in enumerate(itertools.product((10.0, 30.0, 20.0), repeat=2)):
        first, second = mix.begins([a, b], seed)
        assert first == 0
        found.append((min(a, second + b) - second) / min(a, b))
        assert mix.lasts([a, b], seed) == max(a, second + b)
    assert min(found) >= overlap[0] - 1e-9
    assert max(found) <= overlap[1] + 1e-9
    assert (len(set(found)) > 1) == (overlap[0] != overlap[1])


def test_levels_of_voices_and_of_noise_are_those_asked_for() -> None:
    waves = [coloured("pink", n, n) for n in (3000, 4000, 2000)]
    placed = Mix(overlap=(0.0, 0.0), level=(6.0, 6.0)).voices(waves, seed=1)
    assert placed.shape == (3, 9000)
    first, *others = (sounding(voice) for voice in placed)
    assert [decibels(voice, first) for voice in others] == pytest.approx([6, 6], abs=1e-3)
    assert torch.allclose(first, waves[0])
    levels = [decibels(*(sounding(v) for v in Mix(level=(-5, 5)).voices(waves[:2], s))) for s in range(50)]
    assert -5 <= min(levels) < -4
    assert 4 < max(levels) <= 5
    noise = Mix(snr=(3.0, 3.0)).noise(coloured("white", 9000, 0), placed.sum(0), seed=0)
    assert decibels(placed.sum(0), noise) == pytest.approx(3, abs=1e-3)


@pytest.mark.parametrize(("colour", "falls"), [("white", 0), ("pink", 10), ("brown", 20)])
def test_the_power_of_coloured_noise_falls_by_decade(colour: str, falls: float) -> None:
    power = torch.fft.rfft(coloured(colour, 200_000, 1)).abs().square()
    low, high = power[500:1500].mean(), power[5000:15000].mean()
    assert float(10 * torch.log10(low / high)) == pytest.approx(falls, abs=0.5)


def test_who_is_heard_is_seen_by_energy_and_a_short_pause_is_none() -> None:
    tone = torch.sin(torch.arange(16000) * 0.3)
    for start, stop in ((0, 3200), (8000, 10000), (12800, 16000)):  # silence of 0.2, 0.125 and 0.2 s
        tone[start:stop] = 0
    whole = torch.zeros(50)
    whole[10:40] = 1
    assert torch.equal(heard(tone, 320, 16000), whole)
    tone[6400:12800] = 1e-3 * tone[3200:9600]  # 0.4 s that are 60 dB quieter
    whole[20:40] = 0
    assert torch.equal(heard(tone, 320, 16000), whole)
    assert torch.equal(heard(torch.zeros(1000), 320, 16000), torch.zeros(4))


def test_the_states_of_each_speaker_lie_where_the_voice_does() -> None:
    data = served(Request(target=ALL, stride=320), noise="pink")
    assert data.labels == {"who": ["0", "1"], "a": [], "b": []}
    shares = []
    for index in range(20):
        target = data.read("test", index, 0).target
        assert target["who"].shape == (-(-len(target["a"]) // 320), 2)
        for voice, slot in enumerate("ab"):
            who = target["who"][:, voice].bool()
            states = torch.nn.functional.pad(target[slot], (0, -len(target[slot]) % 320)).view(-1, 320)
            assert not states[who.logical_not()].square().mean() > states[who].square().mean() / 100
            shares.append(float(who.sum() / (len(sounding(target[slot])) / 320)))
    assert 0.6 < np.mean(shares) < 1  # words, without the silence around them


def test_validation_stays_the_same_and_training_is_new_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    first, again, other = served(), served(), served(seed=1)
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    for split in ("validation", "test"):
        one = first.read(split, 0, seed=1)
        assert torch.equal(one.wave, again.read(split, 0, seed=2).wave)
        assert not torch.equal(one.wave[:1000], other.read(split, 0, seed=1).wave[:1000]) or len(one.wave) != len(
            other.read(split, 0, 1).wave
        )
    assert torch.equal(first.read_for_training(0, 1).wave, again.read_for_training(0, 1).wave)
    partners = {len(first.read_for_training(0, seed).wave) for seed in range(10)}
    assert len(partners) > 5
    still = served(anew=False)
    assert {len(still.read_for_training(0, seed).wave) for seed in range(10)} == {len(still.read("train", 0, 0).wave)}
    assert (first.augments, still.augments) == (True, False)


def test_training_is_cropped_with_its_targets_and_validation_is_whole() -> None:
    data = served(Request(target=ALL, stride=320), max_seconds=0.5, mix=Mix(overlap=(1.0, 1.0)))
    starts = set()
    for seed in range(10):
        item = data.read_for_training(3, seed)
        assert len(item.wave) == len(item.target["a"]) == 8000
        assert item.target["who"].shape == (25, 2)
        assert torch.allclose(item.wave, item.target["a"] + item.target["b"], atol=1e-6)
        starts.add(float(item.wave[0]))
    assert len(starts) > 5
    assert all(seconds <= 0.5 for seconds in data.lengths("train")) is False
    assert len(data.read("validation", 0, 0).wave) == pytest.approx(16000 * data.lengths("validation")[0], abs=20)
    pretrains = served(Request(pretrains=True, stride=320), max_seconds=0.5)
    assert max(pretrains.lengths("validation")) == 0.5
    assert len(pretrains.read("validation", 0, 0).wave) <= 8000
    assert pretrains.read("validation", 0, 0).target is None


def test_few_voices_are_drawn_evenly_over_the_speakers_by_the_runs_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    few = served(labels=20)
    assert (few.size("train"), few.size("test"), few.labels_used) == (20, served().size("test"), 20)
    speakers = Counter(few.rows["train"].column("speaker"))
    assert set(speakers) == set(served().rows["train"].column("speaker"))
    assert max(speakers.values()) - min(speakers.values()) <= 1
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    assert served(labels=20).fingerprint("train") != few.fingerprint("train")
    assert served(Request(pretrains=True), labels=20).size("train") > 20  # no labels are used, so none are few
    with pytest.raises(UserError, match="labels: 100000 asked"):
        served(labels=100_000)


def test_lengths_are_those_of_the_mixtures() -> None:
    data = served()
    for index, seconds in enumerate(data.lengths("test")[:20]):
        assert len(data.read("test", index, 0).wave) == pytest.approx(16000 * seconds, abs=40)


def test_a_batch_stays_within_its_seconds_and_epochs_are_equally_long() -> None:
    data = served(batch_seconds=60.0, max_seconds=6.0)
    batches = data.train_batches(0)
    assert {len(batch) for batch in batches[:-1]} <= {10, data.size("train") % 10}
    assert sorted(i for batch in batches for i in batch) == list(range(data.size("train")))
    assert len(batches) == len(data.train_batches(1))
    assert batches != data.train_batches(1)
    wave = data.collate([data.read_for_training(i, 0) for i in batches[0]]).wave
    assert wave.numel() <= 60 * 16000


def test_one_voice_in_noise_of_a_folder(tmp_path: Path, sound: Maker) -> None:
    for split, pitch in {"train": 300.0, "test": 3000.0}.items():
        sound(tmp_path / split / "n.wav", 0.3, pitch=pitch)
    data = served(Request(target="waveform"), voices=1, noise=str(tmp_path), mix=Mix(snr=(0.0, 0.0)))
    for split, pitch in {"train": 300, "validation": 300, "test": 3000}.items():
        item = data.read(split, 0, 0)
        noise = item.wave - item.target
        assert decibels(item.target, noise) == pytest.approx(0, abs=0.01)
        assert float(torch.fft.rfft(noise).abs().argmax()) * 16000 / len(noise) == pytest.approx(pitch, rel=0.02)
    assert data.labels == []


def test_of_a_long_noise_another_part_is_taken_each_time(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "n.wav", np.random.default_rng(0).standard_normal(16000 * 60) * 0.1, 16000)
    data = served(Request(target="waveform"), voices=1, noise=str(tmp_path))
    noises = [(item.wave - item.target)[:100] for item in (data.read_for_training(0, s) for s in range(4))]
    assert all(
        not torch.allclose(a / loudness(a), b / loudness(b), atol=0.1) for a, b in itertools.combinations(noises, 2)
    )
    assert torch.equal(repeated(torch.arange(3), 7), torch.tensor([0, 1, 2, 0, 1, 2, 0]))


@pytest.mark.parametrize(
    ("options", "request_", "message"),
    [
        ({"voices": 1}, TWO, "data.voices is 1 and there is no data.noise, so nothing is mixed"),
        ({"voices": 5}, "multi_frames", r"samples:prompts, train has 4 speakers, too few for mixtures of 5"),
        ({"voices": 3}, TWO, "The task wants 2 clean voices, but data.voices is 3; make them equal"),
        ({}, "waveform", "The task wants 1 clean voices, but data.voices is 2"),
        ({"speaker": "who"}, TWO, "has no column 'who'"),
        ({"mix": Mix(overlap=(0.5, 0.2))}, TWO, "data.mix.overlap, to is 0.2, but must be a number at least 0.5"),
        ({"mix": Mix(overlap=(-2.0, 0.2))}, TWO, "data.mix.overlap, from is -2.0, but must be a number at least -1"),
        ({"batch_seconds": 5.0}, TWO, "data.batch_seconds is 5.0, but must be a number at least 15"),
        ({"noise": "nowhere"}, TWO, "No data at 'nowhere'"),
        ({}, "class", "Mixtures gives no target of the kind 'class'; it gives multi_frames, waveform"),
    ],
)
def test_what_cannot_be_mixed_is_one_sentence(options: dict, request_: str | dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        served(Request(target=request_), **options)


def test_a_task_of_other_voices_is_refused() -> None:
    with pytest.raises(UserError, match="trained on mixtures of another number of voices than 2"):
        served(Request(target="multi_frames", labels=["0", "1", "2"]))


def test_mixtures_are_told_apart_by_how_they_are_made() -> None:
    options = [{}, {"mix": Mix(level=(0.0, 0.0))}, {"noise": "pink"}, {"seed": 1}, {"voices": 3}]
    found = [served(Request(target="multi_frames"), **o) for o in options]
    assert len({data.fingerprint("test") for data in found}) == len(options)
    assert len({data.identity() for data in found}) == len(options)
    assert found[2].identity() == Mixtures(noise="pink").identity()  # before it is served
    assert found[2].task_name == "prompts/2 voices+pink"


def test_frozen_features_keep_the_targets_of_mixtures_that_stay() -> None:
    encoder = tiny_speech_encoder()
    data = served(Request(target="multi_frames", stride=encoder.stride), anew=False, eval_batch_size=8)
    target = data.target("validation", 5)
    assert torch.equal(target, data.read("validation", 5, 9).target)
