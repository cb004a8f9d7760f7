"""Sparse attention: each block of queries reads a few blocks of keys, at a cost linear in the length.

What is unusual: global blocks and random ones are those of each row's own real length, so that neither padding nor
batch mates change a state; and a row is cut into blocks, whichever documents are packed in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_suite.core.random import uniform
from ssl_suite.encoders.block_attention import block_attention, fits
from ssl_suite.encoders.masks import AttentionMask


@dataclass(frozen=True, eq=False)
class BlockMask:
    """Which N blocks of b positions read which M blocks, and what within them.

    Args:
        size: b.
        keys: (B or 1, H or 1, N, M) the key blocks of each block of queries.
        seen: (B or 1, H or 1, N, b or 1, M·b) True = the query sees the key; None where each sees all of its M blocks.
        ends: (B or 1, 2) blocks whose queries read the whole row; None where none do.
        row: who sees whom in the row, for those.
    """

    size: int
    keys: Tensor
    seen: Tensor | None
    ends: Tensor | None = None
    row: AttentionMask = AttentionMask()

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of (B, H, T, d) queries, keys and values, T ≤ N·b → (B, H, T, d)."""
        n, t = self.keys.shape[2], q.shape[2]
        missing = n * self.size - t
        q, k, v = (F.pad(x, (0, 0, 0, missing)) if missing else x for x in (q, k, v))
        q, k, v = (x.unflatten(2, (n, -1)) for x in (q, k, v))  # (B, H, N, b, d)
        if fits(q):
            whole = self._seen_by_ends(len(q), t)
            if missing and self.ends is not None:
                there = torch.ones(1, 1, 1, t, dtype=torch.bool, device=q.device) if whole is None else whole
                whole = F.pad(there, (0, missing))
            return block_attention(q, k, v, self.keys, self.seen, self.ends, whole).flatten(2, 3)[:, :, :t]
        seen = None if self.seen is None else self.seen.expand(-1, q.shape[1], -1, -1, -1).flatten(1, 2)
        chosen = self._places(q)
        read = (x.flatten(0, 2).flatten(1).index_select(0, chosen).view(*q.shape[:3], -1, x.shape[-1]) for x in (k, v))
        k_read, v_read = (x.flatten(1, 2) for x in read)  # (B, H·N, M·b, d)
        y = F.scaled_dot_product_attention(q.flatten(1, 2), k_read, v_read, attn_mask=seen).unflatten(1, q.shape[1:3])
        if self.ends is not None:
            y = self._read_whole(y, q, k, v, t)
        return y.flatten(2, 3)[:, :, :t]

    def _places(self, q: Tensor) -> Tensor:
        """(B·H·N·M,) where each key block stands among all of the batch."""
        b, h, n = q.shape[:3]
        first = torch.arange(b * h, device=q.device).view(b, h, 1, 1) * n
        return (first + self.keys).flatten()

    def _read_whole(self, y: Tensor, q: Tensor, k: Tensor, v: Tensor, t: int) -> Tensor:
        """`y` with what the queries of the `ends` read of all t keys in its place."""
        assert self.ends is not None
        ends = self.ends.expand(len(q), -1)
        rows = torch.arange(len(q), device=q.device)[:, None]
        queries = q.transpose(1, 2)[rows, ends].transpose(1, 2)  # (B, H, 2, b, d)
        keys, values = (x.flatten(2, 3)[:, :, :t] for x in (k, v))
        mask = self._seen_by_ends(len(q), t)
        z = F.scaled_dot_product_attention(queries.flatten(2, 3), keys, values, attn_mask=mask).view_as(queries)
        block = torch.arange(q.shape[2], device=q.device)
        for i in range(2):
            here = (block == ends[:, i, None])[:, None, :, None, None]
            y = torch.where(here, z[:, :, i, None], y)
        return y

    def _seen_by_ends(self, rows: int, t: int) -> Tensor | None:
        """(B or 1, 1, 2·b or 1, t) what, in so many rows, the queries of the `ends` see; None for all."""
        if self.ends is None:
            return None
        ends = self.ends.expand(rows, -1)
        at = (ends[..., None] * self.size + torch.arange(self.size, device=ends.device)).flatten(1)  # (B, 2·b)
        return self.row.rows(at.clamp(max=t - 1))


def band(whole: Tensor | None, places: Tensor, reach: int) -> Tensor:
    """(B or 1, 1, T, T) True = seen in `whole` and at most `reach` away by (B or 1, T) places: `near`, in full."""
    away = (places[:, :, None] - places[:, None, :]).abs()[:, None]
    return away <= reach if whole is None else (whole & (away <= reach)) | (away == 0)


def near(row: AttentionMask, length: int, reach: int, device: torch.device) -> BlockMask:
    """Each position sees those at most `reach` away, as in the local layers of ModernBERT (arXiv:2412.13663).

    Args:
        row: who sees whom apart from that.
        length: T.
        reach: on each side; also the size of the blocks.
        device: of what is attended to.
    """
    n = -(-length // reach)
    keys = torch.arange(n, device=device)[:, None] + torch.arange(-1, 2, device=device)  # (N, 3)
    query, key = _positions(torch.arange(n, device=device)[:, None], reach), _positions(keys, reach)
    seen = (query[:, :, None] - key[:, None, :]).abs() <= reach  # (N, b, 3·b)
    seen &= ((key >= 0) & (key < length))[:, None]
    inside = keys.clamp(0, n - 1)[None, None]
    return BlockMask(reach, inside, _restricted(row, inside, seen[None, None], reach, length))


def big_bird(
    row: AttentionMask, length: int, heads: int, size: int, random: int, layer: int, device: torch.device
) -> BlockMask:
    """Blocks of BigBird's internal transformer construction (arXiv:2007.14062, section 2).

    The first and the last block of a row read all and are read by all; each other one reads itself, its two neighbours
    and `random` others, drawn once for each layer and head. Rows of up to 5 + `random` blocks read all, as alone.

    Args:
        row: who sees whom apart from that.
        length: T; at least 6 + `random` blocks.
        heads: H.
        size: b.
        random: drawn blocks.
        layer: which one; others draw others.
        device: of what is attended to.
    """
    n = -(-length // size)
    block = torch.arange(n, device=device)
    last = torch.full((1,), n - 1, device=device)
    if row.real is not None:
        places = torch.arange(length, device=device).expand_as(row.real)
        last = places.masked_fill(~row.real, 0).amax(1) // size
    edge = last[:, None, None]  # (B or 1, 1, 1)
    window = (block[:, None] + torch.arange(-1, 2, device=device)).expand(len(last), -1, -1)  # (B, N, 3)
    ends = torch.stack([torch.zeros_like(last), last], 1)
    fixed = torch.cat([ends[:, None].expand(-1, n, -1), window], 2)  # (B, N, 5)
    two = torch.stack([last >= 0, last > 0], 1)[:, None].expand(-1, n, -1)
    there = torch.cat([two, (window > 0) & (window < edge)], 2)
    seeds = (torch.arange(heads, device=device)[:, None] << 16) + block  # (H, N), whatever the length
    order = uniform(seeds.flatten(), n, stream=layer).view(heads, n, n)
    free = (block > 0) & (block < edge) & ((block[:, None] - block).abs() > 1)  # (B, N, N)
    values, drawn = order.masked_fill(~free[:, None], 2.0).topk(random + 1, largest=False)
    fixed, there = (x[:, None].expand(-1, heads, -1, -1) for x in (fixed, there))
    # of 5 + r blocks those beside an end lack one: it takes the place of the neighbour that is the end
    lacks = (values[..., -1] < 2) & (last + 1 == 5 + random)[:, None, None]
    place = torch.arange(5, device=device) == torch.where(block == 1, 2, 4)[:, None]  # (N, 5)
    spare = lacks[..., None] & place
    fixed, there = torch.where(spare, drawn[..., -1:], fixed), there | spare
    keys = torch.cat([fixed.clamp(0, n - 1), drawn[..., :-1]], 3)  # (B, H, N, 5 + r)
    there = torch.cat([there, values[..., :-1] < 2], 3)
    seen = there.repeat_interleave(size, 3)[:, :, :, None]
    return BlockMask(size, keys, _restricted(row, keys, seen, size, length), ends, row)


def _positions(blocks: Tensor, size: int) -> Tensor:
    """(N, M) blocks → (N, M·b) the positions in them."""
    return (blocks[..., None] * size + torch.arange(size, device=blocks.device)).flatten(-2)


def _restricted(row: AttentionMask, keys: Tensor, seen: Tensor, size: int, length: int) -> Tensor:
    """`seen` of real keys of the query's own document alone; all where that is none: no softmax is over nothing.

    Args:
        row: which are real, and whose.
        keys: (B or 1, H or 1, N, M).
        seen: (B or 1, H or 1, N, b or 1, M·b).
        size: b.
        length: T.
    """
    n = keys.shape[2]
    if row.documents is None and row.real is None and n * size == length:
        return seen
    real = torch.ones(1, length, dtype=torch.bool, device=keys.device) if row.real is None else row.real
    seen = seen & _of_keys(F.pad(real, (0, n * size - length)), keys, size)[:, :, :, None]
    if row.documents is not None:
        documents = F.pad(row.documents, (0, n * size - length), value=-1)
        seen = seen & (documents.view(-1, 1, n, size, 1) == _of_keys(documents, keys, size)[:, :, :, None])
    return seen | ~seen.any(-1, keepdim=True)


def _of_keys(values: Tensor, keys: Tensor, size: int) -> Tensor:
    """(B or 1, N·b) of each position, (B or 1, H or 1, N, M) → (B, H or 1, N, M·b) of those read."""
    rows = torch.arange(len(values), device=keys.device)[:, None, None, None]
    return values.unflatten(1, (-1, size))[rows, keys].flatten(3)
