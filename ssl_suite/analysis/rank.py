"""How many directions the layers of an encoder use, and whether they have collapsed; see `core.collapse`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ssl_suite.analysis.figures import Curve, lines
from ssl_suite.analysis.findings import Exhibit, Findings
from ssl_suite.analysis.states import Items, described, named_encoders
from ssl_suite.core.collapse import MOST, collapse_signs

COLLAPSED = 0.1
"""`feature_std` below which a layer no longer tells inputs apart: a tenth of what fills the sphere."""


def rank(sources: Sequence[str], items: Items, positions: bool = False) -> Findings:
    """Effective rank (RankMe, arXiv:2210.02885, here of centred features) and spread of every layer.

    Args:
        sources: encoders.
        items: what they see.
        positions: measure single positions (tokens, patches, frames) instead of the items' means.
    """
    encoders = named_encoders(sources)
    rows: list[dict[str, Any]] = []
    for name, encoder in encoders.items():
        for layer, state in enumerate(items.states(encoder, positions)):
            signs = {measure: float(value) for measure, value in collapse_signs(state).items()}
            signs["most"] = float(min(len(state), MOST, state.shape[1]))
            rows += [{"encoder": name, "layer": layer, "measure": m, "value": value} for m, value in signs.items()]
    exhibits = []
    for measure, title, caption in (
        ("effective_rank", "Effective rank", "Directions in use: exp of the entropy of the singular values."),
        (
            "feature_std",
            "Spread",
            "Deviation of the normalised features × √D. 1: they fill the sphere. 0: all are one.",
        ),
    ):
        curves = {name: Curve(*_points(rows, name, measure)) for name in encoders}
        figure, legend = lines(curves, f"rank-{measure}", title, "layer", title.lower())
        exhibits.append(Exhibit(title, figure, caption, legend))
    collapsed = [
        f"{r['encoder']}, layer {r['layer']}" for r in rows if r["measure"] == "feature_std" and r["value"] < COLLAPSED
    ]
    name = next(iter(encoders))
    outputs = {m: _points(rows, name, m)[1][-1] for m in ("effective_rank", "most")}
    answer = f"The output of {name} uses {outputs['effective_rank']:.0f} of {outputs['most']:.0f} directions"
    answer += f"; collapsed: {'; '.join(collapsed)}." if collapsed else "; no layer has collapsed."
    return Findings(
        "rank",
        "How many directions are in use?",
        answer,
        rows,
        exhibits,
        {**described(encoders), "data": str(items)},
        [
            f"Over at most {MOST} {'positions' if positions else 'items'}; the rank is at most their number "
            "or the width, whichever is less (`most` in the rows).",
            f"A layer counts as collapsed where its spread is below {COLLAPSED}.",
        ],
    )


def _points(rows: Sequence[dict[str, Any]], name: str, measure: str) -> tuple[list[float], list[float]]:
    own = [r for r in rows if r["encoder"] == name and r["measure"] == measure]
    return [r["layer"] for r in own], [r["value"] for r in own]
