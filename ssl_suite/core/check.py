"""Checks of values where they enter: one sentence that names the option, its value and what it may be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

from ssl_suite.core.errors import UserError


def within(
    name: str,
    value: Any,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    whole: bool = False,
) -> None:
    """Raises UserError unless `value` is a finite number in a range.

    Args:
        name: of the option, as the user knows it.
        value: what was given.
        low: the least it may be.
        high: the most it may be.
        above: it must be greater than this.
        below: it must be less than this.
        whole: it must be a whole number.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    right_kind = is_number and (not whole or float(value).is_integer())
    if (
        right_kind
        and (low is None or value >= low)
        and (high is None or value <= high)
        and (above is None or value > above)
        and (below is None or value < below)
    ):
        return
    bounds = [
        f"{word} {bound if isinstance(bound, int) else format(bound, 'g')}"
        for word, bound in (("at least", low), ("above", above), ("at most", high), ("below", below))
        if bound is not None
    ]
    kind = "a whole number" if whole else "a number"
    raise UserError(f"{name} is {value!r}, but must be {' '.join([kind, ' and '.join(bounds)]).strip()}.")


def one_of(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raises UserError unless `value` is one of `choices`; the command line checks types, Python does not."""
    if value not in choices:
        raise UserError(f"{name} is {value!r}, but must be one of {', '.join(choices)}.")
