"""LSTMEncoder: ELMo's two stacks of LSTMs, one for each direction, over tokens or their characters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_suite.core.batch import TextBatch
from ssl_suite.core.check import within
from ssl_suite.core.encoder import Encoded, Encoder, Tokens, masked_mean
from ssl_suite.core.errors import UserError

FILTERS = ((1, 1 / 32), (2, 1 / 32), (3, 1 / 16), (4, 1 / 8), (5, 1 / 4), (6, 1 / 2), (7, 1.0))
"""Widths of ELMo's character convolutions, and their number over `dim`: 2048 in all for a dim of 1024."""


class LSTMEncoder(Encoder):
    """Forward and backward LSTMs that share only their input (Peters et al. 2018, arXiv:1802.05365, section 3).

    The two directions never see each other, so each can be a language model; a state holds the forward half, then the
    backward half. The first state is the token layer, twice.

    Args:
        vocab_size: entries of the vocabulary.
        dim: width of a state, both directions together; 1024 in ELMo.
        layers: LSTMs of each direction; 2 in ELMo.
        expansion: cells of an LSTM over its output width, dim / 2; 8 in ELMo: 4096 cells projected to 512.
        characters: build token vectors from their characters rather than look them up.
        token_length: bytes of the longest token that characters see whole; 50 in ELMo, whose tokens are words.
        highways: highway layers over the convolutions.
        dropout: on the input of every LSTM.
    """

    modality = "text"
    class_token = True
    character_ids: Tensor

    def __init__(
        self,
        vocab_size: int = 8192,
        dim: int = 256,
        layers: int = 2,
        expansion: int = 1,
        characters: bool = False,
        token_length: int = 16,
        highways: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        for name, value in (("vocab_size", vocab_size), ("dim", dim), ("layers", layers), ("expansion", expansion)):
            within(name, value, low=1, high=10_000 if name == "layers" else None, whole=True)
        within("token_length", token_length, low=1, high=10_000, whole=True)
        within("highways", highways, low=0, high=1000, whole=True)
        within("dropout", dropout, low=0, below=1)
        if dim % 2:
            raise UserError(f"dim ({dim}) must be even: one half for each direction.")
        self.dim, self.num_states, half = dim, layers + 1, dim // 2
        self.characters = CharacterCNN(dim, highways) if characters else None
        self.tokens = None if characters else nn.Embedding(vocab_size, half)
        if characters:
            self.register_buffer("character_ids", torch.zeros(vocab_size, token_length + 2, dtype=torch.int16))
        self.forwards = nn.ModuleList(lstm(half, expansion) for _ in range(layers))
        self.backwards = nn.ModuleList(lstm(half, expansion) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)
        self._tokenizer: Any = None

    @property
    def tokenizer(self) -> Any:
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Any) -> None:
        """Spells every entry of the vocabulary out, once."""
        self._tokenizer = tokenizer
        if tokenizer is not None and self.characters is not None:
            table = spell(tokenizer, *self.character_ids.shape)
            self.character_ids.copy_(table)

    def look_up(self, ids: Tensor) -> Tensor:
        """(B, T) ids → (B, T, D/2); a token that occurs twice is spelled once."""
        if self.tokens is not None:
            return self.tokens(ids)
        assert self.characters is not None
        distinct, place = ids.unique(return_inverse=True)
        return self.characters(self.character_ids[distinct].long())[place]

    def embed(self, batch: TextBatch) -> Tokens:
        x = self.look_up(batch.ids)
        return Tokens(torch.cat([x, x], -1), batch.mask)

    def contextualise(self, tokens: Tokens) -> Encoded:
        ahead, back = tokens.whole("An LSTM").values.chunk(2, -1)
        turn = reversal(tokens.mask)[..., None]
        back = back.gather(1, turn.expand_as(back))
        states = [tokens.values]
        for forwards, backwards in zip(self.forwards, self.backwards, strict=True):
            a, b = forwards(self.dropout(ahead))[0], backwards(self.dropout(back))[0]
            first = len(states) == 1  # residual connections run between the LSTMs, not around the first
            ahead, back = (a, b) if first else (a + ahead, b + back)
            states.append(torch.cat([ahead, back.gather(1, turn.expand_as(back))], -1))
        return Encoded(tuple(states), tokens.mask, masked_mean(states[-1], tokens.mask))

    def layers(self) -> list[list[nn.Parameter]]:
        first = self.tokens if self.tokens is not None else self.characters
        assert first is not None
        stacks = zip(self.forwards, self.backwards, strict=True)
        return [list(first.parameters()), *([*a.parameters(), *b.parameters()] for a, b in stacks)]


def lstm(dim: int, expansion: int) -> nn.LSTM:
    """An LSTM of `expansion · dim` cells projected to `dim`, whose forget gates begin open (bias 1)."""
    module = nn.LSTM(dim, expansion * dim, batch_first=True, proj_size=dim if expansion > 1 else 0)
    cells = module.hidden_size
    with torch.no_grad():
        for name, value in (("bias_ih_l0", 1.0), ("bias_hh_l0", 0.0)):
            getattr(module, name)[cells : 2 * cells] = value
    return module


def reversal(mask: Tensor) -> Tensor:
    """(B, T) places that read each row's real tokens from the last to the first and leave padding where it is."""
    place = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    return torch.where(mask, mask.sum(1, keepdim=True) - 1 - place, place)


def spell(tokenizer: Any, vocab_size: int, length: int) -> Tensor:
    """(V, length) ids of each token's UTF-8 bytes (1 to 256) between marks of its begin (257) and end (258); then 0."""
    table = torch.zeros(vocab_size, length, dtype=torch.int16)
    for i in range(vocab_size):
        if (token := tokenizer.id_to_token(i)) is None:  # ids may have gaps
            continue
        spelled = [257, *(byte + 1 for byte in token.encode()[: length - 2]), 258]
        table[i, : len(spelled)] = torch.tensor(spelled, dtype=torch.int16)
    return table


class CharacterCNN(nn.Module):
    """Convolutions over a token's characters, their maxima, highway layers and a projection (arXiv:1508.06615)."""

    def __init__(self, dim: int, highways: int, width: int = 16) -> None:
        super().__init__()
        filters = [(kernel, max(1, round(share * dim))) for kernel, share in FILTERS]
        size = sum(count for _, count in filters)
        self.embedding = nn.Embedding(259, width, padding_idx=0)
        self.convolutions = nn.ModuleList(nn.Conv1d(width, count, kernel) for kernel, count in filters)
        self.highways = nn.ModuleList(nn.Linear(size, 2 * size) for _ in range(highways))
        self.projection = nn.Linear(size, dim // 2)
        for convolve in self.convolutions:  # torch's own initialisation would leave all tokens nearly alike
            nn.init.kaiming_normal_(convolve.weight, nonlinearity="relu")  # type: ignore[arg-type]
        for layer in self.highways:
            nn.init.constant_(layer.bias[size:], 2.0)  # type: ignore[index]
        nn.init.normal_(self.projection.weight, std=2 / size**0.5)

    def forward(self, characters: Tensor) -> Tensor:
        """(N, C) → (N, dim / 2)."""
        x = self.embedding(characters).transpose(1, 2)  # (N, width, C)
        x = torch.cat([F.relu(convolve(x).amax(-1)) for convolve in self.convolutions], -1)
        for layer in self.highways:
            value, carry = layer(x).chunk(2, -1)
            carry = carry.sigmoid()
            x = carry * x + (1 - carry) * F.relu(value)
        return self.projection(x)
