"""What every run has: throughput, a stop on a non-finite loss, the encoder folder with where it comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from tiny import (
    QUIET,
    differing,
    image_batch,
    speech_batch,
    text_batch,
    tiny_image_encoder,
    tiny_speech_encoder,
    tiny_text_encoder,
)
from torch import Tensor

from ssl_suite.core.callbacks import Throughput, utilisation
from ssl_suite.core.encoder import batch_units
from ssl_suite.core.errors import UserError
from ssl_suite.core.flops import step_flops
from ssl_suite.core.hashing import config_hash
from ssl_suite.core.load import load_encoder
from ssl_suite.core.method import StepOutput
from ssl_suite.data.image.images import Images
from ssl_suite.data.speech.speech import Speech
from ssl_suite.data.text.text import Text
from ssl_suite.methods.image.byol import BYOL
from ssl_suite.methods.image.simclr import SimCLR
from ssl_suite.methods.speech.apc import APC
from ssl_suite.methods.text.masked_lm import MaskedLM


def fit(model: Any, data: Any, folder: Path, **options: Any) -> pl.Trainer:
    pl.seed_everything(0)
    quiet = {**QUIET, "logger": CSVLogger(folder, name="", version=""), "accelerator": "cpu", "log_every_n_steps": 1}
    trainer = pl.Trainer(default_root_dir=folder, enable_checkpointing=False, **{**quiet, "max_epochs": 2, **options})
    trainer.fit(model, data)
    return trainer


def test_a_batch_is_counted_in_its_own_unit() -> None:
    assert batch_units(image_batch(5)) == (5.0, "images/s")
    tokens, unit = batch_units(text_batch([7, 3]))
    assert (int(tokens), unit) == (10, "tokens/s")
    seconds, unit = batch_units(speech_batch([16000, 8000]))
    assert (float(seconds), unit) == (1.5, "audio-s/s")


@pytest.mark.parametrize("modality", ["image", "text", "speech"])
def test_throughput_is_logged_in_the_modalitys_unit(
    modality: str, image_folder: str, text_file: str, speech_folder: str, tmp_path: Path
) -> None:
    model, data, name, total = {
        "image": lambda: (SimCLR(tiny_image_encoder()), Images(image_folder, 16, batch_size=4), "images_per_s", 24),
        "text": lambda: (
            MaskedLM(tiny_text_encoder()), Text(text_file, tokenizer="byte", max_length=48, batch_size=16),
            "tokens_per_s", None,
        ),
        "speech": lambda: (
            APC(tiny_speech_encoder()), Speech(speech_folder, batch_size=4), "audio-s_per_s",
            2 * sum(3200 + 400 * i for i in range(12)) / 16000,
        ),
    }[modality]()  # fmt: skip
    trainer = fit(model, data, tmp_path)
    assert trainer.logged_metrics[f"train/{name}"] > 0
    assert 0 < trainer.logged_metrics["train/mfu"] < 1
    assert {"train/loss", "train/feature_std", "train/effective_rank", "val/loss"} <= set(trainer.callback_metrics)
    speed = next(c for c in trainer.callbacks if isinstance(c, Throughput))  # type: ignore[attr-defined]
    wanted = total if total is not None else trainer.global_step * 16 * 48
    assert float(speed.total_units) == pytest.approx(wanted, rel=1e-4)


def test_provenance_says_where_an_encoder_comes_from(image_folder: str, tmp_path: Path) -> None:
    model = SimCLR(tiny_image_encoder())
    model.command, model.run_config = "ssl-suite fit", {"model": 1}
    trainer = fit(model, Images(image_folder, 16, batch_size=4), tmp_path)
    folder = tmp_path / "encoder"
    found = json.loads((folder / "provenance.json").read_text())
    expected = {
        "method": "SimCLR", "encoder": "ImageEncoder", "modality": "image", "data": image_folder, "seed": 0,
        "steps": trainer.global_step, "parameters": model.encoder.num_parameters(), "command": "ssl-suite fit",
        "config_hash": config_hash({"model": 1}),
    }  # fmt: skip
    assert {k: found[k] for k in expected} == expected
    assert found["throughput"]["unit"] == "images/s"
    assert found["throughput"]["value"] > 0
    assert found["seconds"] > 0
    assert 0 < found["mfu"] < 1
    assert "train/loss" in found["metrics"]
    assert {"python", "torch", "pytorch-lightning", "ssl_suite"} <= set(found["versions"])
    assert "CPU" in found["machine"]
    assert differing(load_encoder(folder).state_dict(), model.encoder.state_dict()) == []


def test_counting_flops_changes_nothing_and_counts_matrix_products(image_folder: str, tmp_path: Path) -> None:
    model = BYOL(tiny_image_encoder(), 16, 8)
    trainer = fit(model, Images(image_folder, 16, batch_size=4), tmp_path, max_epochs=1)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    flops = step_flops(model.train(), image_batch(4))
    assert differing(model.state_dict(), before) == []
    assert all(p.grad is None or not p.grad.any() for p in model.teacher_encoder.parameters())
    twice = step_flops(model, image_batch(8))
    assert twice == pytest.approx(2 * flops)  # type: ignore[operator]
    assert trainer.global_step == 3


class Breaks(SimCLR):
    """A loss that is not finite at the third step."""

    def step(self, batch: Any) -> StepOutput:
        out = super().step(batch)
        broken = self.training and torch.is_grad_enabled() and self.trainer.global_step == 2
        loss: Tensor = out.total() * (float("nan") if broken else 1.0)
        return StepOutput(loss, features=out.features)


def test_a_non_finite_loss_stops_the_run_and_keeps_its_batch(image_folder: str, tmp_path: Path) -> None:
    model = Breaks(tiny_image_encoder())
    with pytest.raises(UserError, match=r"loss became nan.*non_finite_batch_rank0\.pt"):
        fit(model, Images(image_folder, 16, batch_size=4), tmp_path)
    kept = torch.load(tmp_path / "non_finite_batch_rank0.pt", weights_only=True)
    assert kept["images"].shape == (4, 3, 16, 16)
    assert len(kept["views"]) == 2
    assert len(kept["index"]) == 4
    assert not (tmp_path / "encoder").exists()


def test_config_hash_ignores_places_and_seeds_only() -> None:
    base = {
        "model": {"lr": 1.0},
        "seed_everything": 1,
        "out": "a",
        "trainer": {"default_root_dir": "a", "logger": None},
    }
    moved = {
        "model": {"lr": 1.0},
        "seed_everything": 2,
        "out": "b",
        "trainer": {"default_root_dir": "b", "logger": True},
    }
    assert config_hash(base) == config_hash(moved)
    assert config_hash(base) != config_hash({**base, "model": {"lr": 2.0}})


def test_utilisation_is_a_share_or_unknown() -> None:
    assert utilisation(30.0, 120.0) == 0.25
    assert [utilisation(130.0, 120.0), utilisation(None, 120.0), utilisation(30.0, None)] == [None, None, None]


def test_batches_that_share_a_step_count_for_utilisation_and_a_hook_runs_once_a_step(
    image_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    monkeypatch.setattr(SimCLR, "after_step", lambda self: steps.append(self.trainer.global_step))
    model = SimCLR(tiny_image_encoder())
    trainer = fit(model, Images(image_folder, 16, batch_size=2), tmp_path, accumulate_grad_batches=2, max_epochs=1)
    speed = next(c for c in trainer.callbacks if isinstance(c, Throughput))  # type: ignore[attr-defined]
    assert speed.total_batches == trainer.fit_loop.epoch_loop.batch_progress.total.processed > trainer.global_step
    assert steps == list(range(trainer.global_step))  # and not in validation
