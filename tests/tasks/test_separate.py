"""Separation and enhancement: figures against torchmetrics, the loss by its definition, masks that see no padding."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import soundfile
import torch
from tiny import QUIET, tiny_speech_encoder
from torch import Tensor, nn
from torchmetrics.functional.audio import (
    permutation_invariant_training,
    scale_invariant_signal_distortion_ratio,
)

from ssl_suite.bench.resample import Outcomes, score
from ssl_suite.core.batch import lengths_to_mask
from ssl_suite.core.errors import UserError
from ssl_suite.core.finetune import Finetune
from ssl_suite.data.speech.speech import Speech
from ssl_suite.tasks.recurrent import BLSTM
from ssl_suite.tasks.separate import Masked, Separate, si_sdr

HOP = 160
WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def built(*voices: str, **options: Any) -> Separate:
    task = Separate(voices or ("a", "b"), **{"hidden": 8, "layers": 2, "window": 512, "dropout": 0.0, **options})
    task.build(6, {})
    task.meet(SimpleNamespace(request=SimpleNamespace(stride=HOP)))  # type: ignore[arg-type]
    return task.eval()


def sounds(n: int, voices: int, size: int) -> Tensor:
    """(n, voices, size) tones of a pitch each, that come and go."""
    time = torch.arange(size) / 16000
    pitch = 100 + 200 * torch.arange(voices)[None, :, None] + 50 * torch.rand(n, voices, 1)
    return torch.sin(6.283 * pitch * time) * torch.rand(n, voices, 1) * (torch.sin(20 * time + pitch) + 1.2)


def heard(task: Separate, parts: Tensor, lengths: Tensor) -> tuple[Masked, Tensor, dict[str, Tensor]]:
    """Answers of a task with random features on a mixture of these voices."""
    size = parts.shape[2]
    parts = parts * lengths_to_mask(lengths, size)[:, None]
    mask = lengths_to_mask(lengths // HOP, size // HOP)
    output = task(torch.randn(len(parts), size // HOP, 6), mask, parts.sum(1), lengths)
    return output, mask, dict(zip(task.voices, parts.unbind(1), strict=True))


@pytest.mark.parametrize("n", [400, 8000])
def test_si_sdr_is_torchmetrics(n: int) -> None:
    true = torch.randn(5, n) + 0.1
    said = 0.3 * true + torch.logspace(-3, 1, 5)[:, None] * torch.randn(5, n)
    wanted = scale_invariant_signal_distortion_ratio(said, true, zero_mean=True)
    torch.testing.assert_close(si_sdr(said, true, torch.ones(5, n, dtype=torch.bool)), wanted, rtol=1e-4, atol=1e-3)
    lengths = torch.tensor([n, n // 2, n // 3, n - 1, 50])
    masked = si_sdr(said, true, lengths_to_mask(lengths, n))
    for row, length in enumerate(lengths.tolist()):
        alone = scale_invariant_signal_distortion_ratio(said[row, :length], true[row, :length], zero_mean=True)
        torch.testing.assert_close(masked[row], alone, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("voices", [1, 2, 3])
def test_figures_are_those_of_the_best_order_as_torchmetrics_finds_it(voices: int) -> None:
    task, lengths = built(*"abc"[:voices]), torch.tensor([4000, 4000, 2560])
    output, _, target = heard(task, sounds(3, voices, 4000), lengths)
    clear, before, counts = task.judged(output, target)
    said, mixture = task.separated(output), output.wave
    true = torch.stack([*target.values()], 1)
    for row, n in enumerate(lengths.tolist()):
        best, _ = permutation_invariant_training(
            said[row : row + 1, :, :n], true[row : row + 1, :, :n], scale_invariant_signal_distortion_ratio,
            eval_func="max", zero_mean=True,
        )  # fmt: skip
        assert float(clear[row].detach()) == pytest.approx(float(best.detach()), abs=1e-2)
        alone = scale_invariant_signal_distortion_ratio(
            mixture[row, :n].expand(voices, -1), true[row, :, :n], zero_mean=True
        )
        assert float(before[row]) == pytest.approx(float(alone.mean()), abs=1e-2)
    assert counts.all()


def test_the_loss_is_that_of_phase_sensitive_magnitudes_in_the_best_order() -> None:
    task, lengths = built(), torch.tensor([3200, 1600])
    output, mask, target = heard(task, sounds(2, 2, 3200), lengths)
    total = 0.0
    for row, n in enumerate(lengths.tolist()):
        mixture, parts = output.wave[row, :n], [target[v][row, :n] for v in "ab"]
        heard_, *true = (
            torch.stft(torch.nn.functional.pad(w, (0, 512)), 512, HOP, window=torch.hann_window(512),
                       pad_mode="constant", return_complex=True) for w in (mixture, *parts)
        )  # fmt: skip
        times = heard_.shape[1]
        masks = output.masks[row, :, :, :times]
        costs = []
        for order in itertools.permutations(range(2)):
            cost = 0.0
            for voice, meant in enumerate(order):
                wanted = true[meant].abs() * torch.cos(heard_.angle() - true[meant].angle()).clamp(min=0)
                said = masks[voice] * torch.log1p(heard_.abs())
                cost += float((said - torch.log1p(wanted)).square().sum())
            costs.append(cost)
        total += min(costs) / (n // HOP + 1) / 2
    assert float(task.loss(output, mask, target)) == pytest.approx(total / 2, rel=1e-3)


def test_masks_of_the_truth_restore_the_voices() -> None:
    """With the ideal mask for the log magnitudes, what comes out is the voice but for its phase."""
    task, lengths = built("clean"), torch.tensor([4000])
    output, _, target = heard(task, sounds(1, 1, 4000), lengths)
    whole = output._replace(masks=torch.ones_like(output.masks))
    torch.testing.assert_close(task.separated(whole)[:, 0], target["clean"], rtol=1e-3, atol=1e-4)
    silent = output._replace(masks=torch.zeros_like(output.masks))
    assert task.separated(silent).abs().max() == 0


def test_nothing_of_the_padding_reaches_a_voice() -> None:
    task, lengths = built(), torch.tensor([4800, 1700])
    parts = sounds(2, 2, 4800) * lengths_to_mask(lengths, 4800)[:, None]
    features, mask = torch.randn(2, 30, 6), lengths_to_mask(lengths // HOP, 30)
    target = dict(zip("ab", parts.unbind(1), strict=True))
    together = task(features, mask, parts.sum(1), lengths)
    alone = task(features[1:, :10], mask[1:, :10], parts[1:].sum(1)[:, :1700], lengths[1:])
    torch.testing.assert_close(task.separated(together)[1:, :, :1700], task.separated(alone), rtol=1e-4, atol=1e-5)
    assert task.separated(together)[1, :, 1700:].abs().max() == 0
    short = {v: wave[1:, :1700] for v, wave in target.items()}
    both, first = (
        task.loss(together, mask, target),
        task.loss(
            task(features[:1], mask[:1], parts[:1].sum(1), lengths[:1]), mask[:1], {v: w[:1] for v, w in target.items()}
        ),
    )
    torch.testing.assert_close(task.loss(alone, mask[1:, :10], short), 2 * both - first, rtol=1e-4, atol=1e-5)
    for a, b in zip(task.judged(together, target), task.judged(alone, short), strict=True):
        torch.testing.assert_close(a[1:], b, rtol=1e-3, atol=1e-3)


def test_the_layers_are_torchs_own_and_read_each_row_from_its_own_end() -> None:
    layers, peer, lengths = BLSTM(6, 5, 2), nn.LSTM(6, 5, 2, batch_first=True, bidirectional=True), [9, 4, 1]
    for end, side in (("", layers.ahead), ("_reverse", layers.back)):
        for depth, lstm in enumerate(side):
            lstm.load_state_dict({f"{n}_l0": getattr(peer, f"{n}_l{depth}{end}") for n in WEIGHTS})
    features, mask = torch.randn(3, 9, 6), lengths_to_mask(torch.tensor(lengths), 9)
    together = layers(features, mask)
    for row, n in enumerate(lengths):
        torch.testing.assert_close(together[row : row + 1, :n], peer(features[row : row + 1, :n])[0])
        assert together[row, n:].abs().sum() == 0


def test_outcomes_make_up_the_figure_and_silent_voices_do_not_count() -> None:
    task, parts = built("a", "b", "c"), sounds(6, 3, 3200)
    parts[4, 1] = 0
    output, mask, target = heard(task, parts, torch.full((6,), 3200))
    metrics = task.metrics()
    task.update(metrics, output, mask, target)
    kept = task.outcomes(output, mask, target)
    assert [i for i, outcome in enumerate(kept) if outcome is None] == [4]
    values = np.array([outcome for outcome in kept if outcome is not None])
    found = Outcomes(tuple("012345"[: len(values)]), values, task.statistic)
    figures = {name: float(value) for name, value in metrics.compute().items()}
    assert score(found, np.ones((1, 5)))[0] == pytest.approx(figures["si_sdri"], abs=1e-5)
    assert figures["si_sdri"] != pytest.approx(figures["si_sdr"], abs=0.1)


@pytest.mark.parametrize(("voices", "sentence"), [
    ([], "names the voices of a mixture"), (["a", "a"], "each once"), (list("abcdefg"), "At most 6 voices"),
])  # fmt: skip
def test_voices_that_are_none_are_one_sentence(voices: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Separate(voices)


def test_a_window_too_small_for_the_encoder_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"window is 256 samples, but an encoder with a state every 160 needs .* 320"):
        built(window=256)


# Whole runs -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixtures(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two tones, together and each by itself."""
    folder = tmp_path_factory.mktemp("mixtures")
    for split, n in (("train", 8), ("validation", 3), ("test", 3)):
        (folder / split).mkdir()
        rows = ["file_name,a,b"]
        for i in range(n):
            parts = 0.3 * sounds(1, 2, 4000 + 320 * i)[0].numpy()
            for name, wave in (("mix", parts.sum(0)), ("a", parts[0]), ("b", parts[1])):
                soundfile.write(folder / split / f"{name}{i}.wav", wave, 16000, subtype="FLOAT")
            rows.append(f"mix{i}.wav,a{i}.wav,b{i}.wav")
        (folder / split / "metadata.csv").write_text("\n".join(rows) + "\n")
    return str(folder)


@pytest.mark.parametrize(("mode", "voices"), [("probe", ["a", "b"]), ("finetune", ["a", "b"]), ("probe", ["a"])])
def test_voices_are_separated_from_files_to_figures(
    mode: Any, voices: list[str], mixtures: str, tmp_path: Path
) -> None:
    data = Speech(mixtures, batch_size=4)
    task = Separate(voices, hidden=8, layers=1, window=512)
    model = Finetune(tiny_speech_encoder(), task, readout="weighted_sum", mode=mode)
    options: dict[str, Any] = {"default_root_dir": tmp_path, "accelerator": "cpu", **QUIET}
    trainer = pl.Trainer(max_epochs=2, **options)
    trainer.fit(model, datamodule=data)
    assert task.hop == model.encoder.stride
    trainer.test(model, datamodule=data, verbose=False)
    assert np.isfinite(float(trainer.callback_metrics["test/si_sdri"]))
    assert len(model.examples("test")) == 3
    said = trainer.predict(model, data.eval_dataloader("test"))
    assert {len(wave) for row in said[0] for wave in row.values()} == {4000, 4320, 4640}
