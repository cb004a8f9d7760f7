"""The front door answers without torch, as `ssl-suite` and as `python -m ssl_suite`."""

from __future__ import annotations

import ast
import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import ssl_suite
from ssl_suite.bench.store import Result, Store
from ssl_suite.cli import LIGHTNING, OTHERS, main
from ssl_suite.cli.catalog import catalog, select
from ssl_suite.core.errors import UserError


def row(**changes: object) -> Result:
    values = {
        "modality": "image",
        "name": "SimCLR",
        "method": "SimCLR",
        "role": "ssl",
        "encoder": "E()",
        "weights": "w0",
        "task": "digits",
        "data": "samples:digits",
        "data_hash": "d0",
        "fold": 0,
        "split": "test",
        "metric": "accuracy",
        "main": True,
        "direction": "max",
        "value": 0.5,
        "validation": 0.5,
        "seed": 0,
        "labels": 10,
        "protocol": "probe@1",
        "recipe": "0" * 12,
        "checkpoint": "",
        "seconds": 1.0,
        "run": "run",
        "command": "ssl-suite fit",
        "created": "2026-01-01T00:00:00",
        "version": "0",
    }
    return Result(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    roles = [("SimCLR", "ssl"), ("random", "random")]
    Store(folder / "results.sqlite").add([row(seed=s, method=m, role=r) for s in range(3) for m, r in roles])
    return folder


@pytest.mark.parametrize("arguments", [
    ["--help"], ["--version"], ["list"], ["list", "methods", "--format", "json"], ["list", "samples"],
    ["results", "RESULTS"], ["results", "RESULTS", "--format", "json"], ["report", "RESULTS"], ["embed", "--help"],
    ["prepare", "tokenizer", "--help"],
])  # fmt: skip
def test_what_needs_no_torch_does_not_load_it(arguments: list[str], results: Path) -> None:
    arguments = [str(results) if a == "RESULTS" else a for a in arguments]
    code = (
        "import sys; from ssl_suite.cli import main\n"
        f"try: code = main({arguments!r})\n"
        "except SystemExit as done: code = done.code or 0\n"
        "heavy = {'torch', 'pytorch_lightning', 'transformers', 'datasets', 'torchvision'} & set(sys.modules)\n"
        "print(heavy, file=sys.stderr); sys.exit(code or bool(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_python_m_ssl_suite() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ssl_suite", "--version"], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == ssl_suite.__version__
    wrong = subprocess.run(
        [sys.executable, "-m", "ssl_suite", "lst"], capture_output=True, text=True, timeout=60, check=False
    )
    assert wrong.returncode == 2
    assert wrong.stderr.strip() == "ssl-suite: There is no command 'lst'. Did you mean list?"


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    for command in [*LIGHTNING, *OTHERS]:
        assert f"\n  {command} " in text
    assert text.count("ssl-suite ") >= 4


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["list", "--help"], ["bench", "--help"]])
def test_a_terminal_of_80_columns_is_wide_enough(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with contextlib.suppress(SystemExit):
        main(arguments)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 5
    assert [line for line in lines if len(line) > 80] == []


def test_of_the_parser_and_of_lightning_s_command_line_only_public_names_are_used() -> None:
    from jsonargparse import ArgumentParser
    from pytorch_lightning.cli import LightningCLI

    private = {n for cls in (LightningCLI, ArgumentParser) for n in dir(cls) if n[0] == "_" and n[:2] != "__"}
    assert "_run_subcommand" in private
    for path in Path(ssl_suite.__file__).parent.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        used = {n.attr for n in nodes if isinstance(n, ast.Attribute) and not isinstance(n.ctx, ast.Store)}
        used |= {n.name for n in nodes if isinstance(n, ast.FunctionDef)} if path.parent.name == "cli" else set()
        assert used & private == set(), path
        assert not any("._" in (n.module or "") for n in nodes if isinstance(n, ast.ImportFrom)), path


def test_the_catalogue_holds_what_a_recipe_can_name() -> None:
    from ssl_suite.cli.usage import classes
    from ssl_suite.plugins import load_built_in

    load_built_in()
    ours = {name for name in classes() if not name.startswith("_")}
    listed = {e.name for e in catalog() if e.kind in ("methods", "encoders", "tasks", "data")}
    assert listed <= ours
    assert {
        "SimCLR",
        "BYOL",
        "MAE",
        "Data2Vec",
        "MaskedLM",
        "CausalLM",
        "APC",
        "TextEncoder",
        "ImageEncoder",
        "Classify",
        "CTC",
        "Text",
        "Phrases",
        "GLUE",
    } <= listed
    assert all(e.summary for e in catalog())


def test_every_pack_is_listed() -> None:
    names = {e.name for e in select("samples")}
    assert {"samples:digits", "samples:emoji", "samples:sentences", "samples:brown", "samples:prompts"} <= names


def test_an_unknown_kind_to_list() -> None:
    with pytest.raises(UserError, match="Did you mean methods"):
        select("method")


def test_results_are_filtered(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["results", str(results), "--role", "ssl", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {r["role"] for r in rows} == {"ssl"}
    assert main(["results", str(results / "results.sqlite")]) == 0
    assert "SimCLR" in capsys.readouterr().out
