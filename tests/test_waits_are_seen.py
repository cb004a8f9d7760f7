"""The counter of host waits sees what waits for a GPU, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from host_waits import HostWaits
from torch import Tensor

X = torch.rand(4, 4)
MASK = X > 0.5


def put(value: Tensor | float) -> Tensor:
    x = X.clone()
    x[MASK] = value
    return x


WAITING: dict[str, Callable[[], object]] = {
    "item": lambda: X.sum().item(),
    "if": lambda: bool(X.sum() > 0),
    "nonzero": lambda: X.nonzero(),
    "mask": lambda: X[MASK],
    "mask of rows": lambda: X[MASK[0]],
    "put a tensor": lambda: put(X[0].repeat(4)[: int(MASK.sum())]),
    "masked_select": lambda: X.masked_select(MASK),
    "unique": lambda: X.unique(),
    "inverse": lambda: torch.linalg.inv(X + 4 * torch.eye(4)),
    "repeats of unknown sum": lambda: X.repeat_interleave(torch.ones(4, dtype=torch.int64), 0),
    "equal": lambda: torch.equal(X, X),
    "numbers": lambda: X.new_tensor([1.0, 2.0]),
    "list": lambda: X.tolist(),
    "numpy": lambda: X.numpy(),
    "to the host": lambda: X.cpu(),
    "svd": lambda: torch.linalg.svdvals(X),
}
RUNNING: dict[str, Callable[[], object]] = {
    "gather": lambda: X.gather(1, torch.zeros(4, 1, dtype=torch.int64)),
    "index": lambda: X[torch.arange(2)],
    "put a number": lambda: put(0.0),
    "where": lambda: torch.where(MASK, X, 0.0),
    "repeats": lambda: X.repeat_interleave(3, 0),
    "sort": lambda: X.argsort(1),
}


@pytest.mark.parametrize("name", WAITING)
def test_what_waits_is_seen(name: str) -> None:
    with HostWaits() as waits:
        WAITING[name]()
    assert waits.found


@pytest.mark.parametrize("name", RUNNING)
def test_what_does_not_wait_is_not(name: str) -> None:
    with HostWaits() as waits:
        RUNNING[name]()
    assert waits.found == []
