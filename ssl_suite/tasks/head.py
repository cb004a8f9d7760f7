"""Heads shared by the tasks."""

from __future__ import annotations

from torch import nn


def head(dim: int, hidden: int, out: int, dropout: float = 0.0) -> nn.Module:
    """A linear layer, or two with a ReLU between for `hidden` > 0."""
    last = nn.Linear(hidden or dim, out)
    if not hidden:
        return nn.Sequential(nn.Dropout(dropout), last) if dropout else last
    return nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Dropout(dropout), last)
