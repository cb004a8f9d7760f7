"""HuBERT: predict which unit each hidden frame of speech belongs to."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_suite.core.batch import IGNORE, SpeechBatch
from ssl_suite.core.check import one_of, within
from ssl_suite.core.data import Request
from ssl_suite.core.encoder import Encoder, masked_mean
from ssl_suite.core.errors import UserError
from ssl_suite.core.method import Method, StepOutput
from ssl_suite.core.optim import Optim
from ssl_suite.core.term import Term
from ssl_suite.encoders.speech import SpeechEncoder
from ssl_suite.methods.speech.front_end import FrontEnd, expect_both_sides, real_frames
from ssl_suite.methods.speech.spans import Spans, frame_counts, frame_terms


class HuBERT(Method):
    """Masked prediction of hidden units (Hsu et al. 2021, arXiv:2106.07447).

    `ssl-suite prepare units` makes the units: of MFCC for the first iteration, of a layer of what that one wrote for
    the second. `data.units` names them; a column of whole numbers, one a state, does too.

    Args:
        encoder: a transformer over speech.
        spans: which frames are hidden.
        dim: width of the space where states meet the embeddings of units (section 2.3).
        temperature: τ, of their cosine.
        seen: weight of the loss at frames that are not hidden: 1 − α of equation 3 over α; the paper's is 0.
        front_end: how one that learns is held.
        penalized: frames that its penalty is of: all of them, as in the authors' code, or the seen ones alone. Nothing
            else asks for features of hidden frames: they are then not made, which saves half the convolutions.
        optim: how weights are updated.
    """

    encoder: SpeechEncoder
    codes: nn.Parameter

    def __init__(
        self,
        encoder: Encoder | str,
        spans: Spans = Spans(0.8),
        dim: int = 256,
        temperature: float = 0.1,
        seen: float = 0.0,
        front_end: FrontEnd = FrontEnd(),
        penalized: Literal["all", "seen"] = "all",
        optim: Optim = Optim(lr=5e-4, betas=(0.9, 0.98), eps=1e-6, schedule="linear", warmup_ratio=0.08),
    ) -> None:
        super().__init__(encoder, optim)
        expect_both_sides(self.encoder, type(self).__name__)
        within("dim", dim, low=1, whole=True)
        within("temperature", temperature, above=0)
        within("seen", seen, low=0)
        one_of("penalized", penalized, ("all", "seen"))
        self.spans, self.temperature, self.seen = spans, temperature, seen
        self.front_end, self.penalized = front_end, penalized
        self.hole = nn.Parameter(torch.rand(self.encoder.dim))
        self.project = nn.Linear(self.encoder.dim, dim)

    def request(self) -> Request:
        return replace(super().request(), target="frames")

    def setup(self, stage: str) -> None:
        super().setup(stage)
        units = len(self.data.labels)
        if not hasattr(self, "codes"):
            self.build(units)
        elif len(self.codes) != units:
            raise UserError(f"The model knows {len(self.codes)} units, {self.data.source_name} has {units}.")

    def build(self, units: int) -> None:
        """Makes the embeddings of so many units."""
        if units < 2:
            raise UserError(f"{type(self).__name__} tells units apart, and the data have {units}; give two or more.")
        self.codes = nn.Parameter(torch.rand(units, self.project.out_features))

    def step(self, batch: SpeechBatch) -> StepOutput:
        mask = real_frames(self.encoder, batch)
        hidden = self.spans.draw(mask, batch.seed)
        heard = self.heard(mask, hidden)
        frames, _ = self.front_end.read(self.encoder, batch, None if heard is mask else heard)
        tokens = self.encoder.enter(frames, mask)
        states = self.encoder.contextualise(tokens.replace(hidden, self.hole)).states[-1]
        logits = self.logits(states)  # (B, T, units)
        units = aligned(batch, mask)
        losses = F.cross_entropy(logits.mT, units, ignore_index=IGNORE, reduction="none")  # (B, T)
        known = units != IGNORE
        terms = frame_terms(losses, hidden, known, self.seen)
        right = Term(((logits.argmax(-1) == units) & hidden).sum(), terms["hidden"].count)
        terms |= self.front_end.terms(self.encoder, frames, heard)
        return StepOutput(terms, {"accuracy": right}, masked_mean(states.detach(), mask))

    def heard(self, mask: Tensor, hidden: Tensor) -> Tensor:
        """(B, T) the frames that features are made of."""
        return mask & ~hidden if self.penalized == "seen" else mask

    def logits(self, states: Tensor) -> Tensor:
        """Cosine of projected states (B, T, D) with each unit's embedding, over τ (equation 2)."""
        return F.normalize(self.project(states), dim=-1) @ F.normalize(self.codes, dim=-1).T / self.temperature

    def counts(self, batch: SpeechBatch) -> dict[str, Tensor]:
        mask = real_frames(self.encoder, batch)
        hidden, known = self.spans.draw(mask, batch.seed), aligned(batch, mask) != IGNORE
        penalty = self.front_end.counts(self.encoder, self.heard(mask, hidden))
        return frame_counts(hidden, known, self.seen) | penalty


def aligned(batch: SpeechBatch, mask: Tensor) -> Tensor:
    """(B, T) the unit of each state; `IGNORE` in the padding, and where the units end a state or two earlier."""
    assert isinstance(batch.target, Tensor)
    target = batch.target[:, : mask.shape[1]]
    return F.pad(target, (0, mask.shape[1] - target.shape[1]), value=IGNORE).masked_fill(~mask, IGNORE)
