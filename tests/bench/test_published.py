"""Published figures stand beside own ones, in brackets, by task or by encoder, on the page and in the terminal."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from results import over_seeds, untrained

from ssl_suite.bench.benchmark import load_benchmark
from ssl_suite.bench.published import FILE, Published, beside, own_figures, read_published, write_published
from ssl_suite.bench.report import build_report
from ssl_suite.bench.stats import Cell, summarise
from ssl_suite.bench.store import Result, Store
from ssl_suite.cli import main
from ssl_suite.core.errors import UserError

CONFIGS = Path(__file__).parents[2] / "configs/bench"
PAPER = Published("A paper (arXiv:1)", "image", ["digits accuracy", "faces f1"], {"Theirs": [98.5, None]})
BY_NAME = Published("Another (arXiv:2)", "image", ["GLUE"], {"SimCLR": [83.28], "BYOL": [82.0]})


def cells(folder: Path, rows: list[Result]) -> list[Cell]:
    store = Store(folder / "results.sqlite")
    store.add(rows)
    return summarise(store.rows(), folder)


def test_a_column_that_is_a_task_has_own_rows_too(tmp_path: Path) -> None:
    found = beside([PAPER], cells(tmp_path, over_seeds([0.90, 0.92]) + untrained([0.5, 0.5])))
    assert found.columns == ["digits accuracy", "faces f1"]
    assert found.rows["SimCLR"]["digits accuracy"].startswith("91.0 ± ")
    assert found.rows["random weights of SimCLR"]["digits accuracy"].startswith("50.0")
    assert found.rows["Theirs"] == {"digits accuracy": "(98.50)"}
    assert found.sources == ["A paper (arXiv:1)"]


def test_a_row_that_is_an_encoder_has_own_columns_too(tmp_path: Path) -> None:
    found = beside([BY_NAME], cells(tmp_path, over_seeds([0.90, 0.92]) + untrained([0.5, 0.5])))
    assert found.columns == ["GLUE", "digits accuracy"]
    assert set(found.rows) == {"SimCLR", "BYOL"}
    assert found.rows["SimCLR"]["GLUE"] == "(83.28)"
    assert found.rows["SimCLR"]["digits accuracy"].startswith("91.0 ± ")
    assert found.rows["BYOL"] == {"GLUE": "(82.00)"}


def test_a_quoted_figure_stands_behind_the_own_one(tmp_path: Path) -> None:
    paper = Published("A third (arXiv:3)", "image", ["digits accuracy"], {"SimCLR": [97.5], "Theirs": [98.5]})
    found = beside([paper], cells(tmp_path, over_seeds([0.90, 0.92])))
    assert re.fullmatch(r"91\.0 ± [\d.]+ \(97\.50\)", found.rows["SimCLR"]["digits accuracy"])
    assert found.rows["Theirs"]["digits accuracy"] == "(98.50)"
    assert found.columns == ["digits accuracy"]


def test_folds_of_a_task_are_averaged(tmp_path: Path) -> None:
    rows = [r for k, v in ((1, 0.5), (2, 0.7)) for r in over_seeds([v], task=f"ER, session {k}", run=f"er-{k}")]
    ((middle, half),) = own_figures(cells(tmp_path, rows), ["ER accuracy"])["SimCLR"].values()
    assert middle == pytest.approx(60.0)
    assert half != half


def test_the_page_and_the_terminal_quote_with_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells(tmp_path, over_seeds([0.90, 0.92]) + untrained([0.5, 0.5]))
    page = build_report(tmp_path).read_text()
    assert "Beside published figures" not in page
    write_published([PAPER, BY_NAME], tmp_path)
    assert read_published(tmp_path) == [PAPER, BY_NAME]
    page = build_report(tmp_path).read_text()
    part = page.partition("Beside published figures")[2].partition("<h3>")[0]
    assert re.search(r"Theirs</th><td class=\"n\">\(98\.50\)</td><td class=\"n\">–</td>", part)
    assert all(
        text in part for text in ("(83.28)", "91.0 ± ", "A paper (arXiv:1); Another (arXiv:2)", "compared with nothing")
    )
    main(["results", str(tmp_path)])
    said = capsys.readouterr().out
    assert all(text in said for text in ("(98.50)", "(83.28)", "(quoted)", "arXiv:2"))


def test_what_does_not_fit_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"published, X: 'a' has 1 figures, but there are 2 columns"):
        Published("X", "text", ["b", "c"], {"a": [1.0]})
    (tmp_path / "b.yaml").write_text("name: x\nseeds: [0]\ntasks: {}\npublished: {X: {columns: []}}\n")
    with pytest.raises(UserError, match="is not a benchmark"):
        load_benchmark(tmp_path / "b.yaml")
    (tmp_path / FILE).write_text("[{}]")
    with pytest.raises(UserError, match="holds no published figures"):
        read_published(tmp_path)


@pytest.mark.parametrize("name", ["t5_objectives", "glue", "superb"])
def test_recipes_quote_rows_that_meet_their_own(name: str) -> None:
    benchmark = load_benchmark(CONFIGS / f"{name}.yaml")
    assert benchmark.published
    tasks = {task.name.partition(",")[0] for task in benchmark.tasks}
    encoders = {encoder.name for encoder in benchmark.encoders}
    for table in benchmark.published:
        assert "arXiv" in table.source or "Hugging Face" in table.source
        assert all(0 <= figure <= 100 for row in table.rows.values() for figure in row if figure is not None)
        assert set(table.rows) <= encoders or {column.rpartition(" ")[0] for column in table.columns} <= tasks
