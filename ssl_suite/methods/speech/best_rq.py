"""BEST-RQ: of masked speech, predict the codes that a random quantiser gives to what is masked."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_suite.core.batch import SpeechBatch
from ssl_suite.core.check import within
from ssl_suite.core.encoder import Encoder, expect
from ssl_suite.core.errors import UserError
from ssl_suite.core.method import Method, StepOutput
from ssl_suite.core.optim import Optim
from ssl_suite.core.random import normal
from ssl_suite.core.term import Term
from ssl_suite.encoders.speech import SpeechEncoder
from ssl_suite.methods.speech.codes import perplexity
from ssl_suite.methods.speech.front_end import real_frames
from ssl_suite.methods.speech.spans import Spans


class BestRQ(Method):
    """BERT-based speech pre-training with a random-projection quantiser (Chiu et al. 2022, arXiv:2202.01855).

    Nothing but the encoder and a softmax learns: the targets come from the frames themselves, which the front end
    normalises, as otherwise most would get one code. `code_perplexity` in the log says how many are in use.

    Args:
        encoder: a speech encoder on log-mel frames; four stacked make the paper's 40 ms.
        codes: of each codebook.
        codebook_dim: width of the space where frames and codes meet.
        codebooks: independent quantisers, each with a softmax of its own; the loss is their mean (USM,
            arXiv:2303.01037).
        spans: what is masked, in states: `rate` 0.4 and `length` 10 are the paper's 400 ms from 1 % of all 10 ms.
        noise: deviation of what masked frames are replaced with (section 3); that of a channel is 1.
        optim: how weights are updated.
    """

    encoder: SpeechEncoder

    def __init__(
        self,
        encoder: Encoder | str,
        codes: int = 8192,
        codebook_dim: int = 16,
        codebooks: int = 1,
        spans: Spans = Spans(0.4, 10),
        noise: float = 0.1,
        optim: Optim = Optim(lr=8e-4, betas=(0.9, 0.98), eps=1e-9, warmup_steps=25_000),
    ) -> None:
        super().__init__(encoder, optim)
        for name, value, least in (("codes", codes, 2), ("codebook_dim", codebook_dim, 1), ("codebooks", codebooks, 1)):
            within(name, value, low=least, whole=True)
        within("noise", noise, low=0)
        expect(self.encoder, "speech", "BestRQ")
        if any(p.requires_grad for p in self.encoder.frontend.parameters()):
            raise UserError("BestRQ gives codes to log-mel frames; those of learned ones would move: frontend: logmel.")
        self.codes, self.spans, self.noise = codes, spans, noise
        self.quantizer = RandomQuantizer(self.encoder.frontend.dim, codes, codebook_dim, codebooks)
        self.predict = nn.Linear(self.encoder.dim, codebooks * codes)

    def step(self, batch: SpeechBatch) -> StepOutput:
        frames, mask = self.encoder.frontend(batch)
        masked = self.spans.draw(mask, batch.seed)
        noise = self.noise * normal(batch.seed, frames[0].numel(), stream=600).view_as(frames)
        seen = torch.where(masked[..., None], noise, frames)
        encoded = self.encoder.contextualise(self.encoder.enter(seen, mask))
        at = masked.nonzero(as_tuple=True)
        codes = self.quantizer(frames[at])  # (M, N)
        logits = self.predict(encoded.states[-1][at]).unflatten(-1, (-1, self.codes))  # (M, N, C)
        loss = F.cross_entropy(logits.flatten(0, 1).float(), codes.flatten(), reduction="sum") / codes.shape[1]
        right = (logits.argmax(-1) == codes).float().mean(1).sum()
        logs: dict[str, Tensor | Term] = {
            "accuracy": Term(right, len(codes)),
            "code_perplexity": perplexity(codes, self.codes),
        }
        return StepOutput(Term(loss, len(codes)), logs, encoded.pooled)

    def counts(self, batch: SpeechBatch) -> dict[str, Tensor]:
        return {"loss": self.spans.draw(real_frames(self.encoder, batch), batch.seed).sum()}


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
