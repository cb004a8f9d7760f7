"""Randomness as a function of (seed, epoch, item): the same for any worker count, batch order, rank or resume."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
Bits = TypeVar("Bits", int, Tensor)


def _mix(x: Bits) -> Bits:
    """The 32-bit finaliser `lowbias32` of C. Wellons, on unsigned 32-bit values in an int or an int64 tensor."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & _MASK
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


def item_seed(seed: int, epoch: int, index: int) -> int:
    """Returns the 32-bit seed of item `index` in `epoch` of a run with `seed`."""
    state = seed & _MASK
    for part in (epoch, index):
        state = _mix((state * 0x9E3779B1 + part + 0x85EBCA6B) & _MASK)
    return state


def uniform(seeds: Tensor, n: int, stream: int = 0) -> Tensor:
    """Draws uniform numbers in [0, 1), a row for each item, without any generator state.

    Args:
        seeds: (B,) int64, from `item_seed`.
        n: numbers per item.
        stream: a different number gives independent draws for another purpose.

    Returns:
        (B, n) float32; row b depends on `seeds[b]`, `stream` and the column only.
    """
    columns = torch.arange(n, device=seeds.device, dtype=torch.int64)
    keys = _mix((seeds.long() + stream * 0x9E3779B1) & _MASK)[:, None]
    bits = _mix((_mix((columns * 0x9E3779B1 + 1) & _MASK)[None] + keys) & _MASK)
    return (bits >> 8).float() * 2.0**-24


def normal(seeds: Tensor, n: int, stream: int = 0) -> Tensor:
    """(B, n) standard normal numbers, drawn as `uniform` draws (Box and Muller 1958)."""
    radius, turn = uniform(seeds, 2 * n, stream).unflatten(1, (n, 2)).unbind(2)
    return (-2 * (1 - radius).log()).sqrt() * (2 * torch.pi * turn).cos()


def draw(seed: int, column: int, stream: int = 0) -> float:
    """Returns the number that `uniform` has in this column for this seed: one item's, without a tensor."""
    key = _mix((seed + stream * 0x9E3779B1) & _MASK)
    bits = _mix((_mix((column * 0x9E3779B1 + 1) & _MASK) + key) & _MASK)
    return (bits >> 8) * 2.0**-24


def seed_all(seed: int) -> None:
    """Seeds the global generators of Python, numpy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed & _MASK)
    torch.manual_seed(seed)


def run_seed() -> int:
    """The seed of this run: what `seed_everything` was given, else 0."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Draws new weights from `seed` alone, and leaves torch's own stream on the host where it was."""
    state = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(state)
