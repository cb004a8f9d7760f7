"""Corruptions of token sequences: pure functions of ids and per-item seeds."""

from __future__ import annotations

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


def bert_mask(batch: TextBatch, special: Tensor, mask_id: int, vocab_size: int, rate: float) -> tuple[Tensor, Tensor]:
    """BERT's corruption (arXiv:1810.04805, section 3.1): 80 % [MASK], 10 % a random token, 10 % unchanged.

    Args:
        batch: token ids, mask and seeds.
        special: (S,) ids that are never masked, never predicted and never drawn.
        mask_id: id of [MASK].
        vocab_size: ids below it may be drawn.
        rate: share of the ordinary tokens to predict.

    Returns:
        Corrupted ids (B, T) and the chosen positions (B, T) bool.
    """
    ids = batch.ids
    forbidden = (ids[..., None] == special).any(-1)
    chosen = choose_positions(batch.mask & ~forbidden, batch.seed, rate)
    kind = uniform(batch.seed, ids.shape[1], stream=1)
    drawn = ordinary_ids(uniform(batch.seed, ids.shape[1], stream=2), special, vocab_size)
    corrupted = ids.masked_fill(chosen & (kind < 0.8), mask_id)
    return corrupted.where(~(chosen & (kind >= 0.9)), drawn), chosen


def ordinary_ids(u: Tensor, special: Tensor, vocab_size: int) -> Tensor:
    """Maps uniform numbers to ids below `vocab_size` that are not special."""
    ordinary = vocab_size - len(special)
    ids = (u * ordinary).long().clamp(max=ordinary - 1)
    for s in special.sort().values:
        ids = ids + (ids >= s)
    return ids
