"""A number out of its range is one sentence that names option, value and range."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ssl_suite.core.check import one_of, within
from ssl_suite.core.errors import UserError


@pytest.mark.parametrize(
    ("value", "bounds"),
    [
        (0, {"low": 1}),
        (-1e-9, {"low": 0}),
        (1.5, {"low": 0, "high": 1}),
        (0.0, {"above": 0}),
        (1.0, {"below": 1}),
        (2.5, {"whole": True}),
        (math.nan, {}),
        (math.inf, {"low": 0}),
        (True, {"low": 0}),
        ("3", {"low": 0}),
        (None, {"low": 0}),
    ],
)
def test_what_is_outside_is_refused_by_name(value: Any, bounds: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"rate is .*, but must be a (whole )?number"):
        within("rate", value, **bounds)


@pytest.mark.parametrize(
    ("value", "bounds"),
    [(1, {"low": 1}), (0.5, {"above": 0, "below": 1}), (3.0, {"whole": True}), (-2, {}), (1, {"low": 0, "high": 1})],
)
def test_what_is_inside_passes(value: Any, bounds: dict[str, Any]) -> None:
    within("rate", value, **bounds)


def test_the_sentence_says_both_bounds() -> None:
    with pytest.raises(UserError, match=r"^rate is 2, but must be a number at least 0 and at most 1\.$"):
        within("rate", 2, low=0, high=1)


def test_a_name_from_python_is_checked_too() -> None:
    with pytest.raises(UserError, match=r"^how is 'adamx', but must be one of adamw, sgd\.$"):
        one_of("how", "adamx", ("adamw", "sgd"))
    one_of("how", "sgd", ("adamw", "sgd"))
