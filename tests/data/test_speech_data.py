"""Speech: budgets of seconds, crops while pretraining, and waves kept or read again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from tiny import QUIET, tiny_speech_encoder

from ssl_suite.core.batch import SpeechBatch, lengths_to_mask
from ssl_suite.core.data import Request
from ssl_suite.core.encoder import Encoded
from ssl_suite.core.errors import BadItem, UserError
from ssl_suite.core.finetune import Finetune
from ssl_suite.core.optim import Optim
from ssl_suite.core.random import uniform
from ssl_suite.data.speech.speech import Speech
from ssl_suite.tasks.tag import Tag

Maker = Callable[..., Path]


def served(folder: Path | str, request: Request = Request(), **options) -> Speech:
    data = Speech(str(folder), **options)
    data.serve(request)
    return data


@pytest.mark.parametrize("budget", [30.0, 87.5])
def test_a_batch_stays_within_its_seconds_of_which_few_are_padding(budget: float) -> None:
    data = served("samples:prompts", batch_seconds=budget)
    lengths = data.lengths("train")
    epochs = [data.train_batches(epoch) for epoch in range(3)]
    for batches in epochs:
        assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
        for batch in batches:
            assert len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= budget
        padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
        assert padded - sum(lengths) <= 0.05 * padded
    assert len({len(batches) for batches in epochs}) == 1
    assert epochs[0] != epochs[1]


def test_long_audio_is_cropped_anew_each_epoch_while_pretraining(tmp_path: Path, sound: Maker) -> None:
    sound(tmp_path / "a.wav", 1.0, pitch=3.0)
    data = served(tmp_path, Request(pretrains=True), max_seconds=0.25)
    first, again, other = (data.read("train", 0, seed).wave for seed in (1, 1, 2))
    assert len(first) == 4000
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def frame_labels(folder: Path, labels: list[int]) -> Path:
    (folder / "m.jsonl").write_text(json.dumps({"audio": "a.wav", "frames": labels}) + "\n")
    return folder / "m.jsonl"


def test_frame_labels_are_cut_with_the_audio_while_pretraining(tmp_path: Path, sound: Maker) -> None:
    """A label is the number of its frame, so that it tells where its audio must have come from."""
    sound(tmp_path / "a.wav", 1.0, pitch=3.0)
    source = frame_labels(tmp_path, list(range(50)))
    request = Request(pretrains=True, target="frames", stride=320)
    data = served(source, request, target="frames", max_seconds=0.25)
    whole = served(source, target="frames").read("train", 0, 0).wave
    firsts = set()
    for seed in range(20):
        item = data.read("train", 0, seed)
        first = int(item.target[0])
        assert item.target.tolist() == list(range(first, first + 13))  # 4,000 samples: 12.5 strides
        assert torch.equal(item.wave, whole[320 * first : 320 * first + 4000])
        firsts.add(first)
    assert len(firsts) > 5
    task = served(source, Request(target="frames", stride=320), target="frames", max_seconds=0.25)
    assert task.read("train", 0, 1).target.tolist() == list(range(50))


def test_a_crop_without_frame_labels_begins_at_any_sample(tmp_path: Path, sound: Maker) -> None:
    sound(tmp_path / "a.wav", 1.0, pitch=3.0)
    data = served(tmp_path, Request(pretrains=True, stride=320), max_seconds=0.25)
    whole = served(tmp_path).read("train", 0, 0).wave
    start = int(uniform(torch.tensor([1]), 1) * 12000)
    assert start % 320 != 0
    assert torch.equal(data.read("train", 0, 1).wave, whole[start : start + 4000])


def test_frame_labels_that_are_no_whole_numbers_and_unknown_kinds_are_refused(tmp_path: Path, sound: Maker) -> None:
    sound(tmp_path / "a.wav", 0.1)
    with pytest.raises(UserError, match=r"holds \[0, -1\], not a list of whole numbers from 0"):
        served(frame_labels(tmp_path, [0, -1]), Request(target="frames"), target="frames")
    with pytest.raises(UserError, match="Speech gives no target of the kind 'trials'; it gives class"):
        served(frame_labels(tmp_path, [0, 1]), Request(target="trials"), target="frames")


def test_labels_of_another_length_than_their_audio_are_named(tmp_path: Path, sound: Maker) -> None:
    sound(tmp_path / "a.wav", 1.0)
    data = served(frame_labels(tmp_path, [0, 1] * 23), Request(target="frames", stride=320), target="frames")
    with pytest.raises(BadItem, match=r"m.jsonl, row 1: 'frames' has 46, but the audio 16,000 samples, at 320 a state"):
        data.read("train", 0, 0)


def test_frames_are_tagged_and_a_label_more_than_there_are_states_is_no_error(tmp_path: Path, sound: Maker) -> None:
    rows = []
    for i in range(12):
        sound(tmp_path / f"{i}.wav", 0.5, pitch=200.0 * (1 + i % 2))
        rows.append(json.dumps({"audio": f"{i}.wav", "frames": [i % 2] * (49 + i % 3)}))
    (tmp_path / "m.jsonl").write_text("\n".join(rows))
    data = Speech(str(tmp_path / "m.jsonl"), target="frames", batch_size=4)
    task, quiet = Tag(of="frames"), {"enable_checkpointing": False, "num_sanity_val_steps": 0, **QUIET}
    model = Finetune(tiny_speech_encoder(), task, mode="finetune", optim=Optim(lr=1e-2))
    trainer = pl.Trainer(max_epochs=8, default_root_dir=tmp_path, accelerator="cpu", **quiet)
    trainer.fit(model, datamodule=data)
    assert task.labels == ["0", "1"]
    assert trainer.callback_metrics["val/accuracy"] > 0.9
    batch = next(iter(data.eval_dataloader("validation")))
    output, mask = model(batch)
    for (_, counted), states, target in zip(
        task.outcomes(output, mask, batch.target), mask.sum(1), batch.target, strict=True
    ):
        assert counted == min(int(states), int((target >= 0).sum()))


def test_several_labels_a_frame_are_cut_with_the_audio(tmp_path: Path, sound: Maker) -> None:
    sound(tmp_path / "a.wav", 1.0, pitch=3.0)
    speaks = [[] if t < 10 else ["ann"] if t < 30 else ["ann", "bob"] for t in range(50)]
    (tmp_path / "m.jsonl").write_text(json.dumps({"audio": "a.wav", "who": speaks}) + "\n")
    request = Request(pretrains=True, target="multi_frames", stride=320)
    data = served(tmp_path / "m.jsonl", request, target="who", max_seconds=0.25)
    assert data.labels == ["ann", "bob"]
    whole = [[float("ann" in frame), float("bob" in frame)] for frame in speaks]
    wave = served(tmp_path / "m.jsonl").read("train", 0, 0).wave
    for seed in range(5):
        item = data.read("train", 0, seed)
        start = next(s for s in range(0, 16000, 320) if torch.equal(wave[s : s + 4000], item.wave)) // 320
        assert item.target.tolist() == whole[start : start + 13]
    batch = data.collate([data.read("train", 0, seed) for seed in range(3)])
    assert (batch.target.shape, batch.target.dtype) == ((3, 13, 2), torch.float32)


def test_a_waveform_is_a_target_and_cut_with_the_mixture(tmp_path: Path, sound: Maker) -> None:
    for name in "ab":
        sound(tmp_path / f"mix/{name}.wav", 1.0, pitch=3.0)
        sound(tmp_path / f"clean/{name}.wav", 1.0, rate=8000, pitch=2.0)
    lines = [f"mix/{name}.wav,clean/{name}.wav" for name in "ab"]
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,clean", *lines]))
    data = served(tmp_path, Request(pretrains=True, target="waveform", stride=320), target="clean", max_seconds=0.25)
    whole, clean = data._wave("train", 0), data.target("train", 0)
    assert len(clean) == len(whole) == 16000
    item = data.read("train", 0, 3)
    start = next(s for s in range(0, 16000, 320) if torch.equal(whole[s : s + 4000], item.wave))
    assert torch.equal(item.target, clean[start : start + 4000])
    sound(tmp_path / "clean/a.wav", 0.5)
    with pytest.raises(BadItem, match=r"'clean' has 8,000, but the audio 16,000 samples"):
        data.read("train", 0, 3)


def test_nothing_is_cropped_for_a_task(tmp_path: Path, sound: Maker) -> None:
    sound(tmp_path / "x/a.wav", 1.0)
    assert len(served(tmp_path, Request(target="class"), max_seconds=0.25).read("train", 0, 1).wave) == 16000


def test_seconds_of_a_batch_count_what_is_cropped(tmp_path: Path, sound: Maker) -> None:
    for i in range(6):
        sound(tmp_path / f"{i}.wav", 1.0 + i)
    data = served(tmp_path, Request(pretrains=True), max_seconds=1.0, batch_seconds=2.0)
    assert data.lengths("train") == [1.0] * 6
    for epoch in range(3):
        assert [len(batch) for batch in data.train_batches(epoch)] == [2, 2, 2]


def test_a_task_reads_long_audio_to_a_limit_and_says_so(tmp_path: Path, sound: Maker) -> None:
    sound(tmp_path / "x/long.wav", 3.0)
    sound(tmp_path / "x/short.wav", 0.5)
    with pytest.warns(UserWarning, match=r"only the first 2 s of 1 of 2 utterances are read \(.*long\.wav lasts 3 s\)"):
        data = served(tmp_path, Request(target="class"), limit_seconds=2.0)
    assert data.lengths("train") == [2.0, 0.5]
    assert torch.equal(
        data.read("train", 0, 1).wave,
        served(tmp_path, Request(target="class")).read("train", 0, 1).wave[:32000],
    )
    assert data.fingerprint("train") != served(tmp_path, Request(target="class")).fingerprint("train")


def test_a_transcript_of_cropped_audio_is_refused(tmp_path: Path, sound: Maker) -> None:
    sound(tmp_path / "a.wav", 3.0)
    (tmp_path / "metadata.csv").write_text("path,text\na.wav,hello\n")
    with pytest.raises(UserError, match=r"a\.wav lasts 3 s, and its characters need all of it, but data.limit_seconds"):
        served(tmp_path, Request(target="characters"), target="text", limit_seconds=2.0)


@pytest.mark.parametrize("frozen", [False, True])
def test_one_long_file_among_short_ones_is_evaluated_within_bounds(frozen: bool, tmp_path: Path, sound: Maker) -> None:
    """A batch pads no more than 15 s for each of its `eval_batch_size`."""
    for i in range(20):
        sound(tmp_path / f"x/{i}.wav", 0.2)
    sound(tmp_path / "x/hour.wav", 100.0)
    with pytest.warns(UserWarning, match="hour.wav lasts 100 s"):
        data = served(tmp_path, Request(target="class"), eval_batch_size=4, limit_seconds=50.0)
    if frozen:
        data.use_features(frames, "key")
    seen = []
    for split in data.splits():
        for batch in data.eval_dataloader(split):
            width = batch.features.shape[2] / 100 if frozen else batch.wave.shape[1] / 16000
            assert width * len(batch) <= 60.0
            assert len(batch) <= 4
            seen.append(len(batch))
    assert sum(seen) == 21
    assert seen.count(4) >= 4


def test_frozen_frames_are_trained_on_within_a_budget(tmp_path: Path, sound: Maker) -> None:
    for i in range(12):
        sound(tmp_path / f"x/{i}.wav", 0.25 * (i + 1))
    data = served(tmp_path, Request(target="class"), batch_seconds=4.0)
    data.use_features(frames, "key")
    batches = list(data.train_dataloader())
    assert sorted(i for batch in batches for i in batch.index.tolist()) == list(range(data.size("train")))
    for batch in batches:
        assert batch.features.shape[2] / 100 * len(batch) <= 4.05


def frames(batch: SpeechBatch) -> Encoded:
    """A state every 10 ms."""
    states = batch.wave[:, ::160, None]
    return Encoded((states,), lengths_to_mask(batch.lengths // 160, states.shape[1]), states[:, 0])


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
