"""The shape of the package: imports run one way, files stay short, nothing is executed from a file."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "ssl_suite"
FORBIDDEN = {
    "core": {"encoders", "methods", "tasks", "data", "bench", "cli"},
    "encoders": {"methods", "tasks", "data", "bench", "cli"},
    "tasks": {"encoders", "methods", "data", "bench", "cli"},
    "methods": {"tasks", "bench", "data", "cli"},
    "data": {"methods", "tasks", "bench", "cli"},
    "bench": {"cli"},
}
FILES = sorted(ROOT.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Parts of ssl_suite that a file imports, inside functions too."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
    return {m.split(".")[1] for m in modules if m.startswith("ssl_suite.")}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    part = path.relative_to(ROOT).parts[0]
    assert not imported(path) & FORBIDDEN.get(part, set())


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
