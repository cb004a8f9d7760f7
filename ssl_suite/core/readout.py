"""Readout: how a task sees an encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_suite.core.encoder import Encoded, Encoder, masked_mean
from ssl_suite.core.errors import UserError, nearest
from ssl_suite.core.moments import Moments

READOUTS = ("last", "cls", "mean", "weighted_sum", "layer:K")


NOISE = 1e-4
"""Deviations of features, relative to the size of their state, that float32's rounding errors reach: frames of speech
that were normalised to mean 0 and projected have had means of up to 1e-5."""


class Readout(nn.Module):
    """Turns `Encoded` into what a head reads, in two steps.

    `select` keeps what the head may need of a frozen encoder and has no parameters, so its result can be cached;
    `forward` mixes it (SUPERB's softmax-weighted sum of all states, arXiv:2105.01051) and is trained with the head.

    Args:
        name: `last` (output states; the encoder's own pooling for a task on whole inputs), `cls` (class token),
            `mean` (over real positions), `weighted_sum` (of all states, then the mean), `layer:K` (state K, then mean).
        encoder: whose states are read; `dim` is the width of what is read.
        sequence: keep the time axis (tagging, CTC) or give one vector an input.
        standardize: shift and scale each state to what `fit` measured, so that one learning rate suits every encoder.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, name: str, encoder: Encoder, sequence: bool, standardize: bool = False) -> None:
        super().__init__()
        kind, _, layer = name.partition(":")
        if kind not in ("last", "cls", "mean", "weighted_sum", "layer"):
            raise UserError(f"No readout {name!r}.{nearest(name, READOUTS)}")
        if sequence and kind in ("cls", "mean"):
            raise UserError(f"Readout {kind!r} has no time axis; this task needs last, weighted_sum or layer:K.")
        if kind == "layer" and not (layer.isdigit() and int(layer) < encoder.num_states):
            raise UserError(f"Readout {name!r}: this encoder has layers 0 to {encoder.num_states - 1}.")
        if kind == "cls" and not encoder.class_token:
            raise UserError(f"Readout 'cls': this {type(encoder).__name__} has no class token; take mean or last.")
        self.kind, self.layer, self.sequence = kind, int(layer or 0), sequence
        read = {"weighted_sum": encoder.widths, "layer": encoder.widths[self.layer :]}.get(kind, (encoder.dim,))
        if kind == "weighted_sum" and len(set(read)) > 1:
            raise UserError(f"Readout 'weighted_sum' needs states of one width; this encoder's have {read}: layer:K.")
        self.dim = read[0]
        self.name, self.standardize = name, standardize
        self.weights = nn.Parameter(torch.zeros(encoder.num_states)) if kind == "weighted_sum" else None
        states = encoder.num_states if kind == "weighted_sum" else 1
        self.register_buffer("shift", torch.zeros(states, self.dim), persistent=standardize)
        self.register_buffer("scale", torch.ones(states, self.dim), persistent=standardize)

    def fit(self, moments: Moments) -> None:
        """Takes mean and deviation of each feature from those of (N, S, D) frozen states; constant ones become 0.

        Constant is what deviates by less than `NOISE` times the root mean square of its state: rounding errors.
        """
        deviation = moments.deviation
        self.shift.copy_(moments.mean)
        self.scale.copy_(torch.where(deviation > NOISE * moments.size, 1 / deviation.clamp(min=1e-12), 0))

    def select(self, encoded: Encoded) -> Encoded:
        """Keeps only the states (and, without a time axis, only the vectors) that `forward` needs."""
        chosen = slice(-1, None)
        if self.kind == "layer":
            chosen = slice(self.layer, self.layer + 1)
        elif self.kind == "weighted_sum":
            chosen = slice(None)
        states = encoded.states[chosen]
        if self.sequence:
            return Encoded(states, encoded.mask, encoded.pooled, losses=encoded.losses)
        if self.kind == "last":
            vectors = [encoded.pooled]
        elif self.kind == "cls":
            vectors = [states[0][:, 0] if encoded.prefix is None else encoded.prefix[:, 0]]
        elif encoded.means is not None:
            vectors = list(encoded.means[chosen])
        else:
            vectors = [_mean(s, encoded.mask) for s in states]
        whole = encoded.mask.new_ones(len(encoded.pooled), 1)
        return Encoded(tuple(v[:, None] for v in vectors), whole, encoded.pooled, losses=encoded.losses)

    def forward(self, selected: Encoded) -> tuple[Tensor, Tensor]:
        """Returns features (B, T, D) and mask (B, T); T is 1 for a task on whole inputs."""
        states, mask = selected.states, selected.mask
        if self.weights is None and not self.standardize:
            return states[0], mask
        gain = self.scale if self.weights is None else self.weights.softmax(0)[:, None] * self.scale  # (S, D)
        return sum(g * s for g, s in zip(gain, states, strict=True)) - (gain * self.shift).sum(0), mask


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    """Mean over the real positions, but 0 below 1e-5 of the root mean square of all: rounding errors stay small."""
    mean, size = masked_mean(states, mask), masked_mean(states.square(), mask).mean(1, keepdim=True).sqrt()
    return torch.where(mean.abs() > 1e-5 * size, mean, 0)
