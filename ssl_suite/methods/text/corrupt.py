"""Corruptions of token sequences: pure functions of ids and per-item seeds."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ssl_suite.core.batch import TextBatch
from ssl_suite.core.random import uniform


def choose_positions(allowed: Tensor, seeds: Tensor, rate: float) -> Tensor:
    """Picks max(1, round(rate · n)) of each row's n allowed positions, uniformly.

    Args:
        allowed: (B, T) bool.
        seeds: (B,) from `core.random.item_seed`: redrawn every epoch, the same whatever the batch.
        rate: share of positions.

    Returns:
        (B, T) bool; a row with nothing allowed chooses nothing.
    """
    n = allowed.sum(1, keepdim=True)
    budget = (n * rate).round().clamp(min=1).minimum(n)
    draw = uniform(seeds, allowed.shape[1]).masked_fill(~allowed, 2.0)
    return (draw.argsort(1).argsort(1) < budget) & allowed


def choose_spans(allowed: Tensor, begins: Tensor, lengths: Tensor, seeds: Tensor, rate: float) -> Tensor:
    """Picks spans of whole units (words, phrases) until a row's budget of max(1, round(rate · n)) tokens is spent.

    A span starts at a unit drawn evenly from those not yet taken, and ends early where its next unit is taken, is not
    allowed or would exceed the budget. So a row takes less than its budget only where no unit that is left fits, and
    more only where every unit is longer than it: then one of the shortest. One pass a span, over all rows at once, as
    many as a row of spans of one token would take: to ask whether all rows are done would wait for the device.

    Args:
        allowed: (B, T) bool.
        begins: (B, T) bool, where a unit begins; what follows a position not allowed begins one too.
        lengths: (B, T) units of a span that starts here.
        seeds: (B,).
        rate: share of the allowed positions.

    Returns:
        (B, T) number of the span, from 1 in the order of drawing; 0 where none is.
    """
    place = torch.arange(allowed.shape[1], device=allowed.device).expand_as(allowed)
    before = torch.cat([torch.zeros_like(allowed[:, :1]), allowed[:, :-1]], 1)
    begins = allowed & (begins | ~before)
    unit = begins.cumsum(1)
    sizes = torch.zeros_like(unit).scatter_add(1, (unit - 1).clamp(min=0), allowed.long())  # of unit 1, 2, ...
    size = sizes.gather(1, (unit - 1).clamp(min=0))
    last = place.masked_fill(~begins, 0).cummax(1).values + size - 1  # place of the last token of each token's unit
    n = allowed.sum(1, keepdim=True)
    shortest = size.masked_fill(~allowed, allowed.shape[1]).amin(1, keepdim=True)
    left = (n * rate).round().long().maximum(shortest).minimum(n)
    order, spans = uniform(seeds, allowed.shape[1]), torch.zeros_like(unit)
    for number in range(1, math.ceil(allowed.shape[1] * rate) + 2):
        free = allowed & (spans == 0)
        fits = begins & free & (size <= left)
        start = order.masked_fill(~fits, 2.0).argmin(1, keepdim=True)
        gap = (~free).cumsum(1)
        offset = unit - unit.gather(1, start)
        span = free & (gap == gap.gather(1, start)) & (offset >= 0) & (offset < lengths.gather(1, start))
        span &= (last - start < left) & fits.any(1, keepdim=True)
        spans, left = spans.masked_fill(span, number), left - span.sum(1, keepdim=True)
    return spans


def replace_tokens(
    ids: Tensor,
    chosen: Tensor,
    seeds: Tensor,
    special: Tensor,
    mask_id: int,
    vocab_size: int,
    fate: Tensor | None = None,
) -> Tensor:
    """BERT's replacement of chosen tokens (arXiv:1810.04805, section 3.1): 80 % [MASK], 10 % random, 10 % unchanged.

    Args:
        ids: (B, T).
        chosen: (B, T) bool.
        seeds: (B,).
        special: (S,) ids that are never drawn.
        mask_id: id of [MASK].
        vocab_size: ids below it may be drawn.
        fate: (B, T) numbers below T; tokens of a row with the same number share their lot, else each has its own.

    Returns:
        (B, T) corrupted ids.
    """
    lot = uniform(seeds, ids.shape[1], stream=1)
    lot = lot if fate is None else lot.gather(1, fate)
    drawn = ordinary_ids(uniform(seeds, ids.shape[1], stream=2), special, vocab_size)
    return ids.masked_fill(chosen & (lot < 0.8), mask_id).where(~(chosen & (lot >= 0.9)), drawn)


def maskable(batch: TextBatch, special: Tensor) -> Tensor:
    """(B, T) bool: real tokens that are not special."""
    return batch.mask & ~torch.isin(batch.ids, special)


def ordinary_ids(u: Tensor, special: Tensor, vocab_size: int) -> Tensor:
    """Maps uniform numbers to ids below `vocab_size` that are not special."""
    ordinary = vocab_size - len(special)
    ids = (u * ordinary).long().clamp(max=ordinary - 1)
    for s in special.sort().values:
        ids = ids + (ids >= s)
    return ids
