"""Speech: budgets of seconds, crops while pretraining, and waves kept or read again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ssl_suite.core.data import Request
from ssl_suite.data.speech.speech import Speech

Maker = Callable[..., Path]


def served(folder: Path | str, request: Request = Request(), **options) -> Speech:
    data = Speech(str(folder), **options)
    data.serve(request)
    return data


def test_a_batch_stays_within_its_seconds() -> None:
    data = served("samples:prompts", batch_seconds=30.0)
    lengths = data.lengths("train")
    batches = data.train_batches(0)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= 30.0
    assert len(batches) == len(data.train_batches(1))
    assert batches != data.train_batches(1)
    seconds = sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
    assert seconds < 1.1 * sum(lengths)


def test_long_audio_is_cropped_anew_each_epoch_while_pretraining(tmp_path: Path, sound: Maker) -> None:
    sound(tmp_path / "a.wav", 1.0, pitch=3.0)
    data = served(tmp_path, max_seconds=0.25)
    first, again, other = (data.read("train", 0, seed).wave for seed in (1, 1, 2))
    assert len(first) == 4000
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_nothing_is_cropped_for_a_task(tmp_path: Path, sound: Maker) -> None:
    sound(tmp_path / "x/a.wav", 1.0)
    assert len(served(tmp_path, Request(target="class"), max_seconds=0.25).read("train", 0, 1).wave) == 16000


def test_padding_is_zero_and_lengths_are_kept(tmp_path: Path, sound: Maker) -> None:
    for i, seconds in enumerate((0.1, 0.3, 0.2)):
        sound(tmp_path / f"{i}.wav", seconds)
    batch = next(iter(served(tmp_path).eval_dataloader("train")))
    assert batch.lengths.tolist() == [4800, 3200, 1600]  # the longest first
    assert batch.wave.shape == (3, 4800)
    for wave, length in zip(batch.wave, batch.lengths, strict=True):
        assert (wave[length:] == 0).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_read_the_same_waves(workers: int, tmp_path: Path, sound: Maker) -> None:
    for i in range(6):
        sound(tmp_path / f"{i}.wav", 0.1, pitch=100.0 * (i + 1))
    data = served(tmp_path, batch_size=2, num_workers=workers)
    waves = {int(i): w for batch in data.train_dataloader() for i, w in zip(batch.index, batch.wave, strict=True)}
    for i, wave in waves.items():
        assert torch.equal(wave, data.read("train", i, 0).wave)
    assert len(waves) == 6
