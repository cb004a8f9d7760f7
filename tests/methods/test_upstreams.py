"""What holds for every speech upstream: padding does not matter, counts are told, all parameters learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from tiny import speech_batch, tiny_speech_encoder
from torch import Tensor
from upstreams import SHORT, UPSTREAMS, trunk, with_units

from ssl_suite.core.batch import SpeechBatch
from ssl_suite.core.method import Method, StepOutput
from ssl_suite.methods.any.data2vec import Data2Vec, Decoder
from ssl_suite.methods.any.holes import Holes
from ssl_suite.methods.speech.apc import APC
from ssl_suite.methods.speech.tera import TERA, Alteration


def rows(batch: SpeechBatch, *which: int) -> SpeechBatch:
    """Some recordings of a batch, cut where the longest of them ends."""
    at = list(which)
    wave, lengths = batch.wave[at, : int(batch.lengths[at].max())], batch.lengths[at]
    assert isinstance(batch.target, Tensor)
    return replace(
        batch, index=batch.index[at], seed=batch.seed[at], target=batch.target[at], wave=wave, lengths=lengths
    )


def sums(out: StepOutput) -> torch.Tensor:
    """(K, 2) sum and count of each term."""
    return torch.stack([torch.stack([t.sum.detach(), torch.as_tensor(t.count).to(t.sum)]) for t in out.terms.values()])


HOLES = Holes(0.5, block=5, adjust=0.05, inverse=False)
OTHERS: dict[str, Callable[[], Method]] = {
    "APC": lambda: APC(tiny_speech_encoder(dropout=0.0), 3),
    "Mockingjay": lambda: TERA(trunk(), Alteration(SHORT, band=0, noisy=0.0)),
    "Data2Vec": lambda: Data2Vec(trunk(), 2, 3, HOLES, Decoder(2, 16, 3, 4), noise=0.0),
}


@pytest.mark.parametrize("name", [*UPSTREAMS, *OTHERS])
def test_a_recording_adds_the_same_in_any_batch(name: str) -> None:
    model, batch = (UPSTREAMS | OTHERS)[name](), with_units(speech_batch([6400, 2300, 4100]))
    whole = sums(model.step(batch))
    if name not in ("CPC", "Wav2Vec2"):  # whose negatives, or use of codes, are of the whole batch
        alone = torch.stack([sums(model.step(rows(batch, i))) for i in range(3)]).sum(0)
        torch.testing.assert_close(alone, whole, rtol=1e-5, atol=1e-4)
    padded = replace(batch, wave=torch.nn.functional.pad(batch.wave, (0, 1700)))
    torch.testing.assert_close(sums(model.step(padded)), whole, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", UPSTREAMS)
def test_what_a_batch_counts_is_known_without_a_step(name: str) -> None:
    model, batch = UPSTREAMS[name](stack=2), with_units(speech_batch([6400, 2300, 4100, 900]))
    counts = model.counts(batch)
    assert {n: float(c) for n, c in counts.items()} == {n: float(t.count) for n, t in model.step(batch).terms.items()}


@pytest.mark.parametrize("name", UPSTREAMS)
def test_every_parameter_learns(name: str) -> None:
    """What gets no gradient stops data-parallel training."""
    model = UPSTREAMS[name]()
    model.step(with_units(speech_batch([6400, 2300, 4100]))).total().backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
