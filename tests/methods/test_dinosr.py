"""DinoSR and SpidR against their papers' equations; and what moves when: teacher, codes, front end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tiny import QUIET, speech_batch, tiny_speech_encoder
from torch import Tensor
from upstreams import trunk

from ssl_suite.core.ema import Ramp
from ssl_suite.core.encoder import Tokens
from ssl_suite.core.errors import UserError
from ssl_suite.data.speech.speech import Speech
from ssl_suite.methods.speech.dinosr import DinoSR, MovingCodebooks, SpidR
from ssl_suite.methods.speech.spans import Spans

METHODS = {"DinoSR": DinoSR, "SpidR": SpidR}


def made(method: type[DinoSR] = DinoSR, **options: Any) -> DinoSR:
    torch.manual_seed(0)
    model = method(trunk(layers=3), **{"top": 2, "codes": 7, "spans": Spans(0.5, 3, 1), **options})
    with torch.no_grad():
        for p in model.teacher.parameters():
            p += 0.05 * torch.randn_like(p)
    return model


def blocks_of(encoder: Any, tokens: Tokens) -> tuple[Tensor, list[Tensor]]:
    """The last state, and what each block's feed-forward adds, run block by block."""
    x, added = tokens.values if encoder.positions is None else encoder.positions(tokens), []
    for block in encoder.trunk.blocks:
        x = x + block.attention(block.norm1(x), None)
        added.append(block.feed_forward(block.norm2(x)))
        x = x + added[-1]
    return encoder.trunk.norm(x), added


@pytest.mark.parametrize("name", METHODS)
def test_loss_and_gradient_are_those_of_the_papers_equations(name: str) -> None:
    model, lengths = made(METHODS[name]), [6400, 3000]
    whole, terms = speech_batch(lengths), []
    for i, length in enumerate(lengths):
        batch = speech_batch([length])
        batch.wave, batch.seed = whole.wave[i : i + 1, :length], whole.seed[i : i + 1]
        tokens = model.encoder.embed(batch)
        masked = model.spans.draw(tokens.mask, batch.seed)[0].tolist()
        with torch.no_grad():
            taught = blocks_of(model.teacher, tokens)[1][-2:]
        seen = torch.stack([model.hole if m else v for m, v in zip(masked, tokens.values[0], strict=True)])[None]
        last, added = blocks_of(model.encoder, Tokens(seen, tokens.mask))
        for n, layer in enumerate(taught):
            y = (layer[0] - layer[0].mean(0)) / (layer[0].var(0, correction=0) + 1e-5).sqrt()
            read = last if name == "DinoSR" else added[-2:][n]
            books = model.codebooks.sums[n] / model.codebooks.sizes[n][:, None]
            for t, hidden in enumerate(masked):
                if hidden:
                    code = min(range(7), key=lambda v, y=y[t], e=books: float((y - e[v]).norm()))
                    terms.append(-model.predict[n](read[0, t]).log_softmax(0)[code])
    wanted, out = torch.stack(terms).mean(), model.step(whole)
    torch.testing.assert_close(out.total(), wanted, rtol=1e-5, atol=1e-6)
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    found, gradients = (torch.autograd.grad(loss, list(named.values())) for loss in (out.total(), wanted))
    for key, a, b in zip(named, found, gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=lambda m, k=key: f"{k}: {m}")


def test_codes_move_towards_the_frames_that_chose_them_and_others_stay() -> None:
    torch.manual_seed(0)
    books = MovingCodebooks(2, 5, 3, 0.9)
    sums, sizes = books.sums.clone(), books.sizes.clone()
    torch.testing.assert_close(sums.mean(1), torch.zeros(2, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(sums.square().mean(1), torch.ones(2, 3))
    batches = [torch.randn(2, 4, 3), torch.randn(2, 1, 3)]
    codes = [books(frames, learn=True) for frames in batches]  # two that share an optimizer step
    books(torch.randn(2, 50, 3))  # of a validation
    books.move()
    for n in range(2):
        for v in range(5):
            mine = [frames[n, m] for frames, c in zip(batches, codes, strict=True) for m in (c[n] == v).nonzero()[:, 0]]
            s, size = sums[n, v], sizes[n, v]
            if mine:
                s, size = 0.9 * s + 0.1 * torch.stack(mine).sum(0), 0.9 * size + 0.1 * len(mine)
            torch.testing.assert_close(books.sums[n, v], s)
            torch.testing.assert_close(books.sizes[n, v], torch.as_tensor(size))


class Moved(pl.Callback):
    """What differs from before, after each optimizer step."""

    def __init__(self) -> None:
        self.moved: list[set[str]] = []

    def on_train_batch_start(self, trainer: Any, model: Any, batch: Any, batch_idx: int) -> None:
        self.before = {n: w.clone() for n, w in model.state_dict().items()}

    def on_train_batch_end(self, trainer: Any, model: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.moved.append({n for n, w in model.state_dict().items() if not torch.equal(w, self.before[n])})

    def on_validation_start(self, trainer: Any, model: Any) -> None:
        self.held = {n: w.clone() for n, w in model.codebooks.state_dict().items()}

    def on_validation_end(self, trainer: Any, model: Any) -> None:
        assert all(torch.equal(w, self.held[n]) for n, w in model.codebooks.state_dict().items())


def test_a_batch_moves_the_codes_once(speech_folder: str, tmp_path: Path) -> None:
    """The very first too, whose step is taken once more for its FLOPs."""
    model, alone = made(), made()
    batches: list[Any] = []

    class Keep(pl.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            batches.append(batch)

    pl.Trainer(
        accelerator="cpu", max_steps=1, default_root_dir=tmp_path, enable_checkpointing=False, callbacks=[Keep()],
        accumulate_grad_batches=2, limit_val_batches=0, **QUIET,
    ).fit(model, Speech(speech_folder, batch_size=3))  # fmt: skip
    for batch in batches:
        alone.step(batch)
    alone.codebooks.move()
    assert len(batches) == 2
    torch.testing.assert_close(model.codebooks.sizes, alone.codebooks.sizes)
    torch.testing.assert_close(model.codebooks.sums, alone.codebooks.sums)


@pytest.mark.parametrize("name", METHODS)
def test_codes_and_teacher_move_in_training_alone_and_teacher_and_front_end_stop_where_they_shall(
    name: str, speech_folder: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    encoder = tiny_speech_encoder(trunk="transformer", frontend="waveform")
    momentum = Ramp(0.9, 1.0, 10, "exponential")
    model = METHODS[name](encoder, top=2, codes=7, spans=Spans(0.5, 3, 1), momentum=momentum, freeze_step=2)
    seen = Moved()
    pl.Trainer(
        accelerator="cpu", max_steps=4, default_root_dir=tmp_path, enable_checkpointing=False, callbacks=[seen],
        val_check_interval=1, num_sanity_val_steps=2, **QUIET,
    ).fit(model, Speech(speech_folder, batch_size=3))  # fmt: skip
    assert len(seen.moved) == 4
    for step, moved in enumerate(seen.moved):
        assert "codebooks.sums" in moved
        assert any(n.startswith("teacher.trunk.blocks") for n in moved) is (step < 2)
        assert any(n.startswith("encoder.frontend") for n in moved) is (step < 2)
        assert any(n.startswith("encoder.trunk.blocks") for n in moved)
    assert not torch.equal(model.teacher.project.weight, model.encoder.project.weight)  # since step 2


def test_the_teacher_shares_what_stands_below_the_blocks_and_spidrs_begins_elsewhere() -> None:
    for method, same in ((DinoSR, True), (SpidR, False)):
        torch.manual_seed(0)
        model = method(trunk(), top=1, codes=7)
        assert torch.equal(model.teacher.project.weight, model.encoder.project.weight)
        first = [e.trunk.blocks[0].feed_forward.up.weight for e in (model.teacher, model.encoder)]
        assert torch.equal(*first) is same
        with torch.no_grad():
            model.encoder.project.weight += 1
        model.codebooks(torch.randn(1, 4, 16), learn=True)
        model.after_step()
        assert torch.equal(model.teacher.project.weight, model.encoder.project.weight)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_no_norm_of_spidr_waits_for_a_gradient_that_never_comes(norm: str) -> None:
    model = SpidR(trunk(norm=norm), top=1, codes=7)
    model.step(speech_batch([6400, 3000])).total().backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert sum(p.numel() for p in model.encoder.parameters() if not p.requires_grad) == 2 * 16


def test_an_exponential_ramp_is_spidrs() -> None:
    ramp = Ramp(0.999, 1.0, 20_000, "exponential")
    assert ramp.at(0, 1) == pytest.approx(0.999)
    assert 1 - ramp.at(20_000, 1) == pytest.approx(0.001 / 2.718281828, rel=1e-6)
    assert 1 - ramp.at(184_300, 1) < 1e-7 < 1 - ramp.at(184_000, 1)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match="DinoSR needs a transformer"):
        DinoSR(tiny_speech_encoder())
    with pytest.raises(UserError, match="top is 8, but must be a whole number at least 1 and at most 2"):
        SpidR(trunk())
