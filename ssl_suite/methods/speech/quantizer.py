"""A product quantiser whose choices are drawn with Gumbel noise, so that a gradient reaches them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather

from ssl_suite.core.check import within
from ssl_suite.core.errors import UserError
from ssl_suite.core.random import uniform
from ssl_suite.methods.speech.codes import one_hot


@dataclass(frozen=True)
class Codebooks:
    """Size of the quantiser, and how its choices harden (wav2vec 2.0, arXiv:2006.11477, sections 2 and 4.2).

    Args:
        groups: G codebooks; a quantised frame is one entry of each, side by side.
        entries: V, of each codebook.
        dim: of a quantised frame.
        start: τ of the Gumbel softmax at the first step.
        end: the least it becomes.
        decay: its factor in each optimizer step.
    """

    groups: int = 2
    entries: int = 320
    dim: int = 256
    start: float = 2.0
    end: float = 0.5
    decay: float = 0.999995

    def __post_init__(self) -> None:
        for name, low in (("groups", 1), ("entries", 2), ("dim", 1)):
            within(f"codebooks.{name}", getattr(self, name), low=low, whole=True)
        within("codebooks.end", self.end, above=0)
        within("codebooks.start", self.start, low=self.end)
        within("codebooks.decay", self.decay, above=0, high=1)
        if self.dim % self.groups:
            raise UserError(f"codebooks.dim ({self.dim}) must be divisible by codebooks.groups ({self.groups}).")


@dataclass(eq=False)
class Quantized:
    """What a quantiser makes of frames.

    Attributes:
        values: (B, T, dim).
        ids: (B, T, G) the entry of each codebook.
        chances: (B, T, G, V) of each entry, without noise.
    """

    values: Tensor
    ids: Tensor
    chances: Tensor

    def same(self, places: Tensor) -> Tensor:
        """(B, T, K) whether a frame and those at (B, T, K) `places` have the same entries."""
        ids = [group.gather(1, places.flatten(1)).view_as(places) == group[..., None] for group in self.ids.unbind(2)]
        return torch.stack(ids).all(0)

    def perplexity(self, at: Tensor, everywhere: bool = False) -> Tensor:
        """Σ over groups of e^entropy of the mean chances (equation 4), 1 to V each.

        Args:
            at: (B, T) True = a frame that counts.
            everywhere: over those of all ranks, which must all ask.
        """
        total, count = (self.chances * at[..., None, None]).sum((0, 1)), at.sum().float()  # (G, V), ()
        if everywhere:
            total, count = (torch.stack(list(all_gather(part))).sum(0) for part in (total, count))
        mean = total / count.clamp(min=1)
        return (-(mean * (mean + 1e-7).log()).sum(-1)).exp().sum()


class GumbelQuantizer(nn.Module):
    """Frames → entries of G codebooks; drawn while it trains, the likeliest otherwise.

    Args:
        input_dim: F, of the frames.
        codebooks: its size and temperatures.
    """

    steps: Tensor

    def __init__(self, input_dim: int, codebooks: Codebooks) -> None:
        super().__init__()
        c = self.codebooks = codebooks
        self.logits = nn.Linear(input_dim, c.groups * c.entries)
        nn.init.normal_(self.logits.weight)
        nn.init.zeros_(self.logits.bias)
        self.entries = nn.Parameter(torch.rand(c.groups, c.entries, c.dim // c.groups))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @property
    def temperature(self) -> Tensor:
        """τ at this optimizer step, on the device."""
        return (self.codebooks.start * self.codebooks.decay ** self.steps.double()).clamp(min=self.codebooks.end)

    def forward(self, frames: Tensor, seeds: Tensor) -> Quantized:
        """(B, T, F), and a seed for each of B recordings."""
        logits = self.logits(frames).float().unflatten(2, (self.codebooks.groups, -1))  # (B, T, G, V)
        chances = logits.softmax(-1)
        if self.training:
            noisy = (logits + gumbel(seeds, logits)) / self.temperature.to(logits)
            ids, soft = noisy.argmax(-1), noisy.softmax(-1)
            chosen = one_hot(ids, self.codebooks.entries) + (soft - soft.detach())
        else:
            ids = logits.argmax(-1)
            chosen = one_hot(ids, self.codebooks.entries)
        return Quantized(torch.einsum("btgv,gvd->btgd", chosen, self.entries).flatten(2), ids, chances)


def gumbel(seeds: Tensor, like: Tensor) -> Tensor:
    """−log(−log U) of the shape of `like`, drawn for each item from its seed."""
    draws = uniform(seeds, like[0].numel(), stream=503).view_as(like)
    return -(-draws.clamp(min=2.0**-25).log()).log()
