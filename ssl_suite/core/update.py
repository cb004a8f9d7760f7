"""What the suite's own optimizers share: a step is an update of the weights that have a gradient, a group at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class GroupOptimizer(Optimizer):
    """Base of an optimizer that says how the weights of a group move."""

    def update(self, weights: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        """Moves the weights of a group, one gradient each, in place."""
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                self.update(weights, [weight.grad for weight in weights], group)
        return loss


def apart(x: Tensor, parts: int) -> Tensor:
    """The matrices that lie in a weight.

    Args:
        x: (parts · A, B), (parts, A, B), a kernel (A, …) of one part, or a vector (N,).
        parts: how many.

    Returns:
        (parts, A, B); of a vector (1, 1, N).
    """
    if x.ndim == 1:
        return x.view(1, 1, -1)
    return x if x.ndim == 3 and len(x) == parts > 1 else x.flatten(1).unflatten(0, (parts, -1))
