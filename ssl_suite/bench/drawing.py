"""Inline SVG whose colours are the page's CSS variables, so that figures follow light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from xml.etree import ElementTree

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
R = TypeVar("R")
# Drawn in these colours, which `_svg` then replaces by the CSS variable of the same name.
INK = {"ink": "#1b1d22", "muted": "#666b75", "line": "#dcdee3"}
ROLE = {"ssl": "#4453d6", "random": "#838994", "simple": "#b7791e", "supervised": "#0e7f76"}
CATEGORIES = (
    "#3b6fd4", "#d9622b", "#2f9461", "#b0438f", "#8a6d1f", "#5b4fc4", "#c43d4d", "#1f8a9e", "#6f8f1f", "#8b5a44",
)  # fmt: skip
OTHER = "#9a9fa9"  # map points beyond the ten most frequent labels
VARIABLES = {colour: f"var(--{name})" for name, colour in {**INK, **ROLE}.items()}
VARIABLES |= {colour: f"var(--c{i})" for i, colour in enumerate(CATEGORIES)} | {OTHER: "var(--random)"}
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text: selectable, searchable, in the page's font
    "text.parse_math": False,  # a "$" in a name is a dollar
    "font.size": 11,
    "text.color": INK["ink"],
    "axes.edgecolor": INK["line"],
    "axes.linewidth": 1,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": INK["line"],
    "grid.linewidth": 1,
    "xtick.color": INK["line"],
    "ytick.color": INK["line"],
    "xtick.labelcolor": INK["muted"],
    "ytick.labelcolor": INK["muted"],
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Run a drawing function under the style of the page."""

    @wraps(draw)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        from matplotlib import rc_context

        with rc_context(STYLE):  # type: ignore[arg-type]
            return draw(*args, **kwargs)

    return wrapped


def shorten(text: str, length: int) -> str:
    """The text, cut to so many characters."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def canvas(width: int, height: int, margins: tuple[int, int, int, int]) -> tuple[Figure, Axes]:
    """A figure of so many CSS pixels (72 dpi: a point is a pixel); margins are left, right, top, bottom."""
    from matplotlib.figure import Figure

    left, right, top, bottom = margins
    box = (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    return figure, figure.add_axes(box)


def svg(figure: Figure, name: str, title: str) -> Markup:
    """The figure as an SVG element for an HTML page: ids made unique, colours from CSS, no namespaces, a title."""
    from markupsafe import Markup
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True)
    root = ElementTree.fromstring(buffer.getvalue())
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {key.rpartition("}")[2]: _attribute(key, value, name) for key, value in element.items()}
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in ("metadata", "style")]:
            parent.remove(child)
    width, height = root.get("viewBox", "0 0 1 1").split()[2:]
    root.attrib = {"viewBox": f"0 0 {width} {height}", "width": width, "height": height}
    root.attrib |= {"role": "img", "aria-labelledby": f"{name}-title"}
    heading = ElementTree.Element("title", {"id": f"{name}-title"})
    heading.text = title
    root.insert(0, heading)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _attribute(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key.endswith("href"):
        return f"#{name}-{value.removeprefix('#')}"
    if key == "style":
        kept = [part for part in value.split("; ") if not part.startswith("font-family")]
        return re.sub(r"#[0-9a-f]{6}", lambda match: _colour(match[0]), "; ".join(kept))
    if key == "clip-path":
        return value.replace("url(#", f"url(#{name}-")
    return re.sub(r"\s+", " ", value).strip() if key == "d" else value


def _colour(colour: str) -> str:
    return "var(--card)" if colour == "#ffffff" else VARIABLES.get(colour, colour)
