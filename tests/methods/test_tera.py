"""TERA: its alteration frame by frame from the paper's description, how often each kind happens, and the loss."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import speech_batch
from torch import Tensor
from upstreams import trunk

from ssl_suite.core.errors import UserError
from ssl_suite.core.random import item_seed, normal, uniform
from ssl_suite.methods.speech.spans import Spans
from ssl_suite.methods.speech.tera import TERA, Alteration

MELS = 20
MOCKINGJAY = Alteration(band=0, noisy=0.0)


def slowly(a: Alteration, frames: Tensor, seed: int, mels: int) -> tuple[Tensor, Tensor]:
    """One recording (T, D) without padding, value by value."""
    seeds, length = torch.tensor([seed]), len(frames)
    fate, shift, noisy, width, start = uniform(seeds, 5, 610)[0].tolist()
    spans = a.spans.draw(torch.ones(1, length, dtype=torch.bool), seeds)[0].tolist()
    noise = normal(seeds, frames.numel(), 611).view_as(frames)
    offset = 1 + math.floor(shift * (length - 1))
    size = math.floor(width * (a.band + 1))
    low = math.floor(start * (mels - size + 1))
    out, wanted = frames.clone(), torch.zeros_like(frames, dtype=torch.bool)
    for t in range(length):
        for d in range(frames.shape[1]):
            if spans[t]:
                out[t, d] = 0 if fate < 0.8 else frames[(t + offset) % length, d] if fate < 0.9 else frames[t, d]
            if low <= d % mels < low + size:
                out[t, d] = 0
            wanted[t, d] = spans[t] or low <= d % mels < low + size
            if noisy < a.noisy:
                out[t, d] += a.noise * noise[t, d]
    return out, wanted


@pytest.mark.parametrize("alteration", [Alteration(Spans(0.3, 3, 0), band=8, noisy=0.5), MOCKINGJAY])
def test_each_recording_is_altered_by_its_own_seed_and_loss_and_gradient_are_over_what_was_altered(
    alteration: Alteration,
) -> None:
    torch.manual_seed(0)
    model = TERA(trunk(mels=MELS, stack=2), alteration)
    lengths = [6400, 3040, 4700, 5100, 2900, 3300, 4000, 4100, 5000, 3600, 3700, 3800]
    batch = speech_batch(lengths)
    batch.seed = torch.tensor([item_seed(0, 0, i) for i in range(len(lengths))])
    frames, mask = model.encoder.frontend(batch)
    total, count = torch.zeros(()), 0
    for i, seed in enumerate(batch.seed.tolist()):
        own = frames[i, : int(mask[i].sum())]
        altered, wanted = slowly(alteration, own, seed, MELS)
        states = model.encoder.contextualise(model.encoder.enter(altered[None], mask[i : i + 1, : len(own)])).states
        total = total + (model.predict(states[-1][0]) - own).abs()[wanted].sum()
        count += int(wanted.sum())
    out = model.step(batch)
    assert float(out.terms["loss"].count) == count > 0
    torch.testing.assert_close(out.total(), total / count, rtol=1e-5, atol=1e-6)
    parameters = list(model.parameters())
    found, gradients = torch.autograd.grad(out.total(), parameters), torch.autograd.grad(total / count, parameters)
    for (name, _), a, b in zip(model.named_parameters(), found, gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_each_kind_of_alteration_happens_as_often_as_in_the_papers() -> None:
    n, length, mels = 4000, 200, 80
    seeds = torch.tensor([item_seed(3, 0, i) for i in range(n)])
    frames = 1 + torch.rand(1, length, mels).expand(n, -1, -1)
    mask = torch.ones(n, length, dtype=torch.bool)
    altered, wanted = MOCKINGJAY.draw(frames, mask, seeds, mels)
    spans = wanted.all(2)
    assert torch.equal(spans, wanted.any(2))  # whole frames
    assert 0.13 < float(spans.float().mean()) < 0.15  # 15 % less what overlaps
    zeroed = ((altered == 0).all(2) == spans).all(1)
    kept = (altered == frames).flatten(1).all(1)
    copied = ~zeroed & ~kept
    for share, wanted_share in ((zeroed, 0.8), (kept, 0.1), (copied, 0.1)):
        assert float(share.float().mean()) == pytest.approx(wanted_share, abs=0.02)
    row = int(copied.nonzero()[0])
    assert all((frames[row] == frame).all(1).any() for frame in altered[row])  # frames of its own
    channels = Alteration(Spans(0.15, 7, 0), band=16, noisy=0.0).draw(frames, mask, seeds, mels)[1].all(1)
    widths = channels.sum(1)
    assert sorted(set(widths.tolist())) == list(range(17))
    assert float(widths.float().mean()) == pytest.approx(8, abs=0.3)
    assert bool(channels.any(0).all())  # the lowest and the highest channel too
    noise = (Alteration(band=0, noisy=0.15).draw(frames, mask, seeds, mels)[0] - altered).flatten(1)
    heard = noise.any(1)
    assert float(heard.float().mean()) == pytest.approx(0.15, abs=0.02)
    assert float(noise[heard].std()) == pytest.approx(0.2, abs=0.002)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match="log-mel"):
        TERA(trunk(frontend="waveform"))
    with pytest.raises(UserError, match=r"alteration\.band is 16, but must be a number at most 12"):
        TERA(trunk())
