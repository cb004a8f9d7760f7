"""APC: a frame some steps ahead, over real frames only."""

from __future__ import annotations

import pytest
import torch
from tiny import speech_batch, tiny_image_encoder, tiny_speech_encoder

from ssl_suite.core.errors import UserError
from ssl_suite.methods.speech.apc import APC


def apc(steps: int = 3) -> APC:
    return APC(tiny_speech_encoder(dropout=0.0), steps)


def test_loss_is_the_mean_l1_over_real_targets() -> None:
    model, batch = apc(), speech_batch([4000, 1700])
    out = model.step(batch)
    frames, mask = model.encoder.frontend(batch)
    states = model.encoder(batch).states[-1]
    terms = [
        (model.predict(states[b, t]) - frames[b, t + 3]).abs().mean()
        for b in range(2)
        for t in range(int(mask[b].sum()) - 3)
    ]
    torch.testing.assert_close(out.total(), torch.stack(terms).mean())
    assert out.terms["loss"].count == len(terms) == (26 - 3) + (11 - 3)


def test_loss_of_a_padded_batch_is_the_weighted_mean_of_its_utterances() -> None:
    model, batch = apc(), speech_batch([4000, 1700])
    wave, lengths = batch.wave, batch.lengths
    total = count = 0.0
    for b in range(2):
        batch.wave, batch.lengths = wave[b : b + 1, : int(lengths[b])], lengths[b : b + 1]
        out = model.step(batch)
        total, count = total + float(out.total() * out.terms["loss"].count), count + float(out.terms["loss"].count)
    batch.wave, batch.lengths = torch.nn.functional.pad(wave, (0, 900)), lengths
    assert float(model.step(batch).total().detach()) == pytest.approx(total / count, rel=1e-5)


def test_utterances_shorter_than_the_step_count_for_nothing() -> None:
    out = apc(50).step(speech_batch([1000, 800]))
    assert out.total() == 0
    out.total().backward()


def test_every_parameter_learns() -> None:
    """What gets no gradient stops data-parallel training."""
    model = apc()
    model.step(speech_batch([4000, 1700])).total().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_encoders_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="sees the past only"):
        APC(tiny_speech_encoder(trunk="transformer"))
    with pytest.raises(UserError, match="speech encoder"):
        APC(tiny_image_encoder())
    with pytest.raises(UserError, match="log-mel"):
        APC(tiny_speech_encoder(frontend="waveform"))
