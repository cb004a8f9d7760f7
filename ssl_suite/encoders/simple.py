"""What a learned encoder must beat: raw pixels, a bag of words, log-mel frames and cepstra."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ssl_suite.core.batch import ImageBatch, SpeechBatch
from ssl_suite.core.check import within
from ssl_suite.core.encoder import Encoded, Encoder, Tokens, masked_mean
from ssl_suite.encoders.frontend import LogMel, MelCepstra, normalize_frames
from ssl_suite.encoders.image import pixel_tokens, pixels_of
from ssl_suite.encoders.text import TextEncoder


class RawPixels(Encoder):
    """Pixels as features, after averaging down to `size` × `size`.

    Args:
        size: side of the image that is read out.
    """

    modality = "image"
    baseline = "raw pixels"

    def __init__(self, size: int = 28) -> None:
        super().__init__()
        within("size", size, low=1, high=4096, whole=True)
        self.dim, self.num_states, self.size = 3 * size * size, 1, size

    def embed(self, batch: ImageBatch) -> Tokens:
        return pixel_tokens(batch.images)

    def contextualise(self, tokens: Tokens) -> Encoded:
        pixels = F.adaptive_avg_pool2d(pixels_of(tokens.whole("RawPixels")), self.size).flatten(1)
        return Encoded((pixels[:, None],), torch.ones(len(pixels), 1, dtype=torch.bool, device=pixels.device), pixels)


class Fbank(Encoder):
    """Log-mel frames, SUPERB's FBANK row: normalised along time; where they are averaged, the mean raw frame.

    Normalised frames average to zero, of which only rounding errors would be left (as in SUPERB's own FBANK row).

    Args:
        mels: number of channels.
        stack: frames joined into one state, `stack` · 10 ms.
    """

    modality = "speech"
    baseline = "log-mel"

    def __init__(self, mels: int = 80, stack: int = 1) -> None:
        super().__init__()
        self.frontend = LogMel(mels, stack)
        self.dim, self.num_states, self.stride = self.frontend.dim, 1, self.frontend.stride

    def embed(self, batch: SpeechBatch) -> Tokens:
        return Tokens(*self.frontend.energies(batch))

    def contextualise(self, tokens: Tokens) -> Encoded:
        energies = tokens.whole("Fbank").values
        frames, mask = self.frontend.normalize(energies, tokens.mask)
        means = masked_mean(energies, tokens.mask).repeat(1, self.frontend.stack)
        return Encoded((frames,), mask, means, (means,))


class Mfcc(Encoder):
    """Mel-frequency cepstra, 13 with their first and second differences every 10 ms: SUPERB's MFCC.

    Args:
        normalize: along time, as an upstream; without it they are what HuBERT's first units are clusters of. Where
            they are averaged, the raw ones are.
    """

    modality = "speech"
    baseline = "MFCC"

    def __init__(self, normalize: bool = True) -> None:
        super().__init__()
        self.frontend, self.normalize = MelCepstra(), normalize
        self.dim, self.num_states, self.stride = self.frontend.dim, 1, self.frontend.stride

    def embed(self, batch: SpeechBatch) -> Tokens:
        return Tokens(*self.frontend(batch))

    def contextualise(self, tokens: Tokens) -> Encoded:
        cepstra = tokens.whole("Mfcc").values
        means = masked_mean(cepstra, tokens.mask)
        frames = normalize_frames(cepstra, tokens.mask) if self.normalize else cepstra
        return Encoded((frames,), tokens.mask, means, (means,) if self.normalize else None)


class BagOfWords(TextEncoder):
    """Word vectors without any context, to be trained with the task (fastText, arXiv:1607.01759).

    Args:
        vocab_size: rows of the embedding.
        dim: width.
    """

    baseline = "bag of words"

    def __init__(self, vocab_size: int = 8192, dim: int = 64) -> None:
        super().__init__(vocab_size, dim, layers=0, heads=1, positions="none", dropout=0.0)
