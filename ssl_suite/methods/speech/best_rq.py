"""BEST-RQ: of masked speech, predict the codes that a random quantiser gives to what is masked."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_suite.core.batch import SpeechBatch
from ssl_suite.core.check import one_of, within
from ssl_suite.core.data import DataModule
from ssl_suite.core.encoder import Encoder, expect
from ssl_suite.core.errors import UserError
from ssl_suite.core.method import Method, StepOutput
from ssl_suite.core.moments import Moments
from ssl_suite.core.optim import Optim
from ssl_suite.core.random import normal
from ssl_suite.core.sampler import EvalSampler
from ssl_suite.core.term import Term
from ssl_suite.encoders.frontend import LogMel
from ssl_suite.encoders.speech import SpeechEncoder
from ssl_suite.methods.speech.codes import perplexity
from ssl_suite.methods.speech.front_end import real_frames
from ssl_suite.methods.speech.spans import Spans, frame_counts, frame_terms

SAMPLE = 200
"""Recordings that the channels' mean and deviation over a corpus are taken from."""


class BestRQ(Method):
    """BERT-based speech pre-training with a random-projection quantiser (Chiu et al. 2022, arXiv:2202.01855).

    Nothing but the encoder and a softmax learns: the targets come from the frames themselves, which are normalised, as
    otherwise most would get one code. `code_perplexity` in the log says how many are in use.

    Args:
        encoder: a speech encoder on log-mel frames; four stacked make the paper's 40 ms.
        codes: of each codebook.
        codebook_dim: width of the space where frames and codes meet.
        codebooks: independent quantisers, each with a softmax of its own; the loss is their mean (USM,
            arXiv:2303.01037).
        spans: what is masked, in states: `rate` 0.4 and `length` 10 are the paper's 400 ms from 1 % of all 10 ms.
        noise: deviation of what masked frames are replaced with (section 3); that of a channel is 1.
        seen: weight of the loss at frames that are not masked; the paper's is 0.
        normalize: the frames that get codes, each channel: as the encoder's, over the `utterance`, or over the
            `corpus`, so that codes tell voices and channels too, of which the encoder reads nothing directly.
        optim: how weights are updated.
    """

    encoder: SpeechEncoder
    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        encoder: Encoder | str,
        codes: int = 8192,
        codebook_dim: int = 16,
        codebooks: int = 1,
        spans: Spans = Spans(0.4, 10),
        noise: float = 0.1,
        seen: float = 0.0,
        normalize: Literal["utterance", "corpus"] = "utterance",
        optim: Optim = Optim(lr=8e-4, betas=(0.9, 0.98), eps=1e-9, warmup_steps=25_000),
    ) -> None:
        super().__init__(encoder, optim)
        for name, value, least in (("codes", codes, 2), ("codebook_dim", codebook_dim, 1), ("codebooks", codebooks, 1)):
            within(name, value, low=least, whole=True)
        within("noise", noise, low=0)
        within("seen", seen, low=0)
        one_of("normalize", normalize, ("utterance", "corpus"))
        expect(self.encoder, "speech", "BestRQ")
        if not isinstance(self.encoder.frontend, LogMel):
            raise UserError("BestRQ gives codes to log-mel frames; those of learned ones would move: frontend: logmel.")
        self.codes, self.spans, self.noise, self.seen = codes, spans, noise, seen
        self.normalize = normalize
        self.register_buffer("shift", torch.zeros(self.frontend.mels))
        self.register_buffer("scale", torch.ones(self.frontend.mels))
        self.quantizer = RandomQuantizer(self.frontend.dim, codes, codebook_dim, codebooks)
        self.predict = nn.Linear(self.encoder.dim, codebooks * codes)

    @property
    def frontend(self) -> LogMel:
        """That of the encoder."""
        return cast(LogMel, self.encoder.frontend)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit" and self.normalize == "corpus":
            self.measure(self.data)

    @torch.no_grad()
    def measure(self, data: DataModule) -> None:
        """Takes mean and deviation of each channel from recordings that are spread over the training split."""
        parts = []
        items = range(0, size := data.size("train"), -(-size // SAMPLE))
        batches = [[(0, items[i]) for _, i in keys] for keys in EvalSampler(len(items), data.eval_batch_size).keys]
        for batch in data.loader(batches, data.dataset("train"), False):
            energies, mask = self.frontend.energies(batch)
            parts.append(Moments.of(energies[mask][:, None]))
        moments = Moments.join(parts)
        self.shift.copy_(moments.mean[0])
        self.scale.copy_(1 / moments.deviation[0].clamp(min=1e-3))

    def frames(self, batch: SpeechBatch) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, D) what the encoder reads and what gets codes, and (B, T) which are real."""
        energies, mask = self.frontend.energies(batch)
        frames, real = self.frontend.normalize(energies, mask)
        if self.normalize == "utterance":
            return frames, frames, real
        coded = (energies - self.shift) * self.scale * mask[..., None]
        return frames, self.frontend.stacked(coded, mask)[0], real

    def step(self, batch: SpeechBatch) -> StepOutput:
        frames, coded, mask = self.frames(batch)
        masked = self.spans.draw(mask, batch.seed)
        noise = self.noise * normal(batch.seed, frames[0].numel(), stream=600).view_as(frames)
        encoded = self.encoder.contextualise(self.encoder.enter(torch.where(masked[..., None], noise, frames), mask))
        at = (mask if self.seen else masked).nonzero(as_tuple=True)
        codes = self.quantizer(coded[at])  # (M, N)
        logits = self.predict(encoded.states[-1][at]).unflatten(-1, (-1, self.codes)).float()  # (M, N, C)
        losses = F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none").view_as(codes).mean(1)  # (M,)
        right, hidden = (logits.argmax(-1) == codes).float().mean(1), masked[at]
        terms = frame_terms(losses, hidden, torch.ones_like(hidden), self.seen)
        logs: dict[str, Tensor | Term] = {
            "accuracy": Term((right * hidden).sum(), terms["hidden"].count),
            "code_perplexity": perplexity(codes, self.codes),
        }
        return StepOutput(terms, logs, encoded.pooled)

    def counts(self, batch: SpeechBatch) -> dict[str, Tensor]:
        mask = real_frames(self.encoder, batch)
        return frame_counts(self.spans.draw(mask, batch.seed), mask, self.seen)


class RandomQuantizer(nn.Module):
    """The nearest of a few random vectors to a random projection, both of length 1; neither learns (section 3.1).

    Args:
        dim: D of the frames.
        codes: C, vectors of a codebook.
        codebook_dim: K, their width.
        codebooks: N.
    """

    projection: Tensor
    codebook: Tensor

    def __init__(self, dim: int, codes: int, codebook_dim: int, codebooks: int) -> None:
        super().__init__()
        projection = torch.stack([nn.init.xavier_uniform_(torch.empty(codebook_dim, dim)) for _ in range(codebooks)])
        self.register_buffer("projection", projection)  # (N, K, D)
        self.register_buffer("codebook", F.normalize(torch.randn(codebooks, codes, codebook_dim), dim=-1))  # (N, C, K)

    @torch.no_grad()
    def forward(self, frames: Tensor) -> Tensor:
        """(M, D) → (M, N) codes; of vectors of length 1 the nearest has the greatest product."""
        with torch.autocast(frames.device.type, enabled=False):
            projected = F.normalize(torch.einsum("md,nkd->mnk", frames.float(), self.projection), dim=-1)
            return torch.einsum("mnk,nck->mnc", projected, self.codebook).argmax(-1)
