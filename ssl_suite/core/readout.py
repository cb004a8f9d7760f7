"""Readout: how a task sees an encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_suite.core.encoder import Encoded, Encoder, masked_mean
from ssl_suite.core.errors import UserError, nearest

READOUTS = ("last", "cls", "mean", "weighted_sum", "layer:K")


class Readout(nn.Module):
    """Turns `Encoded` into what a head reads, in two steps.

    `select` keeps what the head may need of a frozen encoder and has no parameters, so its result can be cached;
    `forward` mixes it (SUPERB's softmax-weighted sum of all states, arXiv:2105.01051) and is trained with the head.

    Args:
        name: `last` (output states; the encoder's own pooling for a task on whole inputs), `cls` (first position),
            `mean` (over real positions), `weighted_sum` (of all states, then the mean), `layer:K` (state K, then mean).
        encoder: whose states are read.
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
        self.kind, self.layer, self.sequence = kind, int(layer or 0), sequence
        self.name, self.standardize = name, standardize
        self.weights = nn.Parameter(torch.zeros(encoder.num_states)) if kind == "weighted_sum" else None
        states = encoder.num_states if kind == "weighted_sum" else 1
        self.register_buffer("shift", torch.zeros(states, encoder.dim), persistent=standardize)
        self.register_buffer("scale", torch.ones(states, encoder.dim), persistent=standardize)

    def fit(self, values: Tensor) -> None:
        """Measures mean and deviation of each feature of (N, S, D) frozen states; constant features become 0."""
        deviation, mean = torch.std_mean(values, 0, correction=0)
        self.shift.copy_(mean)
        self.scale.copy_(torch.where(deviation > 1e-6 * mean.abs(), 1 / deviation.clamp(min=1e-12), 0))

    def select(self, encoded: Encoded) -> Encoded:
        """Keeps only the states (and, without a time axis, only the vectors) that `forward` needs."""
        states = encoded.states
        if self.kind == "layer":
            states = (states[self.layer],)
        elif self.kind != "weighted_sum":
            states = (states[-1],)
        if self.sequence:
            return Encoded(states, encoded.mask, encoded.pooled)
        if self.kind == "last":
            vectors = [encoded.pooled]
        elif self.kind == "cls":
            vectors = [states[0][:, 0]]
        else:
            vectors = [masked_mean(s, encoded.mask) for s in states]
        return Encoded(
            tuple(v[:, None] for v in vectors), encoded.mask.new_ones(len(encoded.pooled), 1), encoded.pooled
        )

    def forward(self, selected: Encoded) -> tuple[Tensor, Tensor]:
        """Returns features (B, T, D) and mask (B, T); T is 1 for a task on whole inputs."""
        states, mask = selected.states, selected.mask
        if self.weights is None and not self.standardize:
            return states[0], mask
        gain = self.scale if self.weights is None else self.weights.softmax(0)[:, None] * self.scale  # (S, D)
        return sum(g * s for g, s in zip(gain, states, strict=True)) - (gain * self.shift).sum(0), mask
