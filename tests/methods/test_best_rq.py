"""BEST-RQ against its paper's equations, code by code and frame by frame."""

from __future__ import annotations

import pytest
import torch
from tiny import speech_batch, tiny_image_encoder
from upstreams import trunk

from ssl_suite.core.errors import UserError
from ssl_suite.core.random import normal
from ssl_suite.data.speech.speech import Speech
from ssl_suite.methods.speech.best_rq import BestRQ, RandomQuantizer
from ssl_suite.methods.speech.codes import perplexity
from ssl_suite.methods.speech.spans import Spans


def made(codebooks: int = 1, seen: float = 0.0) -> BestRQ:
    torch.manual_seed(0)
    return BestRQ(trunk(stack=2), codes=12, codebook_dim=5, codebooks=codebooks, spans=Spans(0.5, 3), seen=seen)


def reference(model: BestRQ, lengths: list[int], wave: torch.Tensor) -> torch.Tensor:
    """The loss, utterance by utterance without padding, frame by frame, codebook by codebook."""
    terms: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    for seed, length in enumerate(lengths):
        batch = speech_batch([length])
        batch.seed, batch.wave = torch.tensor([seed]), wave[seed : seed + 1, :length]
        frames, mask = model.encoder.frontend(batch)
        masked = model.spans.draw(mask, batch.seed)[0]
        noise = 0.1 * normal(batch.seed, frames.numel(), 600).view_as(frames[0])
        seen = frames[0].clone()
        for t in masked.nonzero().flatten().tolist():
            seen[t] = noise[t]
        states = model.encoder.contextualise(model.encoder.enter(seen[None], mask)).states[-1][0]
        for t in range(len(masked)):
            logits = model.predict(states[t]).view(-1, 12)
            for n, (projection, codebook) in enumerate(
                zip(model.quantizer.projection, model.quantizer.codebook, strict=True)
            ):
                y = projection @ frames[0, t]
                code = min(range(12), key=lambda c: float((codebook[c] / codebook[c].norm() - y / y.norm()).norm()))
                terms[bool(masked[t])].append(-(logits[n, code] - logits[n].logsumexp(0)))
    return torch.stack(terms[True]).mean() + model.seen * torch.stack(terms[False]).mean()


@pytest.mark.parametrize(("codebooks", "beside"), [(1, 0.0), (3, 0.0), (3, 0.5)])
def test_loss_and_gradient_are_those_of_the_papers_equations(codebooks: int, beside: float) -> None:
    model, lengths = made(codebooks, beside), [6400, 3000, 4700]
    batch = speech_batch(lengths)
    wanted = reference(model, lengths, batch.wave)
    gradients = torch.autograd.grad(wanted, list(model.parameters()))
    out = model.step(batch)
    torch.testing.assert_close(out.total(), wanted, rtol=1e-5, atol=1e-6)
    for (name, _), found, gradient in zip(
        model.named_parameters(), torch.autograd.grad(out.total(), list(model.parameters())), gradients, strict=True
    ):
        torch.testing.assert_close(found, gradient, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_the_quantiser_is_kept_and_never_learns() -> None:
    model = made(2)
    state = model.state_dict()
    assert state["quantizer.projection"].shape == (2, 5, 24)
    assert state["quantizer.codebook"].shape == (2, 12, 5)
    assert not [n for n, _ in model.named_parameters() if "quantizer" in n]
    torch.testing.assert_close(state["quantizer.codebook"].norm(dim=-1), torch.ones(2, 12))
    assert not torch.equal(state["quantizer.projection"][0], state["quantizer.projection"][1])


def test_codes_of_frames_that_are_not_normalised_collapse() -> None:
    """What the front end's mean and variance are for: log energies all point the same way."""
    frontend, batch = trunk(mels=80).frontend, speech_batch([32000] * 4)
    energies, mask = frontend.energies(batch)
    quantizer = RandomQuantizer(80, 256, 16, 1)
    raw, normalised = (
        perplexity(quantizer(x.flatten(0, 1)), 256) for x in (energies, frontend.normalize(energies, mask)[0])
    )
    assert 5 * raw < normalised


def test_codes_over_a_corpus_are_of_what_its_recordings_are_normalised_by_together(speech_folder: str) -> None:
    """Mean and deviation of all frames, one recording after the other; the encoder reads what it always does."""
    torch.manual_seed(0)
    model = BestRQ(trunk(stack=2), codes=12, normalize="corpus")
    data = Speech(speech_folder, batch_size=3)
    data.serve(model.request())
    model.measure(data)
    frontend = model.encoder.frontend
    batches = [data.collate([data.read("train", i, 0)]) for i in range(data.size("train"))]
    every = [energies[mask] for energies, mask in map(frontend.energies, batches)]
    together = torch.cat(every)
    torch.testing.assert_close(model.shift, together.mean(0))
    torch.testing.assert_close(model.scale, 1 / together.std(0, correction=0))
    for batch, own in zip(batches[:2], every, strict=False):
        frames, coded, _ = model.frames(batch)
        torch.testing.assert_close(frames, frontend(batch)[0])
        wanted = (own - together.mean(0)) / together.std(0, correction=0)
        torch.testing.assert_close(coded[0].reshape(-1, wanted.shape[1])[: len(wanted)], wanted, rtol=1e-4, atol=1e-4)


def test_a_recording_gets_the_codes_over_a_corpus_in_any_batch() -> None:
    model, batch = BestRQ(trunk(stack=2), codes=12, normalize="corpus"), speech_batch([6400, 2300])
    with torch.no_grad():
        model.shift.fill_(-3.0)
    alone = speech_batch([6400, 2300])
    alone.wave, alone.lengths = batch.wave[1:, :2300], batch.lengths[1:]
    single, real = model.frames(alone)[1][0], model.frames(batch)[2][1]
    torch.testing.assert_close(model.frames(batch)[1][1][real], single)


def test_perplexity_is_the_number_of_codes_used_alike() -> None:
    codes = torch.tensor([[0, 5], [1, 5], [2, 5], [3, 5]])
    torch.testing.assert_close(perplexity(codes, 8), torch.tensor((4 + 1) / 2.0))


def test_an_utterance_with_nothing_masked_counts_for_nothing() -> None:
    model = BestRQ(trunk(), codes=12, spans=Spans(0.01, 3, 0))
    out = model.step(speech_batch([1600, 1200]))
    assert out.terms["hidden"].count == 0
    assert out.total() == 0
    out.total().backward()


def test_encoders_and_values_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="speech encoder"):
        BestRQ(tiny_image_encoder())
    with pytest.raises(UserError, match="log-mel"):
        BestRQ(trunk(frontend="waveform"))
    with pytest.raises(UserError, match="codes is 1, but must be a whole number at least 2"):
        BestRQ(trunk(), codes=1)
