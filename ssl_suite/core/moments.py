"""Mean and deviation of more numbers than fit into memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

from torch import Tensor

WIDE = 2**16
"""Numbers that are widened to float64 at a time: few enough to stay in a core's cache."""


@dataclass(frozen=True)
class Moments:
    """Of N rows, measured in float64 and joined as Chan, Golub and LeVeque 1983 do ("Algorithms for Computing the
    Sample Variance"): exact where numbers lie far from 0.

    Attributes:
        count: N.
        mean: (S, D).
        squares: (S, D) Σ (x − mean)².
    """

    count: int
    mean: Tensor
    squares: Tensor

    @classmethod
    def of(cls, values: Tensor) -> Moments:
        """Of (N, S, D) values."""
        return cls.join([cls._few(some) for some in values.split(max(1, WIDE // max(1, values[0:1].numel())))])

    @classmethod
    def _few(cls, values: Tensor) -> Moments:
        wide = values.double()
        mean = wide.sum(0) / max(len(wide), 1)
        return cls(len(wide), mean, (wide - mean).square_().sum(0))

    @classmethod
    def join(cls, parts: Iterable[Moments]) -> Moments:
        """Of all rows together; equal parts in equal order give equal bits."""
        return reduce(cls._with, parts)

    def _with(self, other: Moments) -> Moments:
        if not self.count or not other.count:
            return self if self.count else other
        count, apart = self.count + other.count, other.mean - self.mean
        mean = self.mean + apart * (other.count / count)
        return Moments(count, mean, self.squares + other.squares + apart.square() * (self.count * other.count / count))

    @property
    def deviation(self) -> Tensor:
        """(S, D), of the rows themselves (no correction)."""
        return (self.squares / max(self.count, 1)).sqrt()

    @property
    def size(self) -> Tensor:
        """(S, 1) root mean square of each state."""
        return (self.mean.square() + self.squares / max(self.count, 1)).mean(1, keepdim=True).sqrt()
