"""VQ-APC: one code a frame, straight-through, against its equations and torch's own Gumbel softmax."""

from __future__ import annotations

import pytest
import torch
from tiny import speech_batch, tiny_speech_encoder
from torch.nn import functional as F

from ssl_suite.core.errors import UserError
from ssl_suite.core.random import uniform
from ssl_suite.methods.speech.apc import APC
from ssl_suite.methods.speech.vq_apc import VQAPC


def made(**options: float) -> VQAPC:
    torch.manual_seed(0)
    return VQAPC(tiny_speech_encoder(dropout=0.0), 3, **{"codes": 11, **options})


def test_loss_and_gradient_are_those_of_the_equations_frame_by_frame() -> None:
    model, batch = made(temperature=0.7), speech_batch([4000, 1700])
    frames, mask = model.encoder.frontend(batch)
    states = model.encoder(batch).states[-1]
    terms = []
    for b in range(2):
        for t in range(int(mask[b].sum()) - 3):
            u = uniform(batch.seed[b : b + 1], (t + 1) * 11, 620)[0, -11:].double()
            scores = (model.choose(states[b, t]) - (-u.log()).log().float()) / 0.7
            soft = scores.exp() / scores.exp().sum()
            code = int(soft.argmax())
            one = soft + (torch.eye(11)[code] - soft).detach()
            terms.append((model.predict(model.codebook.weight @ one) - frames[b, t + 3]).abs().mean())
    wanted, out = torch.stack(terms).mean(), model.step(batch)
    torch.testing.assert_close(out.total(), wanted, rtol=1e-5, atol=1e-6)
    parameters = list(model.parameters())
    found, gradients = torch.autograd.grad(out.total(), parameters), torch.autograd.grad(wanted, parameters)
    for (name, _), a, b in zip(model.named_parameters(), found, gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_codes_are_drawn_as_torchs_own_gumbel_softmax_draws_them() -> None:
    model = made(temperature=0.5)
    output = torch.randn(1, 1, 16).expand(4000, 1, 16)
    model.codebook.weight.data.copy_(torch.eye(16, 11))
    drawn = model.bottleneck(output, torch.ones(4000, 1, dtype=torch.bool), torch.arange(4000) * 7919)[0][:, 0, :11]
    theirs = F.gumbel_softmax(model.choose(output[:, 0]), 0.5, hard=True)
    torch.testing.assert_close(drawn.mean(0), theirs.mean(0), atol=0.03, rtol=0)


def test_validation_takes_the_likeliest_code_and_the_same_each_time() -> None:
    model, batch = made().eval(), speech_batch([4000, 1700])
    states = model.encoder(batch).states[-1]
    chosen, logs = model.bottleneck(states, model.encoder(batch).mask, batch.seed)
    torch.testing.assert_close(chosen, model.codebook.weight.T[model.choose(states).argmax(-1)])
    assert 1 <= float(logs["code_perplexity"]) <= 11
    assert model.step(batch).total() == model.step(batch).total()


def test_apc_is_what_it_was() -> None:
    """The loss of APC itself from the weights of a seed, as it was before it had a bottleneck."""
    torch.manual_seed(0)
    model = APC(tiny_speech_encoder(dropout=0.0), 3)
    output = torch.randn(2, 5, 16)
    assert model.bottleneck(output, torch.ones(2, 5, dtype=torch.bool), torch.arange(2)) == (output, {})
    assert [n for n, _ in model.named_parameters() if not n.startswith("encoder.")] == [
        "predict.weight",
        "predict.bias",
    ]


def test_codes_must_be_several() -> None:
    with pytest.raises(UserError, match="codes is 1"):
        made(codes=1)
