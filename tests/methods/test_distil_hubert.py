"""DistilHuBERT against its equation, frame by frame; and what becomes of student and teacher."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from tiny import QUIET, speech_batch, tiny_image_encoder
from torch.nn import functional as F
from upstreams import trunk

from ssl_suite.core.errors import UserError
from ssl_suite.core.folder import save_encoder
from ssl_suite.core.load import load_encoder
from ssl_suite.data.speech.speech import Speech
from ssl_suite.methods.speech.distil_hubert import DistilHuBERT


def made(**options: object) -> DistilHuBERT:
    torch.manual_seed(0)
    teacher = trunk(dim=32, layers=3, stack=2)
    return DistilHuBERT(trunk(stack=2), teacher, **{"layers": (1, 3), "cosine": 0.7, **options})


def test_loss_and_gradient_are_those_of_the_papers_equation() -> None:
    model, batch = made(), speech_batch([6400, 3000])
    encoded, taught = model.encoder(batch), model.teacher(batch)
    terms = []
    for b in range(2):
        for t in range(int(encoded.mask[b].sum())):
            for layer, head in zip((1, 3), model.predict, strict=True):
                h, predicted = taught.states[layer][b, t], head(encoded.states[-1][b, t])
                cosine = (h @ predicted) / (h.norm() * predicted.norm())
                terms.append((h - predicted).abs().sum() / 32 - 0.7 * torch.log(1 / (1 + torch.exp(-cosine))))
    wanted, out = torch.stack(terms).mean(), model.step(batch)
    torch.testing.assert_close(out.total(), wanted, rtol=1e-5, atol=1e-6)
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    found, gradients = (torch.autograd.grad(loss, list(named.values())) for loss in (out.total(), wanted))
    for name, a, b in zip(named, found, gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_the_student_starts_from_its_teachers_lowest_blocks() -> None:
    torch.manual_seed(0)
    teacher = trunk(layers=4)
    student = DistilHuBERT(trunk(layers=1), teacher, (4,)).encoder
    batch = speech_batch([4000, 3000])
    for mine, theirs in zip(student(batch).states[:1], teacher(batch).states[:1], strict=True):
        torch.testing.assert_close(mine, theirs)
    block, first = (e.trunk.blocks[0].state_dict() for e in (student, teacher))
    assert all(torch.equal(block[name], first[name]) for name in first)
    fresh = DistilHuBERT(trunk(layers=1), teacher, (4,), copy=False).encoder
    assert not torch.equal(fresh.project.weight, teacher.project.weight)


def test_training_moves_the_student_alone_and_writes_it(speech_folder: str, tmp_path: Path) -> None:
    folder = save_encoder(trunk(dim=32, layers=3), tmp_path / "teacher")
    model = DistilHuBERT(trunk(dropout=0.1), str(folder), (2, 3)).train()
    assert not model.teacher.training
    before = {n: w.clone() for n, w in model.teacher.state_dict().items()}
    trainer = pl.Trainer(accelerator="cpu", max_steps=3, default_root_dir=tmp_path, enable_checkpointing=False, **QUIET)
    trainer.fit(model, Speech(speech_folder, batch_size=4))
    assert all(torch.equal(w, before[n]) for n, w in model.teacher.state_dict().items())
    written = load_encoder(tmp_path / "encoder")
    assert (written.dim, written.num_states) == (16, 3)
    assert torch.equal(written.project.weight, model.encoder.project.weight)


def test_front_ends_of_one_stride_are_compared_where_both_have_a_state() -> None:
    torch.manual_seed(0)
    model, batch = DistilHuBERT(trunk(stack=2), trunk(frontend="waveform"), (2,)), speech_batch([6400, 3000])
    states, taught = model.encoder(batch), model.teacher(batch)
    assert states.mask.shape != taught.mask.shape
    out = model.step(batch)
    assert float(out.terms["l1"].count) == float(taught.mask.sum()) < float(states.mask.sum())
    predicted = model.predict[0](states.states[-1])
    errors = [F.l1_loss(predicted[b, t], taught.states[2][b, t]) for b, t in taught.mask.nonzero().tolist()]
    torch.testing.assert_close(out.terms["l1"].mean, torch.stack(errors).mean())


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match="state every 160 samples and its teacher every 320"):
        DistilHuBERT(trunk(), trunk(stack=2), (1,))
    with pytest.raises(UserError, match="layers is 4, but must be a whole number at least 0 and at most 3"):
        made(layers=(1, 4))
    with pytest.raises(UserError, match="layers is empty"):
        made(layers=())
    with pytest.raises(UserError, match="speech encoder"):
        DistilHuBERT(trunk(), tiny_image_encoder(), (1,))
