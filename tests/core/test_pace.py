"""A long pass over data is not silent, a short one is."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import count

import pytest
import torch

from ssl_suite.core.pace import told


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def ticking(seconds: float) -> Iterator[float]:
    """A clock that so many seconds pass by between two looks."""
    return (seconds * i for i in count())


def test_lines_come_at_growing_distances(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert list(told(range(100), "Encoding train", 100, clock=ticking(5.0).__next__)) == list(range(100))
    assert lines(caplog) == [
        f"Encoding train: {n} of 100 after {5 * n} s" for n in (3, 9, 21, 45, 93)
    ]  # 15 s, then 30, 60, 120 and 240 more


def test_batches_count_as_what_they_hold_and_a_pass_that_is_soon_over_says_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    batches = list(torch.arange(4000).split(1000))
    with caplog.at_level(logging.INFO):
        assert len(list(told(batches, "Reading files", 4000, len, ticking(1.0).__next__))) == 4
        assert lines(caplog) == []
        list(told(batches, "Reading files", 4000, len, ticking(10.0).__next__))
    assert lines(caplog) == ["Reading files: 2,000 of 4,000 after 20 s"]
