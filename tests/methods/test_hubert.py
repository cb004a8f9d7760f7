"""HuBERT and WavLM: units of hidden frames alone, as torchaudio's own loss has it; other voices mixed in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from host_waits import HostWaits
from tiny import speech_batch, tiny_image_encoder, tiny_speech_encoder
from torch import Tensor
from torch.nn import functional as F
from torchaudio.models.wav2vec2.components import LogitGenerator

from ssl_suite.core.batch import IGNORE, SpeechBatch
from ssl_suite.core.errors import UserError
from ssl_suite.core.random import item_seed
from ssl_suite.encoders.waves import Mixing
from ssl_suite.methods.speech.front_end import FrontEnd, real_frames
from ssl_suite.methods.speech.hubert import HuBERT
from ssl_suite.methods.speech.spans import Spans
from ssl_suite.methods.speech.wavlm import WavLM

UNITS, LENGTHS = 7, [16000, 9000, 4000]


def encoder(**options: Any) -> Any:
    return tiny_speech_encoder(**{"trunk": "transformer", "dropout": 0.0, "stack": 2, **options})


def hubert(cls: type[HuBERT] = HuBERT, units: int = UNITS, wave: bool = False, **options: Any) -> HuBERT:
    torch.manual_seed(0)
    model = cls(encoder(frontend="waveform" if wave else "logmel"), dim=8, **{"spans": Spans(0.8, 4, 2), **options})
    model.build(units)
    return model


def batch(lengths: list[int] = LENGTHS) -> SpeechBatch:
    torch.manual_seed(1)
    made = speech_batch(lengths)
    target = torch.full((len(lengths), 55), IGNORE)
    for row, size in zip(target, lengths, strict=True):
        row[: size // 320] = torch.randint(0, UNITS, (size // 320,))
    return replace(made, target=target, seed=torch.tensor([item_seed(0, 0, i) for i in range(len(lengths))]))


def one(whole: SpeechBatch, b: int) -> SpeechBatch:
    assert isinstance(whole.target, Tensor)
    return replace(
        whole,
        index=whole.index[b : b + 1],
        seed=whole.seed[b : b + 1],
        target=whole.target[b : b + 1, : int(whole.lengths[b]) // 320],
        wave=whole.wave[b : b + 1, : int(whole.lengths[b])],
        lengths=whole.lengths[b : b + 1],
    )


def states_and_hidden(model: HuBERT, b: SpeechBatch) -> tuple[Tensor, Tensor]:
    """As the step makes them."""
    tokens = model.encoder.embed(b)
    hidden = model.spans.draw(tokens.mask, b.seed)
    return model.encoder.contextualise(tokens.replace(hidden, model.hole)).states[-1], hidden


@pytest.mark.parametrize("wave", [False, True])
def test_loss_and_gradients_are_those_of_torchaudio(wave: bool) -> None:
    model, b = hubert(wave=wave), batch()
    assert isinstance(b.target, Tensor)
    out = model.step(b)
    out.terms["hidden"].sum.backward()
    ours = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    states, hidden = states_and_hidden(model, b)
    theirs = LogitGenerator(16, UNITS, 8, skip_masked=False, skip_nomask=True)
    theirs.final_proj, theirs.label_embeddings = model.project, model.codes
    known = F.pad(b.target, (0, 99), value=IGNORE)[:, : hidden.shape[1]]
    at = hidden & (known != IGNORE)
    logits, _ = theirs(states, known, at, torch.zeros_like(at))
    loss = F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long), reduction="sum")
    assert out.terms["hidden"].count == len(logits) > 20
    torch.testing.assert_close(out.terms["hidden"].sum, loss)
    loss.backward()
    factor = {n: 0.1 if n.startswith("encoder.frontend") else 1.0 for n in ours}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(ours[name], factor[name] * parameter.grad, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("wave", [False, True])
def test_a_padded_batch_costs_what_its_recordings_cost_alone(wave: bool) -> None:
    model, b = hubert(wave=wave, seen=0.5), batch()
    together = model.step(b).terms
    alone = [model.step(one(b, i)).terms for i in range(3)]
    assert set(together) == {"hidden", "seen"} | ({"penalty"} if wave else set())
    for name, term in together.items():
        assert float(term.count) == sum(float(a[name].count) for a in alone) > 0
        torch.testing.assert_close(term.sum, torch.stack([a[name].sum for a in alone]).sum(), rtol=1e-4, atol=1e-4)


def test_counts_are_known_without_a_step() -> None:
    model, b = hubert(wave=True, seen=0.5), batch()
    assert model.counts(b) == {name: term.count for name, term in model.step(b).terms.items()}
    model = hubert(front_end=FrontEnd(penalty=0))
    assert model.counts(b) == {name: term.count for name, term in model.step(b).terms.items()}


def test_the_penalty_is_the_mean_square_of_real_features_and_weighs_ten() -> None:
    model, b = hubert(wave=True), batch()
    frames, mask = model.encoder.frontend(b)
    term = model.step(b).terms["penalty"]
    torch.testing.assert_close(term.mean, frames[mask].square().mean())
    assert term.scale == 10
    with torch.no_grad():  # as in validation
        torch.testing.assert_close(model.step(b).terms["penalty"].mean, term.mean)


def test_what_a_hidden_frame_held_does_not_reach_the_loss() -> None:
    model, b = hubert(), batch([16000])
    tokens = model.encoder.embed(b)
    hidden = model.spans.draw(tokens.mask, b.seed)
    state = model.encoder.contextualise(tokens.replace(hidden, model.hole)).states[-1]
    changed = replace(tokens, values=tokens.values + 9 * hidden[..., None])
    torch.testing.assert_close(model.encoder.contextualise(changed.replace(hidden, model.hole)).states[-1], state)


def test_every_parameter_learns() -> None:
    """What gets no gradient stops data-parallel training."""
    for wave in (False, True):
        model = hubert(wave=wave)
        model.step(batch()).total().backward()
        assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_it_learns_to_tell_units_from_what_stands_beside_them() -> None:
    model, b = hubert(units=2, spans=Spans(0.3, 2, 2)), batch([16000] * 4)
    times = torch.arange(16000) // 4000 % 2  # a quarter of a second of either sound
    b = replace(b, wave=(torch.randn(4, 16000) * (0.01 + times)), target=times[::320].expand(4, -1))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    first = model.step(b).total().detach()
    for step in range(60):
        out = model.step(replace(b, seed=torch.tensor([item_seed(0, step, i) for i in range(4)])))
        optimizer.zero_grad()
        out.total().backward()
        optimizer.step()
    assert out.total() < 0.5 * first


def test_encoders_and_data_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="HuBERT needs an encoder that sees both sides"):
        HuBERT(tiny_speech_encoder())
    with pytest.raises(UserError, match="WavLM needs an encoder that sees both sides"):
        WavLM(encoder(causal=True))
    with pytest.raises(UserError, match="speech encoder"):
        HuBERT(tiny_image_encoder())
    with pytest.raises(UserError, match="the data have 1"):
        hubert(units=1)
    with pytest.raises(UserError, match=r"front_end\.gradient"):
        FrontEnd(gradient=2)
    with pytest.raises(UserError, match=r"6 dB, above mixing.loudest, 5"):
        Mixing(quietest=6)


def mixed(n: int, mixing: Mixing = Mixing(rate=1.0)) -> tuple[Tensor, Tensor, Tensor]:
    """Recordings of constant sound, 1, 2, 3, … strong, and what was added to each."""
    lengths = torch.full((n,), 1000)
    lengths[::2] = 600
    wave = torch.arange(1.0, n + 1)[:, None] * (torch.arange(1000) < lengths[:, None])
    seeds = torch.tensor([item_seed(3, 0, i) for i in range(n)])
    return wave, lengths, mixing.mix(wave, lengths, seeds) - wave


def test_a_stretch_of_another_voice_is_added_at_the_drawn_ratio() -> None:
    wave, lengths, added = mixed(400)
    share, decibels = [], []
    for own, size, more in zip(wave, lengths.tolist(), added, strict=True):
        places = more.nonzero()[:, 0]
        assert not more[size:].any()
        if len(places):
            assert len(places) == places[-1] - places[0] + 1 <= size // 2
            assert len(more[places].unique().round(decimals=4).unique()) == 1  # one voice, one factor
            decibels.append(float(20 * (own[0] / more[places[0]]).log10()))
        share.append(len(places) / size)
    assert min(decibels) >= -5.01
    assert max(decibels) <= 5.01
    assert sum(decibels) / len(decibels) == pytest.approx(0, abs=0.5)
    assert sum(share) / len(share) == pytest.approx(0.25, abs=0.03)  # a length of U(0, ½)


def test_a_fifth_of_the_recordings_is_mixed_and_silence_adds_nothing() -> None:
    _, _, added = mixed(3000, Mixing())
    assert added.any(1).double().mean().item() == pytest.approx(0.2, abs=0.03)
    silent = Mixing(rate=1.0).mix(torch.zeros(4, 100), torch.full((4,), 100), torch.arange(4))
    assert torch.equal(silent, torch.zeros(4, 100))


def test_wavlm_predicts_the_units_of_the_clean_voice_from_the_mixture() -> None:
    model, b = hubert(WavLM, mixing=Mixing(rate=1.0)), batch()
    assert isinstance(model, WavLM)
    mixture = model.mixing.mix(b.wave, b.lengths, b.seed)
    assert not torch.equal(mixture, b.wave)
    expected = hubert().step(replace(b, wave=mixture))
    torch.testing.assert_close(model.step(b).total(), expected.total())
    assert model.counts(b) == {name: term.count for name, term in expected.terms.items()}


@pytest.mark.parametrize("shape", [{"conv_norm": "group"}, {"conv_bias": True, "normalize": True}])
def test_hidden_frames_need_no_features_but_for_the_penalty(shape: dict[str, Any]) -> None:
    """Losses and gradients are those of all features, of which the penalty takes the seen ones."""
    b, found = batch([*LENGTHS, 500]), []
    for penalized in ("all", "seen"):
        torch.manual_seed(0)
        made = encoder(frontend="waveform", **shape)
        model = HuBERT(made, Spans(0.8, 4, 2), dim=8, penalized=penalized)
        model.build(UNITS)
        if penalized == "all":
            hear_some_of_all(model)
        out = model.step(b)
        assert out.terms["penalty"].count == model.counts(b)["penalty"] < real_frames(made, b).sum()
        out.total().backward()
        found.append({n: t.mean for n, t in out.terms.items()} | {n: p.grad for n, p in model.named_parameters()})
    for name, theirs in found[0].items():
        torch.testing.assert_close(found[1][name], theirs, atol=1e-5 * float(theirs.detach().abs().max()), rtol=1e-5)


def hear_some_of_all(model: HuBERT) -> None:
    """Features are made of all frames, and the penalty is of those that are seen."""
    model.heard = lambda mask, hidden: mask & ~hidden  # type: ignore[method-assign]
    frontend = model.encoder.frontend.forward
    model.encoder.frontend.forward = lambda b, wanted: frontend(b)


def test_the_host_waits_once_for_how_many_frames_are_heard() -> None:
    model, b = hubert(wave=True, penalized="seen"), batch()
    with HostWaits() as waits:
        model.step(b).total().backward()
    assert waits.found == ["nonzero"]


def test_something_is_heard_where_all_is_hidden() -> None:
    model, b = hubert(wave=True, penalized="seen"), batch([400, 400])
    model.spans = Spans(1.0, 1, 2)
    b.target = torch.zeros(2, 1, dtype=torch.long)
    out = model.step(b)
    out.total().backward()
    assert out.terms["penalty"].count == 0
    assert out.terms["hidden"].count == 2
    assert all(p.grad is not None for p in model.parameters())
