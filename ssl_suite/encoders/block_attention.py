"""Attention by blocks, on a CPU: a few blocks of queries of a head at a time, whose scores stay in the cache.

SDPA's kernel takes a copy of all that is read, with gradients of the same size that are then added up, and its backward
pass reaches half the speed of plain products there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

AT_ONCE = 2**19
"""Scores that are held together, 2 MiB."""


def block_attention(
    q: Tensor, k: Tensor, v: Tensor, keys: Tensor, seen: Tensor | None, ends: Tensor | None, whole: Tensor | None
) -> Tensor:
    """Softmax attention of N blocks of b queries on M blocks of keys each.

    Args:
        q: (B, H, N, b, d).
        k: likewise.
        v: likewise.
        keys: (1 or B, 1 or H, N, M) the key blocks of each block of queries.
        seen: (1 or B, 1 or H, N, 1 or b, M·b) True = the query sees the key; None: all do.
        ends: (1 or B, 2) blocks whose queries read the whole row; None: none do.
        whole: (1 or B, 1, 1 or 2·b, N·b) True = those of `ends` see the key; None: all do.

    Returns:
        (B, H, N, b, d).
    """
    return _BlockAttention.apply(q, k, v, keys, seen, ends, whole)


def fits(q: Tensor) -> bool:
    """Whether `block_attention` is the faster way: queries that learn, in full precision on a CPU."""
    learns = q.requires_grad and torch.is_grad_enabled() and not torch.compiler.is_compiling()
    return learns and q.device.type == "cpu" and q.dtype == torch.float32


class _BlockAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        keys: Tensor,
        seen: Tensor | None,
        ends: Tensor | None,
        whole: Tensor | None,
    ) -> Tensor:
        q = q * q.shape[-1] ** -0.5
        b, h, n, size, _ = q.shape
        y, shares = torch.empty_like(q), q.new_empty(b, h, n, size, keys.shape[3] * size)
        ends_shares = None if ends is None else q.new_empty(b, h, 2 * size, n * size)
        for i, j, some in _pieces(b, h, n, shares.shape[-1] * size):
            k_read, v_read = (_read(x[i, j], _of(keys, i, j)[some]) for x in (k, v))
            logits = torch.bmm(q[i, j, some], k_read.mT)
            if seen is not None:
                logits.masked_fill_(~_of(seen, i, j)[some], -torch.inf)
            torch.softmax(logits, -1, out=shares[i, j, some])
            torch.bmm(shares[i, j, some], v_read, out=y[i, j, some])
        if ends is not None and ends_shares is not None:
            for i, j in ((i, j) for i in range(b) for j in range(h)):
                at = ends[i % len(ends)]
                logits = q[i, j, at].flatten(0, 1) @ k[i, j].flatten(0, 1).T  # (2·b, N·b)
                if whole is not None:
                    logits.masked_fill_(~whole[i % len(whole), 0], -torch.inf)
                torch.softmax(logits, -1, out=ends_shares[i, j])
                y[i, j, at] = (ends_shares[i, j] @ v[i, j].flatten(0, 1)).unflatten(0, (2, -1))
        ctx.save_for_backward(q, k, v, keys, ends, shares, ends_shares)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, keys, ends, shares, ends_shares = ctx.saved_tensors
        b, h, n, size, width = q.shape
        d_q, d_k, d_v = torch.empty_like(q), q.new_zeros(q.shape), q.new_zeros(q.shape)
        rest = d_y.clone(memory_format=torch.contiguous_format)
        if ends is not None:  # what these queries have is not of their blocks
            for i in range(b):
                rest[i, :, ends[i % len(ends)]] = 0
        for i, j, some in _pieces(b, h, n, shares.shape[-1] * size):
            chosen = _of(keys, i, j)[some]
            k_read, v_read = (_read(x[i, j], chosen) for x in (k, v))
            p, g = shares[i, j, some], rest[i, j, some]
            d_logits = torch._softmax_backward_data(torch.bmm(g, v_read.mT), p, -1, p.dtype)
            torch.bmm(d_logits, k_read, out=d_q[i, j, some])
            for d, made in ((d_k, torch.bmm(d_logits.mT, q[i, j, some])), (d_v, torch.bmm(p.mT, g))):
                d[i, j].index_add_(0, chosen.flatten(), made.view(-1, size, width))
        if ends is not None:
            for i, j in ((i, j) for i in range(b) for j in range(h)):
                at, p = ends[i % len(ends)], ends_shares[i, j]
                g = d_y[i, j, at]  # a copy
                g[0] *= at[0] != at[1]  # where both are one block it was written twice
                g = g.flatten(0, 1)
                d_logits = torch._softmax_backward_data(g @ v[i, j].flatten(0, 1).T, p, -1, p.dtype)
                d_q[i, j].index_add_(0, at, (d_logits @ k[i, j].flatten(0, 1)).unflatten(0, (2, -1)))
                d_k[i, j] += (d_logits.T @ q[i, j, at].flatten(0, 1)).unflatten(0, (n, -1))
                d_v[i, j] += (p.T @ g).unflatten(0, (n, -1))
        return d_q * width**-0.5, d_k, d_v, None, None, None, None


def _pieces(rows: int, heads: int, blocks: int, scores: int) -> Iterator[tuple[int, int, slice]]:
    """A row, a head and some of its blocks of queries, of so many scores each, at a time."""
    step = max(1, AT_ONCE // scores)
    for i in range(rows):
        for j in range(heads):
            for first in range(0, blocks, step):
                yield i, j, slice(first, first + step)


def _of(x: Tensor, row: int, head: int) -> Tensor:
    """What (1 or B, 1 or H, …) has of a row and a head."""
    return x[row % x.shape[0], head % x.shape[1]]


def _read(x: Tensor, chosen: Tensor) -> Tensor:
    """(N, b, d) blocks, (C, M) which of them → (C, M·b, d)."""
    return x.index_select(0, chosen.flatten()).view(len(chosen), -1, x.shape[-1])
