"""TERA: alter speech along time, channel and magnitude, and reconstruct it; Mockingjay is a setting of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ssl_suite.core.batch import SpeechBatch
from ssl_suite.core.check import within
from ssl_suite.core.encoder import Encoder, expect
from ssl_suite.core.errors import UserError
from ssl_suite.core.method import Method, StepOutput
from ssl_suite.core.optim import Optim
from ssl_suite.core.random import normal, uniform
from ssl_suite.core.term import Term
from ssl_suite.encoders.speech import SpeechEncoder
from ssl_suite.methods.speech.spans import Spans

ZEROED, COPIED = 0.8, 0.1
"""Shares of the recordings whose spans are silenced, and whose spans are replaced by others of the recording; the spans
of the rest stay as they are (Mockingjay)."""


@dataclass(frozen=True)
class Alteration:
    """What is done to frames before they are encoded (TERA, section III).

    The defaults are TERA's time, channel and magnitude; `band` and `noisy` 0 are Mockingjay, time alone.

    Args:
        spans: altered along time, in states.
        band: most channels of a band that is silenced throughout; its width is drawn from 0 … band.
        noisy: share of recordings that noise is added to.
        noise: deviation of the noise, where that of a channel is 1.
    """

    spans: Spans = Spans(0.15, 7, 0)
    band: int = 16
    noisy: float = 0.15
    noise: float = 0.2

    def __post_init__(self) -> None:
        within("alteration.band", self.band, low=0, whole=True)
        within("alteration.noisy", self.noisy, low=0, high=1)
        within("alteration.noise", self.noise, low=0)

    def draw(self, frames: Tensor, mask: Tensor, seeds: Tensor, mels: int) -> tuple[Tensor, Tensor]:
        """Draws for each recording; waits for no device.

        Args:
            frames: (B, T, D), D any number of `mels` channels side by side.
            mask: (B, T) True = real.
            seeds: (B,) of the recordings.
            mels: channels.

        Returns:
            The altered frames, and (B, T, D) True = to be reconstructed: the spans and the band.
        """
        fate, shift, noisy, width, start = uniform(seeds, 5, stream=610).mT[..., None]  # (B, 1) each
        spans = self.spans.draw(mask, seeds)[..., None]  # (B, T, 1)
        count = mask.sum(1, keepdim=True).clamp(min=2)
        places = torch.arange(mask.shape[1], device=mask.device) + 1 + (shift * (count - 1)).long()
        elsewhere = frames.gather(1, (places % count).clamp(max=mask.shape[1] - 1)[..., None].expand_as(frames))
        other = torch.where((fate < ZEROED)[..., None], 0.0, elsewhere)
        altered = torch.where(spans & (fate < ZEROED + COPIED)[..., None], other, frames)

        width = (width * (self.band + 1)).long()
        start = (start * (mels - width + 1)).long()
        channel = torch.arange(frames.shape[2], device=mask.device) % mels
        band = ((channel >= start) & (channel < start + width))[:, None]  # (B, 1, D)
        altered = altered.masked_fill(band, 0.0)
        if self.noisy:
            noise = self.noise * normal(seeds, frames[0].numel(), stream=611).view_as(frames)
            altered = altered + noise * (noisy < self.noisy)[..., None]
        return altered * mask[..., None], (spans | band) & mask[..., None]


class TERA(Method):
    """Transformer encoder representations from alteration (Liu et al. 2020, arXiv:2007.06028).

    The recipe `speech/mockingjay` is Mockingjay (Liu et al. 2019, arXiv:1910.12638).

    Args:
        encoder: a speech encoder on log-mel frames that sees both sides.
        alteration: of its input.
        optim: how weights are updated.
    """

    encoder: SpeechEncoder

    def __init__(
        self,
        encoder: Encoder | str,
        alteration: Alteration = Alteration(),
        optim: Optim = Optim(lr=2e-4, warmup_ratio=0.07, schedule="linear"),
    ) -> None:
        super().__init__(encoder, optim)
        expect(self.encoder, "speech", "TERA")
        if any(p.requires_grad for p in self.encoder.frontend.parameters()):
            raise UserError("TERA reconstructs log-mel frames; learned ones would collapse: frontend: logmel.")
        dim = self.encoder.dim
        self.mels: int = self.encoder.config["mels"]
        within("alteration.band", alteration.band, high=self.mels)
        self.alteration = alteration
        self.predict = nn.Sequential(
            nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim), nn.Linear(dim, self.encoder.frontend.dim)
        )

    def step(self, batch: SpeechBatch) -> StepOutput:
        frames, mask = self.encoder.frontend(batch)
        altered, wanted = self.alteration.draw(frames, mask, batch.seed, self.mels)
        encoded = self.encoder.contextualise(self.encoder.enter(altered, mask))
        error = (self.predict(encoded.states[-1]).float() - frames).abs()
        return StepOutput(Term((error * wanted).sum(), wanted.sum()), features=encoded.pooled)

    def counts(self, batch: SpeechBatch) -> dict[str, Tensor]:
        frames, mask = self.encoder.frontend(batch)
        return {"loss": self.alteration.draw(frames, mask, batch.seed, self.mels)[1].sum()}
