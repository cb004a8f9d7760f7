"""Checkpoints along a run: at which steps, with which weights, and gone when the run is made anew."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from tiny import QUIET, tiny_text_encoder

from ssl_suite.core.errors import UserError
from ssl_suite.core.load import load_encoder
from ssl_suite.core.milestones import Milestones, milestones
from ssl_suite.core.runs import remove_run
from ssl_suite.data.text.text import Text
from ssl_suite.methods.text.masked_lm import MaskedLM


def run(folder: Path, text_file: str, *more: pl.Callback) -> MaskedLM:
    method = MaskedLM(tiny_text_encoder())
    data = Text(text_file, tokenizer="byte", max_length=32, batch_size=4)
    trainer = pl.Trainer(max_steps=7, callbacks=[Milestones(4, every=5), *more], default_root_dir=folder, **QUIET)
    trainer.fit(method, datamodule=data)
    return method


def test_steps_are_even_on_a_logarithmic_axis() -> None:
    assert [s for s in range(2000) if Milestones(4).is_due(s)] == [
        0,
        1,
        2,
        3,
        6,
        10,
        18,
        32,
        56,
        100,
        178,
        316,
        562,
        1000,
        1778,
    ]
    assert [s for s in range(30) if Milestones(1, every=7).is_due(s)] == [0, 1, 7, 10, 14, 21, 28]
    with pytest.raises(UserError, match=r"Milestones\.per_decade is 0"):
        Milestones(0)


def test_each_is_the_encoder_of_its_step_with_its_head(tmp_path: Path, text_file: str) -> None:
    seen: dict[int, torch.Tensor] = {}

    class Watch(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: MaskedLM) -> None:
            seen[0] = pl_module.encoder.tokens.weight.detach().clone()

        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: MaskedLM, *_: object) -> None:
            seen[trainer.global_step] = pl_module.encoder.tokens.weight.detach().clone()

    method = run(tmp_path, text_file, Watch())
    found = milestones(tmp_path)
    assert list(found) == [0, 1, 2, 3, 5, 6, 7]
    for step, path in found.items():
        encoder = load_encoder(path)
        assert torch.equal(encoder.state_dict()["tokens.weight"], seen[step])
        assert "head.dense.weight" in encoder.heads
    assert torch.equal(load_encoder(found[7]).heads["head.bias"], method.head.bias)
    assert "optimizer_states" not in torch.load(found[7], weights_only=True)


def test_a_run_that_is_made_anew_leaves_none_of_the_old(tmp_path: Path, text_file: str) -> None:
    run(tmp_path, text_file)
    remove_run(tmp_path)
    with pytest.raises(UserError, match=r"--trainer\.callbacks Milestones"):
        milestones(tmp_path)
