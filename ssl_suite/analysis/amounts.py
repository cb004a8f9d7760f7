"""Runs on more and more text, and what is measured of them against how much it was."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from ssl_suite.analysis.embryology import pretrained
from ssl_suite.analysis.figures import Curve, lines
from ssl_suite.analysis.findings import Exhibit, Row
from ssl_suite.bench.benchmark import Settings
from ssl_suite.bench.commands import CommandLine
from ssl_suite.bench.stats import mean_interval, with_interval
from ssl_suite.core.errors import UserError

Growth = Mapping[float, tuple[float, float]]
"""Amount → mean over its encoders and half the width of the 95 % interval, ascending."""


def grown(
    recipe: Sequence[str],
    options: Settings,
    amounts: Mapping[float, Settings],
    seeds: Sequence[int],
    out: Path,
    through: CommandLine,
) -> dict[str, float]:
    """Pretrains an encoder for each amount of data and each seed; 0 is the same one before its first step.

    Args:
        recipe: of pretraining.
        options: of all runs.
        amounts: amount, in a unit of the user's → the options that make it, over `options`.
        seeds: of the runs.
        out: folder for them; those that are there with the same options are kept.
        through: runs the command lines.

    Returns:
        Encoder → amount.

    Raises:
        UserError: an amount is not a number above 0, or has no options.
    """
    for amount, own in amounts.items():
        number = isinstance(amount, int | float) and 0 < amount < math.inf
        if not number or not isinstance(own, dict):
            raise UserError(
                f"amounts: a number above 0 and its options each ({{350: {{data.train: X}}}}), not {amount!r}."
            )
    runs = {
        a: pretrained(recipe, options | amounts[a], seeds, out / f"amount-{a:.10g}", through) for a in sorted(amounts)
    }
    untrained = [run / "checkpoints" / "step-0.ckpt" for run in runs[max(runs)]]
    return {str(path): a for a, paths in {0: untrained, **runs}.items() for path in paths}


def growth(rows: Sequence[Row], state: int, measure: str) -> Growth:
    """The rows of one measure and state, by their amount."""
    found: dict[float, list[float]] = {}
    for row in rows:
        if (row["state"], row["measure"]) == (state, measure):
            found.setdefault(row["amount"], []).append(row["value"])
    return {amount: mean_interval(found[amount]) for amount in sorted(found)}


def best_state(rows: Sequence[Row], measure: str) -> int:
    """The state with the greatest mean at the greatest amount."""
    states = {row["state"] for row in rows}
    return max(sorted(states), key=lambda s: list(growth(rows, s, measure).values())[-1][0])


def against(
    rows: Sequence[Row], names: Mapping[str, str], chance: float, title: str, up: str, name: str
) -> tuple[Exhibit, str]:
    """A figure over the amounts, a line a measure in its best state, and the first measure in a sentence.

    Args:
        rows: of several amounts: `amount`, `state`, `measure`, `value`.
        names: measure → what the page calls it.
        chance: what no knowledge gives.
        title: of the figure.
        up: what its vertical axis is.
        name: unique in the page.
    """
    states = {measure: best_state(rows, measure) for measure in names}
    found = {measure: growth(rows, state, measure) for measure, state in states.items()}
    curves = {
        f"{names[m]}, state {states[m]}": Curve(list(g), [v for v, _ in g.values()], [h for _, h in g.values()])
        for m, g in found.items()
    }
    amounts = list(next(iter(found.values())))
    curves["chance"] = Curve(amounts, [chance] * len(amounts), role="random", dashed=True)
    figure, legend = lines(curves, name, title, "amount of pretraining data", up, log=True)
    caption = (
        "Mean over the encoders of an amount with its 95 % interval; each in the state that is best at the greatest."
    )
    main = next(iter(names))
    parts = [f"{with_interval(*found[main][a])} at {a:,.10g}" for a in amounts]
    return Exhibit(title, figure, caption, legend), f"{', '.join(parts)} (state {states[main]}); chance is {chance:.3f}"
