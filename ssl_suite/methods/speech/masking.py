"""Masking of speech that is fine-tuned: SpecAugment on log-mel frames, and wav2vec 2.0's on the states behind them."""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_suite.core.batch import SpeechBatch
from ssl_suite.core.check import within
from ssl_suite.core.encoder import Encoder, Tokens, expect
from ssl_suite.core.errors import UserError
from ssl_suite.core.masking import Masking
from ssl_suite.core.random import uniform
from ssl_suite.encoders.frontend import LogMel
from ssl_suite.encoders.speech import SpeechEncoder
from ssl_suite.methods.speech.spans import Spans


class SpecAugment(Masking):
    """Bands of channels and stretches of time of log-mel frames (Park et al. 2019, arXiv:1904.08779).

    They become 0, the mean of normalised frames. Widths and places are whole numbers, each as likely as another. Time
    is not warped, which matters least (section 5). The defaults are SS of table 1, for recordings of a few seconds.

    Args:
        bands: along the channels (m_F).
        widest: most channels of a band (F).
        stretches: along time (m_T).
        longest: most frames of a stretch (T), of 10 ms.
        share: most of a recording that one stretch hides (p).
    """

    def __init__(
        self, bands: int = 2, widest: int = 27, stretches: int = 2, longest: int = 70, share: float = 0.2
    ) -> None:
        for name, number in (("bands", bands), ("widest", widest), ("stretches", stretches), ("longest", longest)):
            within(f"masking.{name}", number, low=0, whole=True)
        within("masking.share", share, low=0, high=1)
        self.bands, self.widest = bands, widest
        self.stretches, self.longest, self.share = stretches, longest, share

    def check(self, encoder: Encoder) -> None:
        expect(encoder, "speech", "SpecAugment")
        front_end = getattr(encoder, "frontend", None)
        if not isinstance(front_end, LogMel):
            raise UserError("SpecAugment masks log-mel frames, which this encoder does not read; take MaskedStates.")
        within("masking.widest", self.widest, high=front_end.dim // front_end.stack)

    def embed(self, encoder: SpeechEncoder, batch: SpeechBatch) -> Tokens:
        frames, mask = encoder.frontend(batch)
        return encoder.enter(self.mask(frames, mask, batch.seed, int(encoder.frontend.stack)), mask)  # type: ignore[arg-type]

    def mask(self, frames: Tensor, mask: Tensor, seeds: Tensor, stack: int = 1) -> Tensor:
        """Hides parts of each recording.

        Args:
            frames: (B, T, stack · channels) normalised.
            mask: (B, T) True = real.
            seeds: (B,) of the recordings.
            stack: consecutive frames that are joined.
        """
        apart = frames.reshape(len(frames), -1, frames.shape[2] // stack)  # (B, T · stack, channels)
        channels, real = mask.new_full(mask.shape[:1], apart.shape[2], dtype=torch.long), mask.sum(1) * stack
        widest, longest = torch.full_like(channels, self.widest), (self.share * real).long().clamp(max=self.longest)
        band = runs(seeds, self.bands, widest, channels, apart.shape[2], stream=620)
        stretch = runs(seeds, self.stretches, longest, real, apart.shape[1], stream=621)
        return apart.masked_fill(band[:, None] | stretch[..., None], 0.0).view_as(frames)


def runs(seeds: Tensor, number: int, longest: Tensor, room: Tensor, size: int, stream: int) -> Tensor:
    """(B, size) True in any of `number` runs of 0 … `longest` (B,) places, all before `room` (B,); they may overlap."""
    drawn = uniform(seeds, 2 * number, stream)
    length = (drawn[:, :number] * (longest[:, None] + 1)).long()  # (B, number)
    start = (drawn[:, number:] * (room[:, None] - length + 1)).long()
    places = torch.arange(size, device=seeds.device)
    return ((places >= start[..., None]) & (places < (start + length)[..., None])).any(1)


class MaskedStates(Masking):
    """Spans of time and of channels of what a transformer reads, as wav2vec 2.0 is fine-tuned (arXiv:2006.11477).

    The defaults are those of 100 hours of transcripts (appendix B, table 6: a span begins at 5 % of the states and at
    0.8 % of the channels). They become 0: the vector that stood for masked states in pretraining is the method's, which
    a folder of an encoder does not have.

    Args:
        time: of states; None: none.
        channels: of channels, the same at all states; None: none.
    """

    def __init__(self, time: Spans | None = Spans(0.5, 10), channels: Spans | None = Spans(0.512, 64, 0)) -> None:
        self.time, self.channels = time, channels

    def check(self, encoder: Encoder) -> None:
        expect(encoder, "speech", "MaskedStates")

    def embed(self, encoder: SpeechEncoder, batch: SpeechBatch) -> Tokens:
        tokens = encoder.embed(batch)
        hidden = torch.zeros_like(tokens.values, dtype=torch.bool)
        if self.time is not None:
            hidden = hidden | self.time.draw(tokens.mask, batch.seed)[..., None]
        if self.channels is not None:
            every = torch.ones_like(tokens.values[:, 0], dtype=torch.bool)
            hidden = hidden | self.channels.draw(every, batch.seed, stream=510)[:, None]
        tokens.values = tokens.values.masked_fill(hidden, 0.0)
        return tokens
