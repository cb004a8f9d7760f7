"""The teacher: once an optimizer step, after it, by a momentum that follows from the step."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tiny import QUIET, tiny_image_encoder
from torch import nn

import ssl_suite.core.method as method_module
from ssl_suite.core.ema import Ramp, teacher_of, update_teacher
from ssl_suite.data.image.images import Images
from ssl_suite.methods.image.byol import BYOL


def test_momentum_goes_from_start_to_end_by_a_cosine() -> None:
    for step in (0, 3, 50, 99, 100):
        expected = 1 - (1 - 0.996) * (math.cos(math.pi * step / 100) + 1) / 2
        assert Ramp(0.996, 1.0).at(step, 100) == pytest.approx(expected, abs=1e-12)
    assert Ramp(0.996, 1.0).at(0, 100) == pytest.approx(0.996)
    assert Ramp(0.9, 0.99).at(100, 100) == pytest.approx(0.99)
    assert Ramp(0.996, 1.0).at(500, 100) == 1.0
    assert Ramp(0.9, 0.99, steps=10, shape="linear").at(5, 100) == pytest.approx(0.945)
    assert Ramp(0.9, 0.99, steps=10, shape="linear").at(50, 100) == pytest.approx(0.99)


def test_teacher_is_the_weighted_mean_and_keeps_its_own_buffers() -> None:
    online = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    teacher = teacher_of(online)
    assert not any(p.requires_grad for p in teacher.parameters())
    before = [p.clone() for p in teacher.parameters()]
    with torch.no_grad():
        for p in online.parameters():
            p.add_(torch.rand_like(p))
    online[1].num_batches_tracked.fill_(7)
    teacher[1].num_batches_tracked.fill_(5)
    update_teacher(online, teacher, 0.9)
    for old, new, source in zip(before, teacher.parameters(), online.parameters(), strict=True):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * source)
    assert teacher[1].num_batches_tracked == 5
    assert teacher[1].num_batches_tracked.dtype == torch.long


class Watch(pl.Callback):
    """Keeps the online and teacher weights after every batch."""

    def __init__(self) -> None:
        self.online: list[torch.Tensor] = []
        self.teacher: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.online.append(torch.cat([p.detach().flatten() for p in pl_module.projector.parameters()]))
        self.teacher.append(torch.cat([p.detach().flatten() for p in pl_module.teacher_projector.parameters()]))
        assert all(p.grad is None for p in pl_module.teacher_encoder.parameters())


@pytest.mark.parametrize("accumulate", [1, 2])
def test_teacher_moves_once_per_optimizer_step_from_the_new_weights(
    accumulate: int, image_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pl.seed_everything(0)
    model = BYOL(tiny_image_encoder(), 16, 8, momentum=(0.5, 1.0))
    start = torch.cat([p.detach().flatten() for p in model.teacher_projector.parameters()])
    used: list[float] = []

    def update(online: nn.Module, teacher: nn.Module, momentum: float) -> None:
        used.append(momentum)
        update_teacher(online, teacher, momentum)

    monkeypatch.setattr(method_module, "update_teacher", update)
    watch = Watch()
    trainer = pl.Trainer(
        max_epochs=2, limit_train_batches=4, limit_val_batches=0, accumulate_grad_batches=accumulate, callbacks=[watch],
        default_root_dir=tmp_path, enable_checkpointing=False, accelerator="cpu", **QUIET,
    )  # fmt: skip
    trainer.fit(model, datamodule=Images(image_folder, image_size=16, batch_size=3))
    steps = 8 // accumulate
    assert trainer.global_step == steps
    assert used[::2] == [Ramp(0.5, 1.0).at(s, steps) for s in range(steps)]
    teacher = start
    for k in range(steps):
        tau, batch = used[2 * k], (k + 1) * accumulate - 1
        teacher = tau * teacher + (1 - tau) * watch.online[batch]
        torch.testing.assert_close(watch.teacher[batch], teacher)
    held = {id(p) for g in trainer.optimizers[0].param_groups for p in g["params"]}
    assert not held & {id(p) for p in [*model.teacher_encoder.parameters(), *model.teacher_projector.parameters()]}
    assert held == {id(p) for p in model.parameters() if p.requires_grad}
    norms = [m for m in model.teacher_encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(
        m.num_batches_tracked == 16 for m in norms
    )  # two views a batch, in train mode; counting FLOPs left no trace
