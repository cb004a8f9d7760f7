"""Outcomes: what each test example adds to a metric, kept so that intervals can hold the choice of test rows.

A pair of numbers an example, of which `statistic` says how the metric is made:
`ratio`: (numerator, denominator), the metric is Σ numerator / Σ denominator, as accuracy, error rates and F1 are;
`pearson`, `spearman`, `matthews`, `macro_f1`: (prediction, target) of all examples together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from ssl_suite.core.data import DataModule

Outcome = tuple[float, float] | None
"""Of one item; None where it does not count."""

Example = tuple[str, float, float]
"""Name and outcome of what was judged."""


def by_id(rows: Sequence[tuple[int, Outcome]], data: DataModule, split: str) -> list[Example]:
    """The outcomes of items under their ids; items that are parts of a row (windows) go by their number."""
    ids = data.ids(split)
    named = len(ids) == data.size(split)
    return [(ids[i] if named else str(i), *outcome) for i, outcome in rows if outcome is not None]


def gathered(rows: list[Any]) -> list[Any]:
    """The rows of all ranks."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return rows
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, rows)
    return [row for part in parts for row in part]
