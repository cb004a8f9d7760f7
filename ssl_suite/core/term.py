"""Term: a part of a loss, as a sum and a count, so that accumulation and ranks make no difference."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(eq=False)
class Term:
    """A part of a loss, or a figure to log: a sum, and over how many.

    Attributes:
        sum: scalar, over what counts in a batch.
        count: how many that is (tokens, frames, items).
        scale: factor of the term in the loss.
    """

    sum: Tensor
    count: Tensor | float
    scale: float = 1.0

    @property
    def mean(self) -> Tensor:
        """Sum / count; 0 where nothing counts."""
        return self.over(self.count)

    def over(self, total: Tensor | float) -> Tensor:
        return self.sum / (total.clamp(min=1) if isinstance(total, Tensor) else max(1, total))
