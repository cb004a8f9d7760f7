"""What is measured against the amount of pretraining data: means and intervals by hand, in the best state."""

from __future__ import annotations

import math

import pytest

from ssl_suite.analysis.amounts import against, best_state, grown, growth
from ssl_suite.cli import fit
from ssl_suite.core.errors import UserError

VALUES = {0: [0.1, 0.1], 350: [0.1, 0.3], 5612: [0.4, 0.6]}
ROWS = [
    {"amount": amount, "state": state, "measure": measure, "value": value * (1 + state) * scale}
    for measure, scale in (("mrr", 1.0), ("mrr_centred", 0.5))
    for state in (0, 1)
    for amount, values in VALUES.items()
    for value in values
]


def test_a_curve_is_the_mean_of_each_amount_with_students_interval() -> None:
    found = growth(ROWS[::-1], 0, "mrr")
    assert list(found) == [0, 350, 5612]
    assert found[350] == pytest.approx((0.2, 12.706 * 0.1), rel=1e-3)  # t of 1 degree of freedom, over σ/√2
    assert found[0] == pytest.approx((0.1, 0.0), abs=1e-9)
    assert math.isnan(growth(ROWS[:1], 0, "mrr")[0][1])


def test_the_figure_shows_each_measure_where_it_ends_highest() -> None:
    assert best_state(ROWS, "mrr") == 1
    exhibit, answer = against(ROWS, {"mrr": "plain", "mrr_centred": "centred"}, 0.02, "T", "MRR", "x")
    assert [label for _, label in exhibit.legend] == ["plain, state 1", "centred, state 1", "chance"]
    assert answer.startswith("0.200 ± 0.000 at 0, 0.400 ± ")
    assert answer.endswith(" at 5,612 (state 1); chance is 0.020")


@pytest.mark.parametrize("amounts", [{"a": {}}, {0: {}}, {3: None}, {math.nan: {}}, {math.inf: {}}])
def test_amounts_are_numbers_with_options(amounts: dict, tmp_path) -> None:  # type: ignore[no-untyped-def, type-arg]
    with pytest.raises(UserError, match="a number above 0 and its options"):
        grown(["text/roberta"], {}, amounts, [0], tmp_path, fit)
