"""BLSTM: layers that read a sequence from both ends, and none of its padding."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class BLSTM(nn.LSTM):
    """Bidirectional LSTMs over (B, T, D); the host waits once for the lengths.

    Args:
        dim: D.
        width: of each direction.
        layers: one upon the other.
        dropout: between them.
    """

    def __init__(self, dim: int, width: int, layers: int, dropout: float = 0.0) -> None:
        between = dropout if layers > 1 else 0.0
        super().__init__(dim, width, layers, batch_first=True, bidirectional=True, dropout=between)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        """(B, T, D) and (B, T) → (B, T, 2 · width), 0 at the padding."""
        lengths = mask.sum(1).clamp(min=1).cpu()
        packed = pack_padded_sequence(features, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(super().forward(packed)[0], batch_first=True, total_length=features.shape[1])[0]
