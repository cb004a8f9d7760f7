"""Batch norm over all processes, where torch's SyncBatchNorm cannot be used.

That one runs on GPUs only, and put in the place of timm's batch norms it loses the activation they end with.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm


class SyncedBatchNorm(nn.Module):
    """A batch norm whose mean and variance are those of all processes' batches together, of whatever sizes.

    Args:
        norm: what it takes the place of; weights, running figures and their names stay.
    """

    running_mean: Tensor | None
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        self.eps, self.momentum = norm.eps, norm.momentum
        self.weight, self.bias = norm.weight, norm.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))
        self.drop, self.act = getattr(norm, "drop", nn.Identity()), getattr(norm, "act", nn.Identity())  # timm's
        self.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) → the same shape."""
        if self.training or self.running_mean is None:
            mean, variance = self._measure(x)
            along = (1, -1, *[1] * (x.ndim - 2))
            x = (x - mean.view(along)) * (variance + self.eps).rsqrt().view(along)
            if self.weight is not None:
                x = x * self.weight.view(along) + self.bias.view(along)
        else:
            x = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return self.act(self.drop(x))

    def _measure(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance (C,) over all processes; moves the running ones."""
        over = [0, *range(2, x.ndim)]
        sums = summed(torch.cat([x.sum(over), x.new_tensor([x.numel() / x.shape[1]])]))
        count, mean = sums[-1], sums[:-1] / sums[-1]
        centred = x - mean.view(1, -1, *[1] * (x.ndim - 2))
        variance = summed(centred.square().sum(over)) / count
        if self.training and self.running_mean is not None:
            with torch.no_grad():
                self.num_batches_tracked += 1
                share: Tensor | float = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
                self.running_mean += share * (mean - self.running_mean)
                self.running_var += share * (variance * count / (count - 1).clamp(min=1) - self.running_var)
        return mean, variance


class _Sum(torch.autograd.Function):
    """Σ over all processes; what flows back into one is the sum of what flows back in all."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        torch.distributed.all_reduce(total)
        return total


def summed(values: Tensor) -> Tensor:
    """Σ over all processes, if there are others."""
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    return _Sum.apply(values) if together else values


def sync_batch_norms(module: nn.Module, everywhere: bool) -> None:
    """Replaces batch norms inside `module`.

    Args:
        module: changed in place.
        everywhere: all of them, for a CPU; else only those that torch's own conversion would break.
    """
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm) and (everywhere or hasattr(child, "act")):
            setattr(module, name, SyncedBatchNorm(child))
        else:
            sync_batch_norms(child, everywhere)
