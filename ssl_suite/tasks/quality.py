"""How good speech sounds beside what it should be, by the measures that enhancement is compared by: STOI and PESQ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_suite.core.errors import UserError, nearest

Wave = NDArray[np.float64]
Measure = Callable[[Wave, Wave, int], float | None]


def stoi(said: Wave, true: Wave, rate: int) -> float | None:
    """Short-time objective intelligibility (Taal et al. 2011), 0 to 1; None of silence."""
    return float(import_module("pystoi").stoi(true, said, rate)) if said.any() and true.any() else None


def pesq(said: Wave, true: Wave, rate: int) -> float | None:
    """Perceptual evaluation of speech quality, MOS-LQO of ITU-T P.862.2; None where it hears no utterance."""
    library: Any = import_module("pesq")
    try:
        return float(library.pesq(rate, true, said, "wb"))
    except (library.NoUtterancesError, library.BufferTooShortError):
        return None


MEASURES: dict[str, tuple[str, Measure]] = {"stoi": ("pystoi", stoi), "pesq": ("pesq", pesq)}
"""By name: the package it needs, and itself."""


def expect_measures(names: Sequence[str]) -> None:
    """Raises UserError where one is unknown, or its package is not installed."""
    for name in names:
        if name not in MEASURES:
            raise UserError(f"There is no measure {name!r} of speech.{nearest(name, MEASURES)}")
        if find_spec(MEASURES[name][0]) is None:
            raise UserError(f"{name.upper()} needs {MEASURES[name][0]}: pip install 'ssl_suite[quality]'.")


def mean_of(name: str, said: Wave, true: Wave, rate: int) -> float | None:
    """Of the (C, N) voices of one input, as they are meant; None where one of them cannot be measured."""
    found = [MEASURES[name][1](*pair, rate) for pair in zip(said, true, strict=True)]
    values = [value for value in found if value is not None]
    return sum(values) / len(values) if len(values) == len(found) else None
