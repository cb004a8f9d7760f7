"""The shape of the package: imports run one way, files stay short, nothing is executed from a file."""

import ast
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "ssl_suite"
FORBIDDEN = {
    "core": {"encoders", "methods", "tasks", "data", "bench", "analysis", "cli"},
    "encoders": {"methods", "tasks", "data", "bench", "analysis", "cli"},
    "tasks": {"encoders", "methods", "data", "bench", "analysis", "cli"},
    "methods": {"tasks", "bench", "analysis", "data", "cli"},
    "data": {"methods", "tasks", "bench", "analysis", "cli"},
    "bench": {"analysis", "cli"},
    "analysis": {"cli"},
}
FILES = sorted(ROOT.rglob("*.py"))
MODULES = {".".join(p.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): p for p in FILES}


def imports(node: ast.AST, types: bool = True) -> Iterator[str]:
    """Modules of ssl_suite that are imported below a node, inside functions too; with `types`, for types alone too."""
    if not types and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.ImportFrom) and node.module:
        inner = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name for name in {*inner, node.module} if name in MODULES)
    elif isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in MODULES)
    for child in ast.iter_child_nodes(node):
        yield from imports(child, types)


TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_one_way(name: str) -> None:
    part = [*name.split("."), ""][1]
    parts = {[*module.split("."), ""][1] for module in imports(TREES[name])}
    assert parts & FORBIDDEN.get(part, set()) == set()


def test_no_module_imports_itself_through_others() -> None:
    packages = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    graph = {n: set(imports(tree, types=False)) - packages for n, tree in TREES.items() if n not in packages}
    assert graph["ssl_suite.core.load"] > {"ssl_suite.core.folder", "ssl_suite.core.checkpoint"}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_no_two_test_files_share_a_name() -> None:
    names = Counter(path.name for path in Path(__file__).parent.rglob("test_*.py"))
    assert [name for name, n in names.items() if n > 1] == []  # pytest would not collect the second


def test_files_are_short_and_simclr_reads_like_its_paper() -> None:
    assert {p.name: n for p in FILES if (n := len(p.read_text(encoding="utf-8").splitlines())) > 400} == {}
    assert len((ROOT / "methods/image/simclr.py").read_text(encoding="utf-8").splitlines()) <= 60


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_one_lightning_and_nothing_executed(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.ImportFrom, ast.Import)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            assert not any(n == "lightning" or n.startswith("lightning.") or n == "pickle" for n in names)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            assert "weights_only=True" in ast.unparse(node)
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in ("eval", "exec")
