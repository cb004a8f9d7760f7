"""Figures of the analyses: heat maps, curves, contours; inline SVG in the page's colours, see `bench.drawing`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ssl_suite.bench.drawing import CATEGORIES, INK, ROLE, VARIABLES, canvas, shorten, styled, svg

if TYPE_CHECKING:
    from markupsafe import Markup

Legend = list[tuple[str, str]]


@dataclass(frozen=True)
class Curve:
    """Points of one line.

    Attributes:
        x: (N,).
        y: (N,).
        spread: (N,) half the width of a band around `y`; empty for none.
        role: one of `ROLE`, whose colour it takes; else the next category's.
        dashed: drawn so.
    """

    x: Sequence[float]
    y: Sequence[float]
    spread: Sequence[float] = ()
    role: str = ""
    dashed: bool = False


@styled
def heatmap(
    values: NDArray[Any],
    rows: Sequence[str],
    columns: Sequence[str],
    name: str,
    title: str,
    bounds: tuple[float, float] = (0.0, 1.0),
    places: int = 2,
    cell: int = 30,
) -> Markup:
    """A matrix as shades of one colour, its numbers in the cells where they fit.

    Args:
        values: (R, C); NaN leaves a cell empty.
        rows: labels of the rows, the first on top.
        columns: labels of the columns.
        name: unique in the page, for the ids.
        title: read out by screen readers.
        bounds: the values that are shown as nothing and as the full colour.
        places: decimals of the numbers.
        cell: width of a cell in pixels; below 24 there is no room for numbers.
    """
    from matplotlib.patches import Rectangle

    height = min(cell, 30)
    left, bottom = 8 + 6 * max(len(shorten(r, 42)) for r in rows), 10 + 6 * max(len(shorten(c, 24)) for c in columns)
    flat = max(map(len, columns)) * 6 <= cell
    bottom = 18 if flat else bottom
    size = left + cell * len(columns) + 8, 4 + height * len(rows) + bottom
    figure, axes = canvas(*size, (left, 8, 4, bottom))
    axes.set_xlim(0, len(columns))
    axes.set_ylim(len(rows), 0)
    shades = np.clip((values - bounds[0]) / ((bounds[1] - bounds[0]) or 1.0), 0, 1)
    for i, j in zip(*np.nonzero(np.isfinite(values)), strict=True):
        shade = float(shades[i, j])
        axes.add_patch(Rectangle((float(j), float(i)), 1, 1, facecolor=ROLE["ssl"], alpha=shade, linewidth=0))
        if cell >= 24:
            text = f"{values[i, j]:.{places}f}"
            text = text.replace("0.", ".", 1) if abs(values[i, j]) < 1 - 0.5 * 10**-places else f"{values[i, j]:.0f}"
            colour = "#ffffff" if shade > 0.6 else INK["ink"]
            axes.text(j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=9, color=colour)
    axes.set_xticks(np.arange(len(columns)) + 0.5, [shorten(c, 24) for c in columns], rotation=0 if flat else 90)
    axes.set_yticks(np.arange(len(rows)) + 0.5, [shorten(r, 42) for r in rows])
    axes.spines[["bottom"]].set_visible(False)
    return svg(figure, name, title)


@styled
def lines(
    curves: Mapping[str, Curve],
    name: str,
    title: str,
    across: str,
    up: str,
    log: bool = False,
    marks: Sequence[tuple[float, str]] = (),
    size: tuple[int, int] = (440, 250),
) -> tuple[Markup, Legend]:
    """Curves with their bands.

    Args:
        curves: by their labels.
        name: unique in the page, for the ids.
        title: read out by screen readers.
        across: what the horizontal axis is.
        up: what the vertical axis is.
        log: horizontal axis is logarithmic; 0 stands at its left end.
        marks: vertical lines: place and label.
        size: in pixels.

    Returns:
        The figure, and its legend.
    """
    figure, axes = canvas(*size, (46, 12, 8, 40))
    legend: Legend = []
    first = min((x for c in curves.values() for x in c.x if x > 0), default=1.0) / 2
    unroled = [label for label, curve in curves.items() if not curve.role]
    for label, curve in curves.items():
        colour = ROLE[curve.role] if curve.role else CATEGORIES[unroled.index(label) % len(CATEGORIES)]
        x = [max(v, first) if log else v for v in curve.x]
        axes.plot(x, curve.y, color=colour, linewidth=1.6, dashes=(4, 3) if curve.dashed else (None, None),
                  marker="o" if len(x) < 20 else "", markersize=3, clip_on=False)  # fmt: skip
        if len(curve.spread):
            y, half = np.asarray(curve.y), np.nan_to_num(np.asarray(curve.spread))
            axes.fill_between(x, y - half, y + half, color=colour, alpha=0.15, linewidth=0)
        legend.append((VARIABLES[colour], label))
    for place, label in marks:
        axes.axvline(place, color=INK["line"], linewidth=1)
        axes.text(place, 1.0, label, transform=axes.get_xaxis_transform(), fontsize=9, color=INK["muted"], va="bottom")
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else "")
        axes.minorticks_off()
    else:
        axes.locator_params(axis="x", nbins=8)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
    axes.locator_params(axis="y", nbins=6)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
    _name_axes(axes, across, up)
    axes.margins(x=0.02, y=0.06)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    return svg(figure, name, title), legend


@styled
def contours(
    across: NDArray[Any],
    up: NDArray[Any],
    values: NDArray[Any],
    paths: Mapping[str, tuple[NDArray[Any], str]],
    name: str,
    title: str,
    axes_names: tuple[str, str],
    levels: NDArray[Any],
) -> tuple[Markup, Legend]:
    """A surface over two directions, darker where it is higher, with the ways that went over it.

    Args:
        across: (C,).
        up: (R,).
        values: (R, C).
        paths: label → (P, 2) points, and a role for the colour.
        name: unique in the page, for the ids.
        title: read out by screen readers.
        axes_names: of the two directions.
        levels: of the contour lines, ascending.

    Returns:
        The figure, and its legend.
    """
    figure, axes = canvas(340, 310, (46, 12, 8, 40))
    top = float(values.max()) + 1e-9
    for level in levels[levels < top]:
        axes.contourf(across, up, values, levels=[level, max(top, level + 1e-9)], colors=[ROLE["simple"]], alpha=0.09)
    drawn = axes.contour(across, up, values, levels=levels, colors=[INK["muted"]], linewidths=0.7)
    axes.clabel(drawn, fmt=lambda value: f"{value:.3g}", fontsize=8)
    legend: Legend = []
    for label, (points, role) in paths.items():
        axes.plot(points[:, 0], points[:, 1], color=ROLE[role], linewidth=1.6, marker="o", markersize=3, clip_on=True)
        axes.plot(*points[-1], "o", color=ROLE[role], markersize=7, clip_on=False)
        legend.append((VARIABLES[ROLE[role]], label))
    axes.locator_params(nbins=5)
    _name_axes(axes, *axes_names)
    return svg(figure, name, title), legend


def _name_axes(axes: Any, across: str, up: str) -> None:
    axes.set_xlabel(across, color=INK["muted"], fontsize=10)
    axes.set_ylabel(up, color=INK["muted"], fontsize=10)
