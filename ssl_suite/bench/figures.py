"""Figures of the report, see `drawing`."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from ssl_suite.bench.drawing import CATEGORIES, INK, OTHER, ROLE, VARIABLES, canvas, shorten, styled, svg
from ssl_suite.bench.stats import Cell, best

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes

MAP_POINTS = 1500
CURVE_POINTS = 160


@styled
def dots(names: Sequence[str], cells: Sequence[Cell], wins: Sequence[bool], places: int, name: str) -> Markup:
    """Dot-and-interval plot of one task, best on top and better to the right; a band shows the random weights.

    Args:
        names: of the rows, as in the table.
        cells: of one column.
        wins: whether a cell beats random weights; such dots are filled.
        places: decimals of the printed values.
        name: unique in the page, for the ids.
    """
    shown = [(label, cell, win) for label, cell, win in zip(names, cells, wins, strict=True) if cell.values]
    shown.sort(key=lambda item: item[1].sign * item[1].mean)
    width, left, right, top, bottom = 340, 126, 46, 4, 18
    inner = width - left - right
    figure, axes = canvas(width, top + bottom + 26 * len(shown), (left, right, top, bottom))
    axes.set_ylim(-0.5, len(shown) - 0.5)
    untrained = [cell for _, cell, _ in shown if cell.role == "random"]
    if len(untrained) == 1:
        _band(axes, untrained[0])
    side, winner = axes.get_yaxis_transform(), best(cells)
    for y, (label, cell, win) in enumerate(shown):
        _dot(axes, y, cell, win)
        weight = "bold" if cell is winner else "normal"
        axes.text(-10 / inner, y, shorten(label, 20), transform=side, ha="right", va="center_baseline", weight=weight)
        text = f"{cell.mean:.{places}f}"
        axes.text(1 + 46 / inner, y, text, transform=side, ha="right", va="center_baseline", weight=weight)
    _limits(axes, [cell for _, cell, _ in shown])
    axes.set_yticks([])
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    listing = "; ".join(f"{label} {cell.mean:.{places}f}" for label, cell, _ in reversed(shown))
    return svg(
        figure, name, f"{shown[0][1].task}, {shown[0][1].metric}, best first: {listing}" if shown else "no values"
    )


@styled
def curves(train: Sequence[Sequence[tuple[float, float]]], val: Sequence[Sequence[tuple[float, float]]], name: str,
           title: str) -> Markup:  # fmt: skip
    """Loss against step of one method.

    Args:
        train: (step, loss) points, one curve a run.
        val: the same on the validation split.
        name: unique in the page, for the ids.
        title: read out by screen readers.
    """
    figure, axes = canvas(252, 140, (32, 8, 4, 18))
    for curve in train:
        axes.plot(*_thin(curve), color=ROLE["ssl"], linewidth=1, alpha=0.6, solid_joinstyle="round")
    for curve in val:
        steps, losses = _thin(curve)
        axes.plot(steps, losses, color=INK["ink"], linewidth=1.1)
        axes.plot(steps[-1:], losses[-1:], "o", color=INK["ink"], markersize=3.5, clip_on=False)
    axes.margins(x=0.02, y=0.06)
    axes.locator_params(axis="x", nbins=4)
    axes.locator_params(axis="y", nbins=5)
    axes.xaxis.set_major_formatter(lambda value, _: compact(value))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    return svg(figure, name, title)


@styled
def scatter(points: Sequence[tuple[float, float, str]], name: str, title: str) -> tuple[Markup, list[tuple[str, str]]]:
    """Two-dimensional map of embeddings, coloured by label.

    Args:
        points: x, y and label; at most `MAP_POINTS` of them are drawn, evenly taken.
        name: unique in the page, for the ids.
        title: read out by screen readers.

    Returns:
        The figure, and its legend as (CSS variable, label) pairs.
    """
    stride = math.ceil(len(points) / MAP_POINTS)
    points = points[:: max(stride, 1)]
    counts: dict[str, int] = {}
    for _, _, label in points:
        counts[label] = counts.get(label, 0) + 1
    frequent = sorted(counts, key=lambda label: -counts[label])[: len(CATEGORIES)]
    colours = {label: CATEGORIES[i] for i, label in enumerate(sorted(frequent))}
    figure, axes = canvas(340, 310, (6, 6, 6, 6))
    axes.scatter(
        [x for x, _, _ in points],
        [y for _, y, _ in points],
        s=20,
        c=[colours.get(label, OTHER) for _, _, label in points],
        alpha=0.7,
        linewidths=0,
        clip_on=False,
    )
    for i, label in enumerate(colours):
        own = [(x, y) for x, y, other in points if other == label]
        at = median(x for x, _ in own), median(y for _, y in own)
        text = axes.text(*at, shorten(label, 14), ha="center", va="center", weight="bold", color=INK["ink"])
        text.set_gid(f"halo{i}")  # the page's style draws an outline round it
    axes.margins(0.04)
    axes.axis("off")
    legend = [(VARIABLES[colour], label) for label, colour in colours.items()]
    if len(counts) > len(frequent):
        legend.append((VARIABLES[OTHER], f"{len(counts) - len(frequent)} other labels"))
    return svg(figure, name, title), legend


def strip(cells: Sequence[Cell], chosen: Sequence[Cell | None], wins: bool, title: str) -> Markup:
    """A small line with a dot a cell, better to the right; a bar joins random weights and the best method.

    Args:
        cells: of one column.
        chosen: the random-weights cell and the best self-supervised one.
        wins: whether the latter beats the former.
        title: read out by screen readers.
    """
    from markupsafe import Markup, escape

    values = [cell.sign * cell.mean for cell in cells if cell.values]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)

    def x(cell: Cell) -> float:
        return round(7 + 126 * (cell.sign * cell.mean - low) / ((high - low) or 1.0), 1)

    parts = ['<line x1="2" x2="138" y1="9" y2="9" style="stroke: var(--line)"/>']
    ends = [x(cell) for cell in chosen if cell is not None and cell.values]
    if len(ends) == 2 and wins:
        style = "stroke: var(--ssl); stroke-width: 3; opacity: 0.4"
        parts.append(f'<line x1="{ends[0]}" x2="{ends[1]}" y1="9" y2="9" style="{style}"/>')
    for cell in sorted((cell for cell in cells if cell.values), key=lambda cell: cell in chosen):
        radius, opacity = (5, 1) if cell in chosen or cell.role != "ssl" else (3.5, 0.7)
        style = f"fill: var(--{cell.role}); stroke: var(--card); stroke-width: 1.5; opacity: {opacity}"
        parts.append(f'<circle cx="{x(cell)}" cy="9" r="{radius}" style="{style}"/>')
    text = escape(title)
    head = f'<svg class="strip" viewBox="0 0 140 18" width="140" height="18" role="img" aria-label="{text}">'
    return Markup(f"{head}<title>{text}</title>{''.join(parts)}</svg>")


def spectrogram(mel: Sequence[Sequence[float]]) -> str:
    """A log-mel matrix as a base64 PNG.

    Args:
        mel: one row a mel band, the lowest first; one column a frame.
    """
    import numpy as np
    from matplotlib.image import imsave

    values = np.nan_to_num(np.asarray(mel, dtype=float))
    if values.ndim != 2 or not values.size:
        raise ValueError("not a matrix")
    buffer = io.BytesIO()
    imsave(buffer, values, cmap="magma", origin="lower", format="png")
    return base64.b64encode(buffer.getvalue()).decode()


def to_float(value: Any) -> float:
    """The number that something read from a file stands for; NaN if it stands for none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def number(value: Any, form: str = ".3g") -> str:
    """A number in the given format, or a dash."""
    value = to_float(value)
    return f"{value:{form}}" if math.isfinite(value) else "–"


def compact(value: Any) -> str:
    """A count in a few characters: 950, 1.2k, 3.4M; a dash if there is none."""
    value = to_float(value)
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return number(value, ".4g")


def duration(value: Any) -> str:
    """Seconds in the unit that suits them, or a dash."""
    seconds = to_float(value)
    if seconds < 100 or not math.isfinite(seconds):
        return number(seconds) + (" s" if math.isfinite(seconds) else "")
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _band(axes: Axes, cell: Cell) -> None:
    if math.isfinite(cell.half_width):
        low, high = cell.mean - cell.half_width, cell.mean + cell.half_width
        axes.axvspan(low, high, color=ROLE["random"], alpha=0.16, linewidth=0)
    axes.axvline(cell.mean, color=ROLE["random"], linewidth=1, dashes=(3, 3))


def _dot(axes: Axes, y: int, cell: Cell, win: bool) -> None:
    """Short ticks for the seeds, a line for the interval, a dot for the mean: hollow if it does not beat random."""
    colour = ROLE[cell.role]
    if len(cell.values) > 1:
        axes.vlines(cell.values, y - 0.36, y - 0.22, color=colour, alpha=0.75, linewidth=1)
    if math.isfinite(cell.half_width):
        axes.plot([cell.mean - cell.half_width, cell.mean + cell.half_width], [y, y], color=colour, linewidth=2)
    fill = colour if win or cell.role != "ssl" else "#ffffff"
    axes.plot([cell.mean], [y], "o", markersize=8, markerfacecolor=fill, markeredgecolor=colour, markeredgewidth=1.8)


def _limits(axes: Axes, cells: Sequence[Cell]) -> None:
    """Room for every seed and interval, the axis reversed where less is better."""
    halves = [cell.half_width if math.isfinite(cell.half_width) else 0.0 for cell in cells]
    ends = [cell.mean + sign * half for cell, half in zip(cells, halves, strict=True) for sign in (-1, 1)]
    ends += [value for cell in cells for value in cell.values]
    if not ends:
        return
    pad = 0.06 * (max(ends) - min(ends)) or 0.05 * abs(ends[0]) or 0.5
    low, high = min(ends) - pad, max(ends) + pad
    axes.set_xlim((low, high) if cells[0].sign > 0 else (high, low))
    axes.locator_params(axis="x", nbins=4)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.4g}")


def _thin(curve: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Steps and losses, averaged over equal runs of points so that few enough remain."""
    size = max(math.ceil(len(curve) / CURVE_POINTS), 1)
    parts = [curve[i : i + size] for i in range(0, len(curve), size)]
    return [p[len(p) // 2][0] for p in parts], [math.fsum(y for _, y in p) / len(p) for p in parts]
