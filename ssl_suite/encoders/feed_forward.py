"""The feed-forward layer of every transformer here, and what may stand between its two matrices."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

Activation = Literal["relu", "gelu", "gelu_tanh", "geglu", "geglu_tanh", "swiglu"]

_gelu_tanh = partial(F.gelu, approximate="tanh")
PLAIN: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu, "gelu_tanh": _gelu_tanh}
GATES: dict[str, Callable[[Tensor], Tensor]] = {"geglu": F.gelu, "geglu_tanh": _gelu_tanh, "swiglu": F.silu}
"""What is made of the gate (arXiv:2002.05202)."""


def activated(x: Tensor, activation: str) -> Tensor:
    """What a feed-forward layer makes of (…, hidden), or of (…, 2 · hidden) where it is gated."""
    if activation not in GATES:
        return PLAIN[activation](x)
    gate, value = x.chunk(2, -1)
    return GATES[activation](gate) * value


class FeedForward(nn.Module):
    """Two layers with a nonlinearity or a gate between them.

    Args:
        dim: width D, in and out.
        hidden: width between.
        activation: relu, gelu, gelu_tanh, or the gated geglu, geglu_tanh or swiglu.
        bias: whether both layers add one.
    """

    def __init__(self, dim: int, hidden: int, activation: str, bias: bool = True) -> None:
        super().__init__()
        self.activation, self.stacked = activation, 2 if activation in GATES else 1
        self.up, self.down = nn.Linear(dim, self.stacked * hidden, bias), nn.Linear(hidden, dim, bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(activated(self.up(x), self.activation))

    def matrices(self) -> dict[Tensor, int]:
        return {self.up.weight: self.stacked, self.down.weight: 1}
