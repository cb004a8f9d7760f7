"""A speech upstream: waveforms to states, of which every task reads a weighted sum; a recording alone = in a batch."""

from torch import nn
from torch.nn import functional as F

from ssl_suite.core.batch import SpeechBatch, lengths_to_mask
from ssl_suite.core.encoder import Encoded, Encoder, Tokens, masked_mean

WINDOW, HOP = 400, 320


class Spectra(Encoder):
    """Magnitudes of a learned spectrum every 20 ms, and GRUs that read them from the past to the future.

    Args:
        dim: width.
        layers: of GRUs.
    """

    modality = "speech"

    def __init__(self, dim: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.dim, self.num_states, self.stride = dim, layers + 1, HOP
        self.filters = nn.Conv1d(1, 2 * dim, WINDOW, HOP)
        self.grus = nn.ModuleList(nn.GRU(dim, dim, batch_first=True) for _ in range(layers))

    def embed(self, batch: SpeechBatch) -> Tokens:
        wave = F.pad(batch.wave, (0, max(0, WINDOW - batch.wave.shape[1])))
        real, imaginary = self.filters(wave[:, None]).mT.chunk(2, -1)  # (B, T, D) each
        lengths = ((batch.lengths - WINDOW) // HOP + 1).clamp(min=1)  # windows that lie within a recording
        values = (real.square() + imaginary.square() + 1e-6).log()
        return Tokens(values, lengths_to_mask(lengths, values.shape[1]))

    def contextualise(self, tokens: Tokens) -> Encoded:
        states = [tokens.whole("A GRU").values]
        for gru in self.grus:
            states.append(states[-1] + gru(states[-1])[0])
        return Encoded(tuple(states), tokens.mask, masked_mean(states[-1], tokens.mask))
