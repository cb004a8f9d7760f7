"""CPC against its paper's equations, frame by frame and negative by negative."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import speech_batch, tiny_speech_encoder
from upstreams import trunk

from ssl_suite.core.errors import UserError
from ssl_suite.core.random import uniform
from ssl_suite.methods.speech.cpc import CPC


def made(frontend: str = "waveform") -> CPC:
    torch.manual_seed(0)
    return CPC(tiny_speech_encoder(frontend=frontend, dropout=0.0), steps=3, negatives=5)


@pytest.mark.parametrize("frontend", ["waveform", "logmel"])
def test_loss_and_gradient_are_those_of_the_papers_equations(frontend: str) -> None:
    model, batch = made(frontend), speech_batch([6400, 2900, 900])
    z, mask = model.encoder.frontend(batch)
    c = model.encoder(batch).states[-1]
    everywhere = [(b, t) for b in range(3) for t in range(int(mask[b].sum()))]
    terms, right, ties = [], 0, 0
    for b in range(3):
        places = [everywhere[int(u * len(everywhere))] for u in uniform(batch.seed[b : b + 1], 5, 630)[0].tolist()]
        for t in range(int(mask[b].sum()) - 3):
            each = []
            for k in (1, 2, 3):
                w = model.predict[k - 1].weight
                scores = [z[place] @ w @ c[b, t] / z.shape[2] for place in [(b, t + k), *places]]
                each.append(-torch.log(scores[0].exp() / sum(s.exp() for s in scores)))
                right += bool(scores[0] > max(scores[1:]))
                ties += (b, t + k) in places
            terms.append(sum(each) / 3)
    wanted, out = torch.stack(terms).mean(), model.step(batch)
    torch.testing.assert_close(out.total(), wanted, rtol=1e-5, atol=1e-6)
    assert float(out.terms["loss"].count) == len(terms)
    assert right / 3 - 1e-5 <= float(out.logs["accuracy"].sum) <= (right + ties) / 3 + 1e-5
    parameters = [p for p in model.parameters() if p.requires_grad]
    found, gradients = torch.autograd.grad(out.total(), parameters), torch.autograd.grad(wanted, parameters)
    for a, b in zip(found, gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_negatives_come_from_every_real_frame_of_the_batch_and_from_no_padding() -> None:
    """With a marked value in the padding of the frames, nothing changes; with one in a mate, something does."""
    model, batch = made("logmel"), speech_batch([6400, 2900])
    before = model.step(batch).terms["loss"].sum
    frontend = model.encoder.frontend

    def marked(row: int, first: int) -> torch.Tensor:
        z, mask = frontend(batch)
        z[row, first:] = 50.0
        model.encoder.frontend.forward = lambda _: (z, mask)  # type: ignore[method-assign]
        return model.step(batch).terms["loss"].sum

    end = int(frontend.frames(batch.lengths)[1])
    assert torch.equal(marked(1, end), before)
    del frontend.forward
    single = batch.lengths.new_tensor([6400])
    batch.wave, batch.lengths, batch.seed, batch.index = batch.wave[:1], single, batch.seed[:1], batch.index[:1]
    assert not torch.allclose(model.step(batch).terms["loss"].sum, before)


def test_a_model_that_knows_nothing_is_as_good_as_chance() -> None:
    model = made()
    for predict in model.predict:
        torch.nn.init.zeros_(predict.weight)
    assert float(model.step(speech_batch([6400, 2900])).total().detach()) == pytest.approx(math.log(6), rel=1e-5)


def test_recordings_shorter_than_the_steps_count_for_nothing() -> None:
    model = CPC(tiny_speech_encoder(), steps=50)
    out = model.step(speech_batch([1000, 800]))
    assert out.total() == 0
    out.total().backward()
    assert all(p.grad is not None for p in model.predict.parameters())


def test_encoders_that_see_the_future_are_refused() -> None:
    with pytest.raises(UserError, match="sees the past only"):
        CPC(trunk())
    CPC(trunk(causal=True))
