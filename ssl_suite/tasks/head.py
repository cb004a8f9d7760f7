"""Heads shared by the tasks."""

from __future__ import annotations

from torch import nn

from ssl_suite.core.check import within
from ssl_suite.core.errors import UserError


def check_head(hidden: int, dropout: float, projection: int = 0) -> None:
    """Raises UserError for a width or a dropout that no head has."""
    within("task.hidden", hidden, low=0, whole=True)
    within("task.projection", projection, low=0, whole=True)
    within("task.dropout", dropout, low=0, below=1)


def head(dim: int, hidden: int, out: int, dropout: float = 0.0, projection: int = 0) -> nn.Module:
    """A linear layer, or two with a ReLU between for `hidden` > 0; before them a linear one for `projection` > 0.

    With a projection, the head of a task on whole inputs is SUPERB's (arXiv:2105.01051): projection, mean over time and
    linear layer, in whichever order the mean is taken.
    """
    if projection:
        return nn.Sequential(nn.Linear(dim, projection), head(projection, hidden, out, dropout))
    last = nn.Linear(hidden or dim, out)
    if not hidden:
        return nn.Sequential(nn.Dropout(dropout), last) if dropout else last
    return nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Dropout(dropout), last)


def expect_choice(labels: list[str]) -> None:
    """Raises UserError where there is nothing to tell apart."""
    if len(labels) < 2:
        there = f"is {labels[0]!r} on every training row" if labels else "is nowhere"
        raise UserError(f"A task needs two labels or more to tell apart, and the label {there}; look at --data.target.")
