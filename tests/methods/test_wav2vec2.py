"""wav2vec 2.0: contrast, quantiser and diversity are transformers' own, on the same weights, masks and noise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from tiny import speech_batch, tiny_speech_encoder
from torch import Tensor
from transformers import Wav2Vec2Config
from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2BaseModelOutput, Wav2Vec2ForPreTraining

from ssl_suite.core.batch import SpeechBatch
from ssl_suite.core.errors import UserError
from ssl_suite.core.random import item_seed
from ssl_suite.methods.speech import quantizer
from ssl_suite.methods.speech.front_end import FrontEnd
from ssl_suite.methods.speech.quantizer import Codebooks, GumbelQuantizer, Quantized
from ssl_suite.methods.speech.spans import Spans
from ssl_suite.methods.speech.wav2vec2 import Wav2Vec2, draw_others

CODES = Codebooks(2, 6, 8)


def encoder(**options: Any) -> Any:
    given = {"frontend": "waveform", "trunk": "transformer", "dropout": 0.0, "conv_norm": "group", "norm": "post"}
    return tiny_speech_encoder(**{**given, **options})


def wav2vec2(**options: Any) -> Wav2Vec2:
    torch.manual_seed(0)
    given = {"spans": Spans(0.6, 4, 2), "codebooks": CODES, "dim": 8, "negatives": 10}
    return Wav2Vec2(encoder(), **{**given, **options})


def batch(lengths: list[int] | None = None) -> SpeechBatch:
    torch.manual_seed(1)
    made = speech_batch(lengths or [16000, 16000])
    return replace(made, seed=torch.tensor([item_seed(0, 0, i) for i in range(len(made))]))


def theirs(model: Wav2Vec2) -> Wav2Vec2ForPreTraining:
    """transformers' model with our heads and quantiser; its trunk is replaced by what our own gives."""
    config = Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8,) * 7,
        num_codevector_groups=2, num_codevectors_per_group=6, codevector_dim=8, proj_codevector_dim=8,
        num_conv_pos_embedding_groups=2, feat_quantizer_dropout=0.0,
    )  # fmt: skip
    made = Wav2Vec2ForPreTraining(config)
    with torch.no_grad():
        made.quantizer.codevectors.copy_(model.quantizer.entries.flatten(0, 1)[None])
        made.quantizer.weight_proj.load_state_dict(model.quantizer.logits.state_dict())
        made.project_q.load_state_dict(model.project_quantized.state_dict())
        made.project_hid.load_state_dict(model.project.state_dict())
    return made


@pytest.mark.parametrize("training", [True, False])
def test_loss_and_gradients_are_those_of_transformers(training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs is a sum over hidden frames, and has no penalty; ours is a mean. Theirs measures diversity of the entries
    that are chosen, once it trains no more: ours is then read off the chances."""
    model, b = wav2vec2(front_end=FrontEnd(1.0, 0.0)).train(training), batch()
    peer = theirs(model).train(training)
    frames, mask = model.encoder.frontend(b)
    hidden = model.spans.draw(mask, b.seed)
    tokens = model.encoder.enter(frames, mask)
    states = model.encoder.contextualise(tokens.replace(hidden, model.hole)).states[-1]
    features = model.encoder.feature_norm(frames)
    others = draw_others(hidden, b.seed, 10)
    noise = quantizer.gumbel(b.seed, torch.empty(*mask.shape, 2, 6))
    tau = float(model.quantizer.temperature)

    def same_noise(logits: Tensor, tau: float, hard: bool) -> Tensor:
        soft = ((logits + noise.view_as(logits)) / tau).softmax(-1)
        return torch.zeros_like(soft).scatter(-1, soft.argmax(-1, keepdim=True), 1.0) + (soft - soft.detach())

    monkeypatch.setattr(torch.nn.functional, "gumbel_softmax", same_noise)
    peer.set_gumbel_temperature(tau)
    leaves = [t.detach().requires_grad_() for t in (states, features)]

    class Trunk(torch.nn.Module):
        def forward(self, *_: Any, **__: Any) -> Wav2Vec2BaseModelOutput:
            return Wav2Vec2BaseModelOutput(last_hidden_state=leaves[0], extract_features=leaves[1])

    peer.wav2vec2 = Trunk()
    rows = torch.arange(2)[:, None, None] * mask.shape[1]
    found = peer(b.wave, mask_time_indices=hidden, sampled_negative_indices=others + rows)
    found.loss.backward()

    out, count = model.step(b), hidden.sum()
    assert count > 20
    contrast, diversity = out.terms["contrast"], out.terms["diversity"]
    torch.testing.assert_close(contrast.sum, found.contrastive_loss.squeeze())
    assert (diversity.scale, float(diversity.count)) == (0.1, float(count))
    if not training:
        contrast.sum.backward()
    else:
        torch.testing.assert_close(diversity.sum, found.diversity_loss.squeeze(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(out.total() * count, found.loss.squeeze())
        (out.total() * count).backward()
    pairs = {
        "project": (model.project, peer.project_hid),
        "project_quantized": (model.project_quantized, peer.project_q),
        "logits": (model.quantizer.logits, peer.quantizer.weight_proj),
    }
    for name, (mine, other) in pairs.items():
        if name != "logits" or training:
            torch.testing.assert_close(mine.weight.grad, other.weight.grad, atol=1e-4, rtol=1e-4, msg=name)
    theirs_entries = peer.quantizer.codevectors.grad.view_as(model.quantizer.entries)
    torch.testing.assert_close(model.quantizer.entries.grad, theirs_entries, atol=1e-4, rtol=1e-4)
    ours = {n: p.grad for n, p in model.encoder.named_parameters() if p.grad is not None}
    model.zero_grad()
    reached = [(t, leaf.grad) for t, leaf in zip((states, features), leaves, strict=True) if leaf.grad is not None]
    torch.autograd.backward([t for t, _ in reached], [gradient for _, gradient in reached])
    for name, parameter in model.encoder.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(ours[name], parameter.grad, atol=1e-4, rtol=1e-3, msg=name)


def test_negatives_are_other_hidden_frames_of_the_recording_all_alike() -> None:
    hidden = torch.zeros(3, 12, dtype=torch.bool)
    hidden[0, [1, 2, 5, 9]], hidden[1, 7] = True, True
    others = draw_others(hidden, torch.tensor([item_seed(0, 0, i) for i in range(3)]), 3000)
    for place in (1, 2, 5, 9):
        drawn, times = others[0, place].unique(return_counts=True)
        assert drawn.tolist() == [p for p in (1, 2, 5, 9) if p != place]
        assert chisquare(times.numpy()).pvalue > 1e-3
    assert others[1, 7].unique().tolist() == [7]  # nothing else is hidden: it is its own, which is no negative
    assert others.min() >= 0
    assert others.max() < 12


def test_a_negative_that_is_quantised_as_the_positive_is_none() -> None:
    model = wav2vec2()
    ids = torch.tensor([[[0, 1], [0, 1], [0, 2], [3, 1]]])
    quantized = Quantized(torch.randn(1, 4, 8), ids, torch.rand(1, 4, 2, 6))
    others = torch.tensor([[[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]])
    logits = model.logits(torch.randn(1, 4, 16), quantized, others)
    assert (logits == float("-inf")).tolist() == [[[False, True, False, False]] * 2 + [[False] * 4] * 2]
    alone = torch.tensor([[[0], [1], [2], [3]]])
    assert torch.equal(model.logits(torch.randn(1, 4, 16), quantized, alone).softmax(-1)[..., 0], torch.ones(1, 4))


def test_a_padded_batch_contrasts_as_its_recordings_alone() -> None:
    model, b = wav2vec2(), batch([16000, 9000, 5000])
    together, counts = model.step(b).terms, model.counts(b)
    assert {n: float(c) for n, c in counts.items()} == {n: float(t.count) for n, t in together.items()}
    alone = []
    for i in range(3):
        size = int(b.lengths[i])
        one = replace(
            b, index=b.index[:1], seed=b.seed[i : i + 1], wave=b.wave[i : i + 1, :size], lengths=b.lengths[i : i + 1]
        )
        alone.append(model.step(one).terms)
    for name in ("contrast", "penalty"):
        torch.testing.assert_close(together[name].sum, sum(a[name].sum for a in alone), rtol=1e-4, atol=1e-4)


def test_the_temperature_falls_with_the_optimizer_steps_to_its_end_and_is_kept() -> None:
    model = wav2vec2()
    assert float(model.quantizer.temperature) == 2.0
    for _ in range(3):
        model.after_step()
    assert float(model.quantizer.temperature) == pytest.approx(2 * 0.999995**3)
    kept = wav2vec2()
    kept.load_state_dict(model.state_dict())
    assert float(kept.quantizer.temperature) == float(model.quantizer.temperature)
    kept.quantizer.steps.fill_(300_000)
    assert float(kept.quantizer.temperature) == 0.5


def test_entries_are_drawn_as_their_logits_say_and_the_likeliest_is_taken_afterwards() -> None:
    torch.manual_seed(0)
    model = GumbelQuantizer(4, Codebooks(1, 5, 6))
    frames = torch.randn(1, 1, 4).expand(4000, 1, 4)
    seeds = torch.tensor([item_seed(0, 0, i) for i in range(4000)])
    drawn = model.train()(frames, seeds)
    chances = drawn.chances[0, 0, 0].detach()
    expected, found = chances * 4000, torch.bincount(drawn.ids.flatten(), minlength=5)
    few = expected < 5
    kept = (torch.cat([t[~few], t[few].sum()[None] + 1e-9]) for t in (found.double(), expected.double()))
    observed, wanted = (t / t.sum() * 4000 for t in kept)
    assert chisquare(observed.numpy(), wanted.numpy()).pvalue > 1e-3
    settled = model.eval()(frames, seeds)
    assert settled.ids.unique().tolist() == [int(chances.argmax())]
    torch.testing.assert_close(settled.values[0, 0], model.entries[0, int(chances.argmax())])


def test_perplexity_counts_what_is_used_of_each_codebook() -> None:
    chances = torch.zeros(1, 4, 2, 6)
    chances[0, [0, 1, 2, 3], 0, [0, 1, 2, 3]] = 1.0  # one codebook is used, the other always says the same
    chances[0, :, 1, 5] = 1.0
    made = Quantized(torch.zeros(1, 4, 8), torch.zeros(1, 4, 2, dtype=torch.long), chances)
    every, two = torch.ones(1, 4, dtype=torch.bool), torch.tensor([[True, True, False, False]])
    assert float(made.perplexity(every)) == pytest.approx(5.0, abs=1e-4)
    assert float(made.perplexity(two)) == pytest.approx(3.0, abs=1e-4)


def test_options_that_do_not_fit_are_refused() -> None:
    for options, said in (
        ({"dim": 9}, r"codebooks\.dim \(9\) must be divisible"),
        ({"start": 0.1}, r"codebooks\.start is 0.1, but must be a number at least 0.5"),
        ({"entries": 1}, r"codebooks\.entries"),
    ):
        with pytest.raises(UserError, match=said):
            Codebooks(**options)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="Wav2Vec2 needs an encoder that sees both sides"):
        Wav2Vec2(tiny_speech_encoder())
