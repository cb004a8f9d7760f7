"""A template and what it shows → one self-contained HTML page, in the style of all pages of the suite."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl_suite.bench import figures


def render(template: Path, context: Mapping[str, Any]) -> str:
    """The page of a template, which may include `style.css.jinja`; a name it does not know is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=figures.number, compact=figures.compact, duration=figures.duration)
    return environment.get_template(template.name).render(context).lstrip()
