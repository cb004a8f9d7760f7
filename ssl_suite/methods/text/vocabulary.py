"""Cross-entropy over a vocabulary, a few rows of logits at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ssl_suite.core.batch import TextBatch
from ssl_suite.core.flops import flop_counter
from ssl_suite.core.tensor_parallel import Part
from ssl_suite.encoders.likelihood import rows_at_once
from ssl_suite.encoders.text import TextEncoder


def vocabulary_loss(
    states: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    part: Part = Part(),
    shares: Tensor | None = None,
) -> Tensor:
    """Σ cross-entropy of `states @ weight.T + bias` against `targets`, without ever holding all logits.

    The gradient is made with the loss, chunk by chunk, as in Liger (arXiv:2410.10989, section 3.2): memory is that of
    one chunk, which is used again for the next. Softmax and sums are float32, whatever the product's precision.

    Args:
        states: (M, D).
        weight: (V, D), of the word embedding.
        bias: (V,) or None.
        targets: (M,) ids.
        part: which of the words this process has, where others of its tensor-parallel group have the rest: `weight` is
            (V / size, D) then, and each row's maximum, sum and target are shared (arXiv:1909.08053, section 3).
        shares: (M,) what each row's cross-entropy is multiplied with; None for 1.

    Returns:
        Scalar float32; 0 where M is 0.
    """
    bias = None if bias is None else part.cut(bias)
    return _VocabularyLoss.apply(states, weight, bias, targets, part, shares, torch.is_grad_enabled())


class _VocabularyLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        part: Part,
        shares: Tensor | None,
        training: bool,
    ) -> Tensor:
        targets, here = own_words(targets, len(weight), part)
        device = states.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else states.dtype
        words, inputs = weight.to(dtype), states.to(dtype)
        rows = rows_at_once(weight)
        buffer = words.new_empty(min(rows, len(states)), len(weight))
        loss = torch.zeros((), device=states.device)
        d_states = torch.empty_like(inputs) if training else None
        d_weight = torch.zeros_like(weight, dtype=torch.float32) if training else None
        d_bias = torch.zeros_like(bias, dtype=torch.float32) if training and bias is not None else None
        for start in range(0, len(states), rows):
            x, y, ours = (t[start : start + rows] for t in (inputs, targets, here))
            z = torch.mm(x, words.T, out=buffer[: len(x)]).float()  # (rows, V)
            if bias is not None:
                z.add_(bias)
            z.sub_(part.max(z.amax(-1, keepdim=True)))
            target = part.sum(z.gather(1, y[:, None]) * ours)
            total = part.sum(z.exp_().sum(-1, keepdim=True))  # z / total is the softmax
            if shares is None:
                loss += (total.log() - target).sum()
            else:
                share = shares[start : start + rows, None]
                loss += ((total.log() - target) * share).sum()
                total = total / share  # of which the gradient's rows are multiples of the inverse
            if d_states is None or d_weight is None:
                continue
            e, scaled = z.to(dtype), (x / total).to(dtype)
            d_states[start : start + rows] = (e @ words) / total
            if e.dtype == d_weight.dtype:
                d_weight.addmm_(e.T, scaled)
            else:
                d_weight += e.T @ scaled
            if d_bias is not None:
                d_bias += (z.T @ total.reciprocal())[:, 0]
        if d_states is not None and d_weight is not None:  # the targets' own share of softmax − one-hot
            here = here if shares is None else here * shares[:, None]
            d_states -= words[targets] * here.to(dtype)
            d_weight.index_add_(0, targets, inputs.float() * here, alpha=-1)
            if d_bias is not None:
                d_bias.index_add_(0, targets, here[:, 0].float(), alpha=-1)
            part.sum(d_states)
        ctx.save_for_backward(d_states, d_weight, d_bias)
        ctx.dtypes = states.dtype, weight.dtype, None if bias is None else bias.dtype
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        saved = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        return *(d if d is None else (d * scale).to(dtype) for d, dtype in saved), None, None, None, None


def encoder_flops(encoder: TextEncoder, length: int, outputs: int | None = None) -> float:
    """FLOPs of a row of `length` tokens through an encoder, by torch's counter; on the meta device none is computed.

    Args:
        encoder: on any device.
        length: of the row.
        outputs: at how many places the output is wanted; default: at all.
    """
    ids = torch.zeros(1, length, dtype=torch.long, device=encoder.tokens.weight.device)
    row = ids[:, 0]
    batch = TextBatch(row, row, None, ids, torch.ones_like(ids, dtype=torch.bool), dense=True)
    with flop_counter() as counter, torch.no_grad():
        if outputs is None:
            encoder(batch)
        else:
            encoder.output_at(batch, (torch.zeros_like(ids[0, :outputs]), ids[0, :outputs]))
    return float(counter.get_total_flops())


def product_flops(weight: Tensor, rows: float) -> float:
    """FLOPs of `rows` states times a matrix."""
    return 2 * rows * weight.numel()


def own_words(targets: Tensor, words: int, part: Part) -> tuple[Tensor, Tensor]:
    """(M,) which of this process' own words each target is, 0 where it is another's; (M, 1) whether it is."""
    own = targets - part.rank * words
    here = (own >= 0) & (own < words)
    return own * here, here[:, None]


@torch.no_grad()
def draw(states: Tensor, weight: Tensor, bias: Tensor, u: Tensor) -> Tensor:
    """Draws an id from the softmax of each row of `states @ weight.T + bias` by its inverse distribution function.

    Args:
        states: (M, D).
        weight: (V, D).
        bias: (V,); -inf for ids that are never drawn.
        u: (M,) in [0, 1).

    Returns:
        (M,) ids.
    """
    rows = rows_at_once(weight)
    ids = [torch.empty(0, dtype=torch.long, device=states.device)]
    for x, y in zip(states.split(rows), u.split(rows), strict=True):
        below = F.linear(x, weight, bias).float().softmax(-1).cumsum(-1)  # (rows, V)
        ids.append(torch.searchsorted(below, (y * (1 - 2**-20))[:, None] * below[:, -1:], right=True)[:, 0])
    return torch.cat(ids)
