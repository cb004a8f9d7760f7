"""SimCLR and BYOL: their losses written out, and how often each network runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from lightly.loss import NegativeCosineSimilarity, NTXentLoss
from tiny import QUIET, image_batch, tiny_image_encoder, tiny_text_encoder
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_suite.core.errors import UserError
from ssl_suite.core.optim import Optim
from ssl_suite.data.image.images import Images
from ssl_suite.methods.image.byol import BYOL, regression
from ssl_suite.methods.image.simclr import SimCLR


def naive_nt_xent(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """Equation 1 of the paper, one anchor at a time."""
    z, n = F.normalize(torch.cat([a, b]), dim=1), len(a)
    losses = []
    for i in range(2 * n):
        positive = (i + n) % (2 * n)
        others = torch.stack([z[i] @ z[k] / temperature for k in range(2 * n) if k != i])
        losses.append(-(z[i] @ z[positive]) / temperature + others.logsumexp(0))
    return torch.stack(losses).mean()


class Calls:
    """Counts forward passes of a module."""

    def __init__(self, module: nn.Module) -> None:
        self.sizes: list[int] = []
        module.register_forward_hook(lambda m, inputs, out: self.sizes.append(len(inputs[0])))


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_simclr_loss_is_nt_xent(temperature: float) -> None:
    model, batch = SimCLR(tiny_image_encoder(), temperature, 8), image_batch(5)
    out = model.step(batch)
    z: list[Tensor] = []
    model.projector.register_forward_hook(lambda m, i, o: z.append(o))
    model.step(batch)
    a, b = z[0].chunk(2)
    torch.testing.assert_close(out.total(), naive_nt_xent(a, b, temperature))
    torch.testing.assert_close(out.total(), NTXentLoss(temperature)(a, b))


def test_simclr_sends_both_views_through_in_one_forward_in_order() -> None:
    model, batch = SimCLR(tiny_image_encoder(), 0.5, 8), image_batch(5)
    calls = Calls(model.encoder)
    seen: list[Tensor] = []
    model.encoder.register_forward_hook(lambda m, i, o: seen.append(i[0].images))
    out = model.step(batch)
    assert calls.sizes == [10]
    assert torch.equal(seen[0], torch.cat(batch.views))
    assert out.features is not None
    assert out.features.shape == (5, model.encoder.dim)


def test_byol_loss_is_the_squared_distance_of_unit_vectors_both_ways() -> None:
    model, batch = BYOL(tiny_image_encoder(), 16, 8), image_batch(6)
    kept: dict[str, list[Tensor]] = {"p": [], "t": []}
    model.predictor.register_forward_hook(lambda m, i, o: kept["p"].append(o))
    model.teacher_projector.register_forward_hook(lambda m, i, o: kept["t"].append(o))
    loss = model.step(batch).total()
    (p1, p2), (t1, t2) = kept["p"], kept["t"]

    def distance(p: Tensor, t: Tensor) -> Tensor:
        return (F.normalize(p, dim=1) - F.normalize(t, dim=1)).square().sum(1).mean()

    torch.testing.assert_close(loss, distance(p1, t2) + distance(p2, t1))
    lightly = NegativeCosineSimilarity()
    torch.testing.assert_close(loss, 4 + 4 * 0.5 * (lightly(p1, t2) + lightly(p2, t1)))
    assert not t1.requires_grad
    torch.testing.assert_close(regression(p1, p1), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(regression(p1, -p1), torch.tensor(4.0))


def test_byol_runs_each_network_once_a_view() -> None:
    model = BYOL(tiny_image_encoder(), 16, 8)
    calls = [Calls(m) for m in (model.encoder, model.teacher_encoder)]
    model.step(image_batch(5))
    assert [c.sizes for c in calls] == [[5, 5], [5, 5]]
    assert all(
        m.training for m in model.teacher_encoder.modules()
    )  # the teacher normalises by its batch, as in the paper


def test_byol_reaches_everything_but_the_teacher() -> None:
    model = BYOL(tiny_image_encoder(), 16, 8)
    model.step(image_batch(5)).total().backward()
    teacher = {id(p) for m in (model.teacher_encoder, model.teacher_projector) for p in m.parameters()}
    for name, p in model.named_parameters():
        assert (p.grad is None) == (id(p) in teacher), name


def test_byols_predictor_alone_has_a_learning_rate_of_its_own(image_folder: str, tmp_path: Path) -> None:
    model = BYOL(tiny_image_encoder(), 16, 8, predictor_lr=10.0, optim=Optim(lr=0.01, schedule="constant"))
    trainer = pl.Trainer(
        max_steps=1,
        limit_val_batches=0,
        default_root_dir=tmp_path,
        enable_checkpointing=False,
        accelerator="cpu",
        **QUIET,
    )
    trainer.fit(model, datamodule=Images(image_folder, image_size=16, batch_size=3))
    rates = {id(p): g["lr"] for g in trainer.optimizers[0].param_groups for p in g["params"]}
    for name, p in model.named_parameters():
        if p.requires_grad:
            assert rates[id(p)] == pytest.approx(0.1 if name.startswith("predictor.") else 0.01), name


@pytest.mark.parametrize("method", [SimCLR, BYOL])
def test_other_modalities_are_refused(method: Any) -> None:
    with pytest.raises(UserError, match="image encoder; TextEncoder reads text"):
        method(tiny_text_encoder())
