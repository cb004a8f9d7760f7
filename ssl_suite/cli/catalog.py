"""What there is, read from source code without importing it: `ssl-suite list` answers before torch would load."""

from __future__ import annotations

import ast
import importlib.util
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ssl_suite.cli.recipes import recipes
from ssl_suite.core.errors import UserError, nearest
from ssl_suite.plugins import BUILT_IN, CALLBACKS, found

KINDS = {
    "Method": "methods",
    "Scorer": "tasks",
    "Encoder": "encoders",
    "Task": "tasks",
    "DataModule": "data",
    "Watcher": "callbacks",
}
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Listed:
    """One thing a user can name.

    Attributes:
        kind: methods, encoders, tasks, data, callbacks, samples, recipes, benchmarks or plugins.
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
    files = {p: "ssl_suite" for package in BUILT_IN for p in (ROOT / package).rglob("*.py")}
    files[ROOT / f"{CALLBACKS.replace('.', '/')}.py"] = "ssl_suite"
    for entry in found():
        files |= dict.fromkeys(_files_of(entry.value), entry.name)
    return [
        *_classes(files),
        *_samples(),
        *_recipes(),
        *(Listed("plugins", e.name, e.value, e.name) for e in found()),
    ]


def select(kind: str | None) -> list[Listed]:
    """The entries of one kind, or all.

    Raises:
        UserError: no such kind.
    """
    kinds = [*dict.fromkeys(KINDS.values()), "samples", "recipes", "benchmarks", "plugins"]
    if kind is not None and kind not in kinds:
        raise UserError(f"There is nothing called {kind!r} to list.{nearest(kind, kinds)}")
    return sorted((e for e in catalog() if kind in (None, e.kind)), key=lambda e: (kinds.index(e.kind), e.name))


def to_json(entries: list[Listed]) -> str:
    return json.dumps([asdict(e) for e in entries], indent=1)


def _files_of(module: str) -> list[Path]:
    try:
        spec = importlib.util.find_spec(module.partition(":")[0])
    except (ImportError, ValueError):
        return []
    if spec is None or spec.origin is None:
        return []
    return [p for folder in spec.submodule_search_locations or [] for p in Path(folder).rglob("*.py")] or [
        Path(spec.origin)
    ]


def _classes(files: dict[Path, str]) -> Iterator[Listed]:
    found_classes = [(node, origin) for path, origin in files.items() for node in _class_nodes(path)]
    bases = {node.name: [_name(b) for b in node.bases] for node, _ in found_classes}

    def kind(name: str, depth: int = 0) -> str | None:
        if name in KINDS:
            return KINDS[name]
        kinds = (kind(base, depth + 1) for base in bases.get(name, []) if depth < 10)
        return next((k for k in kinds if k), None)

    for node, origin in found_classes:
        passes_on = {a.arg for f in node.body if isinstance(f, ast.FunctionDef) for a in [f.args.kwarg] if a}
        abstract = "options" in passes_on and any(node.name in b for b in bases.values())
        if (which := kind(node.name)) and node.name not in KINDS and not node.name.startswith("_") and not abstract:
            yield Listed(which, node.name, (ast.get_docstring(node) or "").split("\n")[0], origin)


def _class_nodes(path: Path) -> list[ast.ClassDef]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, OSError, UnicodeDecodeError):
        return []
    return [node for node in tree.body if isinstance(node, ast.ClassDef)]


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _samples() -> Iterator[Listed]:
    manifest = json.loads((ROOT / "data" / "samples" / "MANIFEST.json").read_text(encoding="utf-8"))
    for name, pack in manifest["packs"].items():
        yield Listed("samples", f"samples:{name}", pack["description"])


def _recipes() -> Iterator[Listed]:
    for name, path, origin in recipes():
        first = path.read_text(encoding="utf-8").split("\n")[0]
        kind = "benchmarks" if name.startswith("bench/") else "recipes"
        yield Listed(kind, name, first.lstrip("# ") if first.startswith("#") else "", origin)
