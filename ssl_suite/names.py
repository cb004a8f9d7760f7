"""Names of the classes a recipe can build, read from source code without importing it."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

KINDS = {
    "Method": "methods",
    "Evaluation": "tasks",
    "Scorer": "tasks",
    "Layerwise": "tasks",
    "Encoder": "encoders",
    "Task": "tasks",
    "DataModule": "data",
    "Masking": "maskings",
    "Watcher": "callbacks",
    "Callback": "callbacks",
}
"""Base → kind."""


def recipe_folder() -> Path:
    """The suite's own recipes: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    return package / "configs" if (package / "configs").is_dir() else package.parent / "configs"


@dataclass(frozen=True)
class Named:
    """A class that a recipe can build.

    Attributes:
        kind: of `KINDS`.
        name: its short name.
        module: where it is defined.
        summary: first line of its docstring.
    """

    kind: str
    name: str
    module: str
    summary: str

    @property
    def path(self) -> str:
        """Its full name."""
        return f"{self.module}.{self.name}"


def modules_of(name: str) -> dict[Path, str]:
    """The files of a module or package, and of all below it → their modules; none where there is no such module."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return {}
    if spec is None or spec.origin is None:
        return {}
    found = {}
    for folder in map(Path, spec.submodule_search_locations or ()):
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found[path] = ".".join((name, *parts)).removesuffix(".__init__")
    return found or {Path(spec.origin): name}


def classes_in(modules: Mapping[Path, str], others: Mapping[Path, str] | None = None) -> Iterator[Named]:
    """The classes of these modules that are of a kind, by their bases here and in the other modules."""
    own = [(node, module) for path, module in modules.items() for node in _class_nodes(path)]
    known = [node for path in others or () for node in _class_nodes(path)] + [node for node, _ in own]
    bases = {node.name: [_name(b) for b in node.bases] for node in known}

    def kind(name: str, depth: int = 0) -> str | None:
        if name in KINDS:
            return KINDS[name]
        kinds = (kind(base, depth + 1) for base in bases.get(name, []) if depth < 10)
        return next((k for k in kinds if k), None)

    for node, module in own:
        passes_on = {a.arg for f in node.body if isinstance(f, ast.FunctionDef) for a in [f.args.kwarg] if a}
        abstract = "options" in passes_on and any(node.name in b for b in bases.values())
        if (which := kind(node.name)) and node.name not in KINDS and not node.name.startswith("_") and not abstract:
            yield Named(which, node.name, module, (ast.get_docstring(node) or "").split("\n")[0])


def _class_nodes(path: Path) -> list[ast.ClassDef]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, OSError, UnicodeDecodeError):
        return []
    return [node for node in tree.body if isinstance(node, ast.ClassDef)]


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
