"""What a decoder says, token by token: greedily, or along several beams."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Advance = Callable[[Tensor, Tensor | None], Tensor]
"""(N, 1) ids, and the rows of the N before that they go on from (None: each its own) → (N, V) log-probabilities."""
NEVER = -1e9
"""A score below all others."""


def greedy(advance: Advance, n: int, start: int, end: int, length: int, device: torch.device) -> list[list[int]]:
    """The likeliest next token each time, until the end token.

    Args:
        advance: the model, one token further.
        n: number of outputs.
        start: id before the first.
        end: id that ends an output.
        length: most tokens.
        device: of the model.

    Returns:
        n lists of ids, without start and end.
    """
    said = torch.full((n, 1), start, device=device)
    done = torch.zeros(n, dtype=torch.bool, device=device)
    for _ in range(length):
        following = advance(said[:, -1:], None).argmax(-1).masked_fill(done, end)
        said = torch.cat([said, following[:, None]], 1)
        done |= following == end
        if done.all():
            break
    return [until(row, end) for row in said[:, 1:].tolist()]


def beam_search(
    advance: Advance, n: int, start: int, end: int, length: int, beams: int, penalty: float, device: torch.device
) -> list[list[int]]:
    """Beam search with a length penalty (Wu et al. 2016, arXiv:1609.08144, section 7, where it is another power).

    As transformers has it, so that outputs agree: 2K candidates are kept, of which those that end and are among the
    first K are finished outputs, and the K best of the others go on. An input is done when its best running beam, over
    its present length, is worse than its worst finished one.

    Args:
        advance: the model, one token further.
        n: number of inputs; rows of one lie together.
        start: id before the first token.
        end: id that ends an output.
        length: most tokens.
        beams: K.
        penalty: power of an output's length, by which its log-likelihood is divided.
        device: of the model.

    Returns:
        For each input the ids of its best output, without start and end.
    """
    said = torch.full((n, 1, 1), start, device=device)
    scores = torch.zeros(n, 1, device=device)
    best = torch.full((n, beams, length), end, device=device)  # finished outputs
    best_scores = torch.full((n, beams), NEVER, device=device)
    finished = torch.zeros(n, beams, dtype=torch.bool, device=device)
    open_ = torch.ones(n, 1, dtype=torch.bool, device=device)
    rows: Tensor | None = None
    for t in range(length):
        k = said.shape[1]
        log_p = advance(said[:, :, -1].reshape(-1, 1), rows).view(n, k, -1)
        log_p = (scores[..., None] + log_p).flatten(1)
        top, index = log_p.topk(min(2 * beams, log_p.shape[1]))  # (n, 2K), descending
        beam, token = index // (log_p.shape[1] // k), index % (log_p.shape[1] // k)
        said = torch.cat([said.gather(1, beam[..., None].expand(-1, -1, t + 1)), token[..., None]], 2)
        ends = (token == end) | (t == length - 1)
        just = ends & (torch.arange(ends.shape[1], device=device) < beams)
        made = (top / (t + 1) ** penalty).masked_fill(~(just & open_), NEVER)
        best_scores, chosen = torch.cat([best_scores, made], 1).topk(beams)
        whole = torch.nn.functional.pad(said[:, :, 1:], (0, length - t - 1), value=end)
        best = torch.cat([best, whole], 1).gather(1, chosen[..., None].expand(-1, -1, length))
        finished = torch.cat([finished, just & open_], 1).gather(1, chosen)
        scores, going = (top + ends * NEVER).topk(min(beams, top.shape[1]))
        said = said.gather(1, going[..., None].expand(-1, -1, t + 2))
        beam = beam.gather(1, going)
        rows = (beam + torch.arange(n, device=device)[:, None] * k).flatten()
        worst = best_scores.amin(1, keepdim=True).where(finished.all(1, keepdim=True), NEVER)
        open_ &= scores[:, :1] / (t + 1) ** penalty > worst
        if not open_.any():
            break
    return [until(row, end) for row in best[:, 0].tolist()]


def until(ids: list[int], end: int) -> list[int]:
    """What stands before the first end token."""
    return ids[: ids.index(end)] if end in ids else ids
