"""GPT-3's aggregate: accuracy in context against the size of the model, a line a number of shots.

After Brown et al. 2020 (arXiv:2005.14165), figure 1.3: the mean over a suite of tasks, each judged at zero, one and a
few shots.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from ssl_suite.bench.drawing import CATEGORIES, INK, ROLE, VARIABLES, canvas, styled, svg
from ssl_suite.bench.stats import Cell, group_by

if TYPE_CHECKING:
    from markupsafe import Markup

    from ssl_suite.bench.store import Result

ENCODER = "encoder.json"
"""What a judged run notes of its encoder: `parameters`."""
Key = tuple[str, str, str]
"""Name, role and shape of an encoder in results."""


@dataclass(frozen=True)
class Point:
    """The aggregate of one encoder at one number of shots.

    Attributes:
        name: of the encoder.
        role: as in `Result`.
        parameters: of the encoder.
        shots: solved rows before each question.
        accuracy: mean over the tasks.
        half_width: of its 95 % interval, the tasks being independent; NaN where one has none.
        tasks: whose mean it is; the same ones for all points.
    """

    name: str
    role: str
    parameters: int
    shots: int
    accuracy: float
    half_width: float
    tasks: tuple[str, ...]


def sizes(results: Iterable[Result], folder: Path) -> dict[Key, int]:
    """Parameters of the encoders, as far as the folders of their runs say."""
    found: dict[Key, int] = {}
    for row in results:
        try:
            noted = json.loads((folder / row.run / ENCODER).read_text(encoding="utf-8"))["parameters"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if isinstance(noted, int) and noted > 0:
            found[row.name, row.role, row.encoder] = noted
    return found


def shots_of(cell: Cell) -> int | None:
    """Of a cell judged in context; None for any other."""
    match = re.match(r"(\d+)-shot@", cell.protocol)
    return int(match[1]) if match else None


def aggregate(cells: Iterable[Cell], parameters: Mapping[Key, int]) -> list[Point]:
    """The points of the plot, over the tasks that every encoder of known size was asked at every number of shots.

    A benchmark names each number of shots of a task apart: `movies, 0 shots`; what stands before the comma is the task.
    """
    known = [c for c in cells if c.column.main and c.split == "test" and c.values and shots_of(c) is not None]
    rows = {
        key: own for key, own in group_by(known, lambda c: (c.name, c.role, c.encoder)).items() if key in parameters
    }
    asked = [{(c.task.partition(",")[0], shots_of(c)) for c in own} for own in rows.values()]
    if not asked:
        return []
    shots = sorted({n for pairs in asked for _, n in pairs if n is not None})
    names = sorted({task for task, _ in set.intersection(*asked)})
    tasks = tuple(t for t in names if all((t, n) in pairs for n in shots for pairs in asked))
    points = []
    for (name, role, encoder), own in rows.items():
        for n in shots:
            judged = [c for c in own if shots_of(c) == n and c.task.partition(",")[0] in tasks]
            if judged:
                half = math.sqrt(sum(c.half_width**2 for c in judged)) / len(judged)
                size = parameters[name, role, encoder]
                points.append(Point(name, role, size, n, mean(c.mean for c in judged), half, tasks))
    return sorted(points, key=lambda p: (p.role, p.shots, p.parameters))


@styled
def scaling(points: Sequence[Point], name: str) -> tuple[Markup, list[tuple[str, str]]]:
    """The plot, and its legend as (CSS variable, label) pairs; random weights are the dashed line.

    Args:
        points: of `aggregate`.
        name: unique in the page, for the ids.
    """
    figure, axes = canvas(340, 210, (38, 10, 6, 22))
    trained = [p for p in points if p.role != "random"]
    legend = []
    for i, (shots, own) in enumerate(group_by(trained, lambda p: p.shots).items()):
        colour = CATEGORIES[i % len(CATEGORIES)]
        own = sorted(own, key=lambda p: p.parameters)
        bars = [0.0 if math.isnan(p.half_width) else p.half_width for p in own]
        x, y = [p.parameters for p in own], [p.accuracy for p in own]
        axes.errorbar(x, y, bars, color=colour, marker="o", markersize=4, linewidth=1.6, elinewidth=1, capsize=2)
        legend.append((VARIABLES[colour], f"{shots} shot{'s' * (shots != 1)}"))
    untrained = group_by([p for p in points if p.role == "random"], lambda p: p.parameters)
    if untrained:
        x = sorted(untrained)
        axes.plot(
            x, [mean(p.accuracy for p in untrained[n]) for n in x], color=ROLE["random"], dashes=(3, 3), linewidth=1
        )
        legend.append((VARIABLES[ROLE["random"]], "random weights"))
    axes.set_xscale("log")
    axes.set_xlabel("parameters", color=INK["muted"], fontsize=10, labelpad=1)
    axes.minorticks_off()
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    told = "; ".join(f"{p.name}, {p.shots} shots {p.accuracy:.3f}" for p in trained)
    title = f"Mean accuracy over {len(points[0].tasks)} tasks against parameters: {told}"
    return svg(figure, name, title), legend
