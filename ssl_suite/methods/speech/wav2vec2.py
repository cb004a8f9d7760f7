"""wav2vec 2.0: tell the quantised frame that is hidden from those that are hidden elsewhere in the recording."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_suite.core.batch import SpeechBatch
from ssl_suite.core.check import within
from ssl_suite.core.encoder import Encoder, masked_mean
from ssl_suite.core.method import Method, StepOutput
from ssl_suite.core.optim import Optim
from ssl_suite.core.random import uniform
from ssl_suite.core.term import Term
from ssl_suite.encoders.speech import SpeechEncoder
from ssl_suite.methods.speech.front_end import FrontEnd, expect_both_sides, real_frames
from ssl_suite.methods.speech.quantizer import Codebooks, GumbelQuantizer, Quantized
from ssl_suite.methods.speech.spans import Spans


class Wav2Vec2(Method):
    """Contrast over learned units of speech (Baevski et al. 2020, arXiv:2006.11477).

    The loss of a step is Σ contrast / hidden frames + `diversity` · (GV − Σ perplexity) / GV + the front end's penalty
    per frame. Entropy is that of a batch over all ranks; of batches that share a step by accumulation, each adds its
    own diversity, by its hidden frames.

    Args:
        encoder: a transformer over speech.
        spans: which frames are hidden.
        codebooks: of the quantiser.
        dim: width of the space where states meet quantised frames.
        negatives: K, drawn among the other hidden frames of the recording (section 3.2).
        temperature: κ, of their cosine.
        diversity: α, weight of the use that is made of the codebooks.
        front_end: how one that learns is held.
        optim: how weights are updated.
    """

    encoder: SpeechEncoder

    def __init__(
        self,
        encoder: Encoder | str,
        spans: Spans = Spans(0.65),
        codebooks: Codebooks = Codebooks(),
        dim: int = 256,
        negatives: int = 100,
        temperature: float = 0.1,
        diversity: float = 0.1,
        front_end: FrontEnd = FrontEnd(),
        optim: Optim = Optim(lr=5e-4, betas=(0.9, 0.98), eps=1e-6, schedule="linear", warmup_ratio=0.08),
    ) -> None:
        super().__init__(encoder, optim)
        expect_both_sides(self.encoder, "Wav2Vec2")
        within("dim", dim, low=1, whole=True)
        within("negatives", negatives, low=1, whole=True)
        within("temperature", temperature, above=0)
        within("diversity", diversity, low=0)
        self.spans, self.negatives, self.temperature = spans, negatives, temperature
        self.diversity, self.front_end = diversity, front_end
        self.hole = nn.Parameter(torch.rand(self.encoder.dim))
        self.quantizer = GumbelQuantizer(self.encoder.frontend.dim, codebooks)
        self.project_quantized = nn.Linear(codebooks.dim, dim)
        self.project = nn.Linear(self.encoder.dim, dim)

    @torch.no_grad()
    def after_step(self) -> None:
        self.quantizer.steps += 1

    def step(self, batch: SpeechBatch) -> StepOutput:
        frames, mask = self.front_end.read(self.encoder, batch)
        hidden = self.spans.draw(mask, batch.seed)
        quantized = self.quantizer(self.encoder.feature_norm(frames), batch.seed)
        tokens = self.encoder.enter(frames, mask)
        states = self.encoder.contextualise(tokens.replace(hidden, self.hole)).states[-1]
        others = draw_others(hidden, batch.seed, self.negatives)
        logits = self.logits(states, quantized, others)  # (B, T, 1 + K)
        losses, count = logits.logsumexp(-1) - logits[..., 0], hidden.sum()
        entries = quantized.chances.shape[2] * quantized.chances.shape[3]
        ranks = self.training and dist.is_available() and dist.is_initialized()  # they may validate unequal batches
        perplexity = quantized.perplexity(hidden, everywhere=ranks)
        terms = {
            "contrast": Term((losses * hidden).sum(), count),
            "diversity": Term((entries - perplexity) / entries * count, count, self.diversity),
        } | self.front_end.terms(self.encoder, frames, mask)
        right = Term(((logits.argmax(-1) == 0) & hidden).sum(), count)
        logs = {"accuracy": right, "perplexity": perplexity.detach()}
        return StepOutput(terms, logs, masked_mean(states.detach(), mask))

    def logits(self, states: Tensor, quantized: Quantized, others: Tensor) -> Tensor:
        """Cosines over κ (equation 3): of each state with its own frame, then with those at (B, T, K) `others`.

        One of them that is quantised as the own is no negative: −∞.
        """
        wanted = F.normalize(self.project_quantized(quantized.values).float(), dim=-1)
        cosines = F.normalize(self.project(states).float(), dim=-1) @ wanted.mT / self.temperature  # (B, T, T)
        drawn = cosines.gather(2, others).masked_fill(quantized.same(others), float("-inf"))
        return torch.cat([cosines.diagonal(dim1=1, dim2=2)[..., None], drawn], -1).float()

    def counts(self, batch: SpeechBatch) -> dict[str, Tensor]:
        mask = real_frames(self.encoder, batch)
        hidden = self.spans.draw(mask, batch.seed).sum()
        return {"contrast": hidden, "diversity": hidden} | self.front_end.counts(self.encoder, mask)


def draw_others(hidden: Tensor, seeds: Tensor, number: int) -> Tensor:
    """Draws hidden frames of the same recording, with replacement, for each hidden frame.

    Args:
        hidden: (B, T).
        seeds: (B,) of the recordings.
        number: K, to draw.

    Returns:
        (B, T, K) places; of a frame that is the only hidden one, itself, and of one that is not hidden, any.
    """
    places = hidden.int().argsort(stable=True, dim=1, descending=True)  # those of hidden frames first
    last = (hidden.sum(1) - 1).clamp(min=0)[:, None, None]
    rank = (hidden.cumsum(1) - 1)[..., None]  # (B, T, 1)
    drawn = (uniform(seeds, hidden.shape[1] * number, stream=504).view(*hidden.shape, number) * last).long()
    drawn = (drawn + (drawn >= rank)).minimum(last)
    return places.gather(1, drawn.flatten(1)).view_as(drawn)
