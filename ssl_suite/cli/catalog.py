"""What there is, read from source code without importing it: `ssl-suite list` answers before torch would load."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path

from ssl_suite.cli.recipes import recipes
from ssl_suite.core.errors import UserError, nearest
from ssl_suite.names import KINDS, classes_in, modules_of
from ssl_suite.plugins import built_in, usable

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Listed:
    """One thing a user can name.

    Attributes:
        kind: methods, encoders, tasks, data, maskings, callbacks, samples, recipes, benchmarks, analyses or plugins.
        name: as typed on the command line.
        summary: first line of its docstring.
        origin: ssl_suite, or the plug-in it comes from.
    """

    kind: str
    name: str
    summary: str
    origin: str = "ssl_suite"


def catalog() -> list[Listed]:
    """Everything there is."""
    plugins, left_out = usable()
    return [
        *(Listed(c.kind, c.name, c.summary) for c in classes_in(built_in())),
        *(
            Listed(c.kind, c.name, c.summary, plugin.name)
            for plugin in plugins
            for c in classes_in(modules_of(plugin.value.partition(":")[0]), built_in())
        ),
        *_samples(),
        *_recipes(),
        *(Listed("plugins", e.name, e.value, e.name) for e in plugins),
        *(Listed("plugins", name, f"left out: {why}", name) for name, why in left_out.items()),
    ]


def select(kind: str | None) -> list[Listed]:
    """The entries of one kind, or all.

    Raises:
        UserError: no such kind.
    """
    kinds = [*dict.fromkeys(KINDS.values()), "samples", "recipes", "benchmarks", "analyses", "plugins"]
    if kind is not None and kind not in kinds:
        raise UserError(f"There is nothing called {kind!r} to list.{nearest(kind, kinds)}")
    return sorted((e for e in catalog() if kind in (None, e.kind)), key=lambda e: (kinds.index(e.kind), e.name))


def to_json(entries: list[Listed]) -> str:
    return json.dumps([asdict(e) for e in entries], indent=1)


def _samples() -> Iterator[Listed]:
    manifest = json.loads((ROOT / "data" / "samples" / "MANIFEST.json").read_text(encoding="utf-8"))
    for name, pack in manifest["packs"].items():
        yield Listed("samples", f"samples:{name}", pack["description"])


def _recipes() -> Iterator[Listed]:
    for name, path, origin in recipes():
        kind = {"bench": "benchmarks", "analysis": "analyses"}.get(name.partition("/")[0], "recipes")
        yield Listed(kind, name, _opening(path.read_text(encoding="utf-8")), origin)


def _opening(recipe: str) -> str:
    """The first sentence of the comment that a recipe opens with."""
    comment = " ".join(line.lstrip("# ") for line in takewhile(lambda x: x.startswith("#"), recipe.splitlines()))
    return re.split(r"(?<=[^A-Z]\.) (?=[A-Z`-])", comment)[0]
