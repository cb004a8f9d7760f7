"""Diarization: the error rate against a slow count and the best assignment, the loss over all orders, whole runs."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import soundfile
import torch
from scipy.optimize import linear_sum_assignment
from scipy.signal import medfilt
from tiny import QUIET, tiny_speech_encoder
from torch import Tensor
from torch.nn import functional as F

from ssl_suite.bench.resample import Outcomes, score
from ssl_suite.core.batch import lengths_to_mask
from ssl_suite.core.errors import UserError
from ssl_suite.core.finetune import Finetune
from ssl_suite.data.speech.speech import Speech
from ssl_suite.tasks.diarize import Diarize, diarization_errors, majority, near_changes, segments
from ssl_suite.tasks.orders import cheapest


def turns(batch: int, size: int, voices: int) -> Tensor:
    """(B, T, C) voices that set in and end at random, often together."""
    changes = torch.rand(batch, size, voices) < 0.08
    return changes.cumsum(1) % 2 == 1


def slow_errors(said: Tensor, true: Tensor, scored: Tensor) -> list[float]:
    """Miss, false alarm, confusion and speech of one recording, state by state, as NIST defines them."""
    states = [t for t in range(len(true)) if scored[t]]
    together = np.array([[sum(bool(said[t, i] and true[t, j]) for t in states) for j in range(true.shape[1])]
                         for i in range(said.shape[1])])  # fmt: skip
    meant = dict(zip(*(side.tolist() for side in linear_sum_assignment(-together)), strict=True))
    miss = alarm = confusion = speech = 0
    for t in states:
        heard, there = int(said[t].sum()), int(true[t].sum())
        right = sum(bool(said[t, i] and true[t, j]) for i, j in meant.items())
        miss, alarm = miss + max(there - heard, 0), alarm + max(heard - there, 0)
        confusion, speech = confusion + min(heard, there) - right, speech + there
    return [miss, alarm, confusion, speech]


@pytest.mark.parametrize("voices", [1, 2, 3, 4])
def test_errors_are_those_of_a_slow_count_under_the_best_assignment(voices: int) -> None:
    true, noise = turns(4, 120, voices), torch.rand(4, 120, voices) < 0.15
    order = torch.randperm(voices)
    said, scored = (true ^ noise)[..., order], torch.rand(4, 120) < 0.9
    found = diarization_errors(said, true, scored)
    for row in range(4):
        assert found[row].tolist() == slow_errors(said[row], true[row], scored[row])
    assert found[:, :3].sum() > 0
    assert diarization_errors(true[..., order], true, scored)[:, :3].sum() == 0
    several = diarization_errors(torch.stack([said, true]), true, scored)
    assert torch.equal(several[0], found)


def test_error_rates_are_pyannotes() -> None:
    core, metrics = (pytest.importorskip(name, reason="pip install ssl_suite[dev]") for name in (
        "pyannote.core", "pyannote.metrics.diarization"))  # fmt: skip
    for collar, overlaps in ((0, True), (4, True), (0, False), (3, False)):
        true = turns(5, 200, 3)
        said = turns(5, 200, 3) & (torch.rand(5, 200, 1) < 0.9) | true & (torch.rand(5, 200, 3) < 0.8)
        task = Diarize(collar=collar, overlaps=overlaps, thresholds=[0.5], medians=[1])
        task.build(4, ["0", "1", "2"])
        logits = 10 * (2 * said.float() - 1)
        found = task.errors(logits, torch.ones(5, 200, dtype=torch.bool), true.float())[0]
        peer = metrics.DiarizationErrorRate(collar=2 * collar, skip_overlap=not overlaps)
        for row in range(5):
            made = []
            for voices in (true[row], said[row]):
                annotation = core.Annotation()
                for voice in range(3):
                    for start, end in segments(voices[:, voice]):
                        annotation[core.Segment(start, end), f"{voice} {start}"] = str(voice)
                made.append(annotation)
            parts = peer(*made, uem=core.Timeline([core.Segment(0, 200)]), detailed=True)
            names = ("missed detection", "false alarm", "confusion", "total")
            assert found[row].tolist() == pytest.approx([parts[name] for name in names]), (collar, overlaps)


def test_the_least_cost_is_over_all_orders() -> None:
    costs = torch.randn(2, 5, 3, 3)
    least, order = cheapest(costs)
    for at in itertools.product(range(2), range(5)):
        totals = {o: sum(float(costs[(*at, i, j)]) for i, j in enumerate(o)) for o in itertools.permutations(range(3))}
        assert float(least[at]) == pytest.approx(min(totals.values()), abs=1e-5)
        assert tuple(order[at].tolist()) == min(totals, key=totals.__getitem__)


def built(voices: int = 2, **options: Any) -> Diarize:
    task = Diarize(**{"hidden": 8, **options})
    task.build(6, [str(i) for i in range(voices)])
    return task


@pytest.mark.parametrize("voices", [1, 2, 3])
def test_the_loss_is_the_least_binary_cross_entropy_over_all_orders(voices: int) -> None:
    task, lengths = built(voices), torch.tensor([30, 17])
    mask, target = lengths_to_mask(lengths, 30), turns(2, 30, voices).float()
    output = 3 * torch.randn(2, 30, voices)
    total = 0.0
    for row, length in enumerate(lengths.tolist()):
        x, y = output[row, :length], target[row, :length]
        orders = itertools.permutations(range(voices))
        total += min(F.binary_cross_entropy_with_logits(x, y[:, list(o)], reduction="sum").item() for o in orders)
    wanted = total / (47 * voices)
    assert float(task.loss(output, mask, target)) == pytest.approx(wanted, rel=1e-5)
    output[1, 17:] = 1e4
    assert float(task.loss(output, mask, target)) == pytest.approx(wanted, rel=1e-5)
    for size in (28, 33):  # front ends differ by a state or two
        other = F.pad(target, (0, 0, 0, size - 30))
        assert task.loss(output, mask, other).isfinite()


@pytest.mark.parametrize("hidden", [8, 0])
def test_nothing_of_the_padding_reaches_an_answer(hidden: int) -> None:
    task, mask = built(hidden=hidden), lengths_to_mask(torch.tensor([25, 11]), 25)
    features = torch.randn(2, 25, 6)
    features[1, 11:] = 50
    together, alone = task(features, mask), task(features[1:, :11], mask[1:, :11])
    torch.testing.assert_close(together[1:, :11], alone)
    target = turns(2, 25, 2).float()
    torch.testing.assert_close(
        task.errors(together, mask, target)[:, 1:], task.errors(alone, mask[1:, :11], target[1:])
    )
    assert task.decode(together, mask)[1] == task.decode(alone, mask[1:, :11])[0]


@pytest.mark.parametrize("size", [1, 3, 11])
def test_the_majority_is_scipys_median_filter(size: int) -> None:
    active = torch.rand(3, 40, 2) < 0.5
    wanted = np.stack([[medfilt(voice.float().numpy(), size) for voice in row.T] for row in active])
    assert torch.equal(majority(active, size), torch.from_numpy(wanted > 0.5).mT)


def test_a_collar_lies_on_either_side_of_a_change() -> None:
    true = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0], dtype=torch.bool)[None, :, None]
    wanted = [False] * 2 + [True] * 4 + [False] * 2 + [True] * 4 + [False]
    assert near_changes(true, 2)[0].tolist() == wanted
    assert not near_changes(true, 0).any()
    assert near_changes(torch.ones(1, 5, 1, dtype=torch.bool), 1)[0].tolist() == [True, False, False, False, True]


def test_a_voice_that_training_does_not_have_is_missed() -> None:
    task = built(1, thresholds=[0.5], medians=[1])
    task.unseen = ["1"]
    target = torch.zeros(1, 10, 2)
    target[0, :6, 0], target[0, 4:, 1] = 1, 1
    mask, output = torch.ones(1, 10, dtype=torch.bool), torch.full((1, 10, 1), 9.0)
    output[0, :4] = -9  # the second voice
    assert task.errors(output, mask, target)[0, 0].tolist() == [6, 0, 0, 12]
    assert float(task.loss(output, mask, target)) == pytest.approx(math.log1p(math.exp(-9)), abs=1e-6)


def noisy(task: Diarize, n: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    """Answers that are right mostly, at a low threshold."""
    target, mask = turns(n, 80, 2).float(), lengths_to_mask(torch.randint(40, 81, (n,)), 80)
    return 1.5 * target - 1.6 + 0.7 * torch.randn(n, 80, 2), mask, target


@pytest.mark.parametrize("protocol", ["strict", "compat"])
def test_the_threshold_is_of_the_validation_split_unless_a_script_had_it_of_test(protocol: Any) -> None:
    task = built(protocol=protocol, medians=[1, 5])
    validation, test = noisy(task), noisy(task)
    data: Any = SimpleNamespace(size=lambda split: 12, ids=lambda split: [f"r{i:02}" for i in range(12)])

    def figures(batch: tuple[Tensor, Tensor, Tensor], split: str) -> dict[str, float]:
        metrics = task.metrics()
        for rows in torch.arange(12).split(5):
            task.update(metrics, *(part[rows] for part in batch))
        return {name: float(value) for name, value in task.compute(metrics, data, split).items()}

    def by_hand(batch: tuple[Tensor, Tensor, Tensor], setting: tuple[float, int]) -> float:
        output, mask, target = batch
        counts = [0.0] * 4
        for row in range(12):
            length = int(mask[row].sum())
            active = (output[row, :length].sigmoid() > setting[0]).float().numpy()
            said = torch.from_numpy(np.stack([medfilt(voice, setting[1]) for voice in active.T], 1) > 0.5)
            found = slow_errors(said, target[row, :length] > 0.5, torch.ones(length))
            counts = [a + b for a, b in zip(counts, found, strict=True)]
        return sum(counts[:3]) / counts[3]

    at = {setting: by_hand(validation, setting) for setting in task.settings}
    found = figures(validation, "validation")
    assert found["der"] == pytest.approx(min(at.values()))
    chosen = min(at, key=at.__getitem__)
    assert (found["threshold"], found["median"]) == pytest.approx(chosen)
    on_test = {setting: by_hand(test, setting) for setting in task.settings}
    wanted = min(on_test.values()) if protocol == "compat" else on_test[chosen]
    found = figures(test, "test")
    assert found["der"] == pytest.approx(wanted)
    assert found["der"] == pytest.approx(found["miss"] + found["false_alarm"] + found["confusion"])
    assert set(found) <= task.less_is_better
    rows = list(enumerate(task.outcomes(*test)))
    examples = task.examples(rows, data, "test")
    values = np.array([outcome for _, *outcome in examples])
    kept = Outcomes(tuple(name for name, *_ in examples), values, task.statistic)
    assert score(kept, np.ones((1, 12)))[0] == pytest.approx(wanted)
    assert 0 < wanted < 1


def test_too_many_voices_and_settings_that_are_none_are_one_sentence() -> None:
    with pytest.raises(UserError, match=r"At most 6 voices can be told apart, and data\.target has 7; number those"):
        built(7)
    with pytest.raises(UserError, match="medians by odd numbers"):
        Diarize(medians=[2])
    with pytest.raises(UserError, match="medians by odd numbers"):
        Diarize(thresholds=[])


# Whole runs -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def meetings(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A high and a low tone that take turns; who speaks at each state of 10 ms."""
    folder, random = tmp_path_factory.mktemp("meetings"), np.random.default_rng(0)
    for split, n in (("train", 10), ("validation", 4), ("test", 4)):
        rows = []
        for i in range(n):
            frames = 60 + 3 * i
            active = turns(1, frames, 2)[0]
            time = np.arange(160 * frames) / 16000
            wave = 0.02 * random.standard_normal(len(time))
            for voice, pitch in enumerate((200, 1100)):
                wave += 0.3 * np.sin(2 * np.pi * pitch * time) * np.repeat(active[:, voice].numpy(), 160)
            soundfile.write(folder / f"{split}{i}.wav", wave, 16000)
            who = [[str(v) for v in range(2) if frame[v]] for frame in active.tolist()]
            rows.append({"audio": f"{split}{i}.wav", "speakers": who})
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


@pytest.mark.parametrize("mode", ["probe", "finetune"])
def test_who_speaks_when_is_learned_tested_and_read_again(mode: Any, meetings: str, tmp_path: Path) -> None:
    data = Speech(meetings, target="speakers", batch_size=4)
    task = Diarize(hidden=8, medians=[1, 3])
    model = Finetune(tiny_speech_encoder(), task, readout="weighted_sum", mode=mode)
    options: dict[str, Any] = {"default_root_dir": tmp_path, "accelerator": "cpu", **QUIET}
    trainer = pl.Trainer(max_epochs=2, **options)
    trainer.fit(model, datamodule=data)
    assert {"val/der", "val/miss", "val/false_alarm", "val/confusion"} <= set(trainer.callback_metrics)
    assert model.protocol == mode
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    trainer.test(model, datamodule=data, verbose=False)
    before = float(trainer.callback_metrics["test/der"])
    other = Finetune(tiny_speech_encoder(), Diarize(hidden=8, medians=[1, 3]), readout="weighted_sum", mode=mode)
    other.recall(torch.load(tmp_path / "c.ckpt", weights_only=True))
    again = pl.Trainer(**options)
    again.test(other, datamodule=data, verbose=False, ckpt_path=tmp_path / "c.ckpt", weights_only=True)
    assert float(again.callback_metrics["test/der"]) == pytest.approx(before)
    said = again.predict(other, data.eval_dataloader("test"))
    assert len(said[0][0]) == 2
