"""Groups, learning-rate scale and schedules, against formulas written out by hand."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from tiny import QUIET, tiny_image_encoder, tiny_speech_encoder, tiny_text_encoder
from torch import nn

from ssl_suite.core.errors import UserError
from ssl_suite.core.optim import Optim, build_optimizer, build_schedule, check_cover, lr_factor, parameter_groups
from ssl_suite.data.image.images import Images
from ssl_suite.methods.image.simclr import SimCLR


@pytest.mark.parametrize("make", [tiny_image_encoder, tiny_text_encoder, tiny_speech_encoder])
def test_each_parameter_is_in_one_group_and_only_weights_decay(make: object) -> None:
    model = make()  # type: ignore[operator]
    decayed, plain = parameter_groups(model, 0.1)
    ids = [id(p) for p in [*decayed["params"], *plain["params"]]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    norms = (nn.LayerNorm, nn.BatchNorm2d)
    undecayed = {id(p) for p in plain["params"]}
    for module in model.modules():
        for name, p in module.named_parameters(recurse=False):
            if isinstance(module, norms) or "bias" in name:
                assert id(p) in undecayed


def test_lars_adapts_weights_but_not_biases_and_norms() -> None:
    weight, bias = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    module = nn.ParameterList([weight, bias])
    optimizer = build_optimizer(Optim("lars", momentum=0.0), parameter_groups(module, 0.1), lr=1.0)
    for p in (weight, bias):
        p.grad = torch.full_like(p, 10.0)
    optimizer.step()
    torch.testing.assert_close(bias.detach(), torch.full((2,), 1 - 10.0))
    trust = 0.001 * 2 / (20 + 0.1 * 2)
    torch.testing.assert_close(weight.detach(), torch.full((2, 2), 1 - trust * (10 + 0.1)))


def test_cover_is_checked() -> None:
    model = nn.Linear(2, 2)
    check_cover(model, parameter_groups(model, 0.0))
    with pytest.raises(UserError, match="bias"):
        check_cover(model, [{"params": [model.weight]}])
    with pytest.raises(UserError, match="once"):
        check_cover(model, [{"params": [model.weight, model.bias]}, {"params": [model.bias]}])
    with pytest.raises(UserError, match="once"):
        check_cover(model, [{"params": [model.weight, model.bias, nn.Parameter(torch.ones(1))]}])


def test_learning_rate_scales_with_the_batch() -> None:
    assert Optim(lr=0.3).scaled_lr(1024) == 0.3
    assert Optim(lr=0.3, lr_scale="linear").scaled_lr(1024) == pytest.approx(1.2)
    assert Optim(lr=0.075, lr_scale="sqrt").scaled_lr(4096) == pytest.approx(4.8)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("final", [0.0, 0.1])
def test_schedule_follows_its_formula(schedule: str, final: float) -> None:
    total, warmup = 100, 10
    factor = lr_factor(Optim(schedule=schedule, warmup_steps=warmup, final_lr=final), total, 20)  # type: ignore[arg-type]
    assert factor(0) == pytest.approx(1 / 10)
    assert factor(4) == pytest.approx(5 / 10)
    assert factor(9) == pytest.approx(1)
    assert factor(10) == pytest.approx(1)
    done = (99 - 10) / 90
    shape = {"cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done, "constant": 1.0}[schedule]
    assert factor(99) == pytest.approx(final + (1 - final) * shape)
    end = 1.0 if schedule == "constant" else final
    assert factor(100) == pytest.approx(end)
    assert factor(1000) == pytest.approx(end)
    values = [factor(s) for s in range(10, 101)]
    assert values == sorted(values, reverse=True)


def test_the_stable_schedule_stays_at_its_rate_and_falls_by_one_minus_the_root() -> None:
    factor = lr_factor(Optim(schedule="stable", warmup_steps=10, decay_ratio=0.2, final_lr=0.1), 100, 20)
    assert factor(4) == pytest.approx(0.5)
    assert [factor(step) for step in range(9, 81)] == [1.0] * 72
    assert factor(85) == pytest.approx(0.1 + 0.9 * (1 - math.sqrt(5 / 20)))
    assert factor(100) == factor(999) == pytest.approx(0.1)


def test_warmup_may_be_given_in_epochs_steps_or_a_share() -> None:
    assert Optim(warmup_epochs=2.5).warmup(1000, 40) == 100
    assert Optim(warmup_steps=30, warmup_ratio=0.5).warmup(1000, 40) == 30
    assert Optim(warmup_ratio=0.01).warmup(1000, 40) == 10
    assert Optim().warmup(1000, 40) == 0


def test_a_group_may_keep_its_rate_or_take_a_share_of_it() -> None:
    a, b, c = (nn.Parameter(torch.ones(1)) for _ in range(3))
    groups = [{"params": [a]}, {"params": [b], "lr_factor": 0.5}, {"params": [c], "constant_lr": True}, {"params": []}]
    optimizer = build_optimizer(Optim("sgd"), groups, lr=2.0)
    build_schedule(Optim(warmup_steps=4), optimizer, 10, 5)
    assert [g["lr"] for g in optimizer.param_groups] == [0.5, 0.25, 2.0]


def test_rate_and_warmup_count_optimizer_steps_of_the_global_batch(image_folder: str, tmp_path: Path) -> None:
    """14 images in batches of 3 (last dropped): 4 batches, with accumulation over 3 that is 2 steps an epoch."""
    optim = Optim("sgd", 0.5, "linear", warmup_epochs=1, schedule="linear")
    model = SimCLR(tiny_image_encoder(), projection_dim=8, optim=optim)
    rates: list[float] = []

    class Rates(pl.Callback):
        def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: object, optimizer: object) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    trainer = pl.Trainer(
        max_epochs=3, limit_val_batches=0, accumulate_grad_batches=3, callbacks=[Rates()], default_root_dir=tmp_path,
        enable_checkpointing=False, accelerator="cpu", **QUIET,
    )  # fmt: skip
    trainer.fit(model, datamodule=Images(image_folder, image_size=16, batch_size=3))
    peak = 0.5 * (3 * 3) / 256
    assert rates == pytest.approx([peak * f for f in (1 / 2, 1, 1, 3 / 4, 2 / 4, 1 / 4)])


@pytest.mark.parametrize(
    ("epochs", "name", "value"), [(2, "warmup_epochs", 2), (2, "warmup_steps", 8), (3, "warmup_epochs", 2)]
)
def test_a_warm_up_that_outlasts_the_run_is_named(
    epochs: int, name: str, value: int, image_folder: str, tmp_path: Path
) -> None:
    """4 steps an epoch: a warm-up of 2 epochs takes 8."""
    model = SimCLR(tiny_image_encoder(), projection_dim=8, optim=Optim(**{name: value}))
    trainer = pl.Trainer(
        max_epochs=epochs, limit_val_batches=0, default_root_dir=tmp_path, enable_checkpointing=False,
        accelerator="cpu", **QUIET,
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(model, datamodule=Images(image_folder, image_size=16, batch_size=3))
    said = [str(w.message) for w in caught if "warm-up" in str(w.message)]
    assert said == (["The warm-up takes 8 steps and the run 8: it ends before its learning rate is reached. "
                     f"Train longer or lower model.optim.{name}."] if epochs == 2 else [])  # fmt: skip


def test_weight_decay_moves_by_a_cosine_over_the_steps(image_folder: str, tmp_path: Path) -> None:
    """DINO's: λ + (λ₀ − λ)(1 + cos(πt/T)) / 2; vectors are never decayed."""
    seen: list[list[float]] = []

    class Note(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
            seen.append([group["weight_decay"] for group in trainer.optimizers[0].param_groups])

    model = SimCLR(tiny_image_encoder(), optim=Optim("adamw", 1e-3, weight_decay=0.04, final_weight_decay=0.4))
    options = {"max_steps": 5, "default_root_dir": tmp_path, "enable_checkpointing": False, "accelerator": "cpu"}
    trainer = pl.Trainer(**options, limit_val_batches=0, callbacks=[Note()], **QUIET)  # type: ignore[arg-type]
    trainer.fit(model, Images(image_folder, image_size=16, batch_size=4))
    wanted = [0.4 + (0.04 - 0.4) * (1 + math.cos(math.pi * t / 5)) / 2 for t in range(5)]
    assert [decays[0] for decays in seen] == pytest.approx(wanted)
    assert {decays[1] for decays in seen} == {0.0}
    assert Optim(weight_decay=0.1).decay_at(3, 5) == 0.1
