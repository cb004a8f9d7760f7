"""The report: one self-contained HTML page from a folder of results, runs and exhibits."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_suite.bench import figures, in_context, stats
from ssl_suite.bench.page import render
from ssl_suite.bench.published import beside, read_published
from ssl_suite.bench.reading import TRAIN_LOSS, VAL_LOSS, Run, read_config, read_exhibits, read_runs
from ssl_suite.bench.stats import Cell, Column, Verdict, best, chosen, group_by, random_of, simple_of, verdicts
from ssl_suite.bench.store import MODALITIES, ROLES, Result, Store
from ssl_suite.bench.table import RowKey, decimals, format_median, format_value, row_keys, row_names
from ssl_suite.core.errors import UserError

if TYPE_CHECKING:
    from markupsafe import Markup

ROLE_NAMES = {
    "simple": "simple baseline",
    "random": "random weights",
    "ssl": "self-supervised",
    "supervised": "supervised",
}
METRICS = {
    "cer": "character error rate: edits over characters",
    "wer": "word error rate: edits over words",
    "unfit": "share of test items whose text has more characters than the encoder gives states, so that no answer fits",
    "macro_f1": "mean F1 over the classes",
    "matthews": "Matthews’ correlation",
    "accuracy_norm": "accuracy of the likeliest answer a character",
    "bits_per_byte": "bits a byte of text, comparable between tokenizers",
}
"""What names of metrics mean, where they do not say it."""


@dataclass
class GridCell:
    """One cell of a results table."""

    text: str = "–"
    best: bool = False
    mark: int = 0
    title: str = ""
    median: str = ""


@dataclass
class Grid:
    """A results table: headings, and (name, role, detail, entries) rows."""

    headings: list[dict[str, str]]
    rows: list[tuple[str, str, str, list[GridCell]]]


def build_report(folder: Path) -> Path:
    """Write `folder/report.html` from `folder/results.sqlite`, the run folders and `folder/exhibits/*.json`.

    Args:
        folder: of a benchmark; each `provenance.json` below it is a run.

    Returns:
        The page: one file that loads nothing from anywhere.

    Raises:
        UserError: there is no results store, or it is empty.
    """
    folder = Path(folder)
    path = folder / "results.sqlite"
    if not path.is_file():
        raise UserError(f"{path} does not exist: run `ssl-suite bench` with this folder first.")
    results = Store(path).rows()
    if not results:
        raise UserError(f"{path} holds no results yet: run `ssl-suite bench` with this folder first.")
    notes: list[str] = []
    page = render(
        Path(__file__).with_name("report.html.jinja"),
        _context(folder, results, read_runs(folder, notes), read_exhibits(folder, notes), notes),
    )
    target, temporary = folder / "report.html", folder / f".report.{os.getpid()}.tmp"  # `core.files` would load torch
    temporary.write_text(page, encoding="utf-8", newline="\n")
    temporary.replace(target)
    return target


def _context(
    folder: Path, results: list[Result], runs: list[Run], exhibits: list[dict[str, Any]], notes: list[str]
) -> dict[str, Any]:
    cells = stats.summarise(results, folder)
    against = verdicts(cells, random_of), verdicts(cells, simple_of)
    summary = list(_summary(cells, *against))
    marks, beaten = ([row[of] for row in summary if row[of] is not None] for of in ("mark", "over_simple"))
    modalities = _ordered(
        [r.modality for r in results] + [str(run.info.get("modality", "")) for run in runs]
        + [exhibit["modality"] for exhibit in exhibits]
    )  # fmt: skip
    versions: dict[str, set[str]] = {"ssl_suite": {result.version for result in results}}
    for run in runs:
        for package, version in (run.info.get("versions") or {}).items():
            versions.setdefault(str(package), set()).add(str(version))
    return {
        "random": _tally(marks),
        "simple": _tally(beaten),
        "summary": summary,
        "compared": [sum(v.known for c, v in found.items() if c.column.main and not c.online) for found in against],
        "unvalidated": [row["heading"]["task"] for row in summary if not row["validated"]],
        "created": datetime.now().astimezone().strftime("%d %B %Y, %H:%M %Z").lstrip("0"),
        "measured": sorted({result.created[:10] for result in results if result.created}),
        "machines": sorted({str(run.info["machine"]) for run in runs if run.info.get("machine")}),
        "versions": {package: ", ".join(sorted(found)) for package, found in versions.items()},
        "sections": [_section(folder, name, results, cells, against[0], runs, exhibits) for name in modalities],
        "missing": any(cell.missing for cell in cells),
        "single": any(len(cell.values) == 1 for cell in cells),
        "protocols": sorted({cell.protocol for cell in cells}),
        "notes": notes + [f"{row.run} gave no result: {row.error}" for row in results if row.error],
        "role_names": ROLE_NAMES,
        "online": any(cell.online for cell in cells),
    }


def _section(
    folder: Path,
    modality: str,
    results: list[Result],
    cells: list[Cell],
    found: Mapping[Cell, Verdict],
    runs: list[Run],
    exhibits: list[dict[str, Any]],
) -> dict[str, Any]:
    own = [cell for cell in cells if cell.modality == modality]
    offline = [cell for cell in own if not cell.online]
    runs = [run for run in runs if str(run.info.get("modality", "")) == modality]
    shown = [exhibit for exhibit in exhibits if exhibit["modality"] == modality]
    published = [table for table in read_published(folder) if table.modality == modality]
    return {
        "name": modality,
        "data": [exhibit for exhibit in shown if exhibit["kind"] not in ("generated", "map")],
        "generated": [exhibit for exhibit in shown if exhibit["kind"] == "generated"],
        "maps": [exhibit for exhibit in shown if exhibit["kind"] == "map"],
        "grid": _grid(offline, found),
        "online": _grid([cell for cell in own if cell.online], found),
        "metrics": {cell.metric: METRICS[cell.metric] for cell in own if cell.metric in METRICS},
        "panels": list(_panels(offline, found, modality)),
        "in_context": _in_context(folder, results, offline, modality),
        "published": beside(published, offline) if published else None,
        "curves": list(_curves(runs, modality)),
        "pretraining": list(_pretraining(runs)),
        "sources": list(_sources(folder, [row for row in results if row.modality == modality], runs)),
    }


def _summary(
    cells: list[Cell], over_random: Mapping[Cell, Verdict], over_simple: Mapping[Cell, Verdict]
) -> Iterator[dict[str, Any]]:
    """One row a task: its test split if scored, its main metric, and the encoder chosen on validation."""
    offline = [cell for cell in cells if not cell.online]
    groups = group_by(offline, lambda cell: (cell.modality, cell.task, cell.column.data_hash, cell.labels))
    for key in sorted(groups, key=lambda key: _rank(key[0])):
        columns = group_by(groups[key], lambda cell: cell.column)
        column = min(columns, key=lambda column: (column.split != "test", not column.main))  # the first of equals
        row = columns[column]
        ssl = [cell for cell in row if cell.role == "ssl"]
        if not ssl:
            continue
        top = chosen([cell for cell in ssl if cell in over_random]) or chosen(ssl)
        verdict, simple = (over_random.get(top), simple_of(top, row)) if top else (None, None)
        places = decimals(value for cell in row for value in cell.values)
        untrained = verdict.other if verdict else None
        gains = [_gain(top, found, places) for found in (over_simple, over_random)]
        named = [(cell.name, format_value(cell, places)) for cell in (simple, untrained, top) if cell]
        yield {
            "heading": _heading(column, row),
            "modality": column.modality,
            "texts": [format_value(c, places) if c else "–" for c in (simple, untrained, top)],
            "name": top.name if top else "",
            "gains": gains,
            "mark": gains[1]["mark"],
            "over_simple": gains[0]["mark"],
            "validated": len(ssl) == 1 or all(math.isfinite(cell.validation) for cell in ssl),
            "strip": figures.strip(
                row, (untrained, top), verdict is not None and verdict.mark > 0, "; ".join(map(" ".join, named))
            ),
        }


def _gain(cell: Cell | None, found: Mapping[Cell, Verdict], places: int) -> dict[str, Any]:
    """A difference as it is written, and its mark; None where there is no interval."""
    if cell is None or cell not in found or not math.isfinite(found[cell].gain):
        return {"text": "–", "mark": None}
    verdict = found[cell]
    half = f" ± {verdict.half_width:.{places}f}" if verdict.known else ""
    text = f"{verdict.gain:+.{places}f}".replace("-", "−") + half
    return {"text": text, "mark": verdict.mark if verdict.known else None}


def _tally(marks: Sequence[int]) -> dict[str, int]:
    return {"all": len(marks), "better": marks.count(1), "worse": marks.count(-1), "open": marks.count(0)}


def _grid(cells: list[Cell], found: Mapping[Cell, Verdict]) -> Grid:
    columns = sorted(dict.fromkeys(cell.column for cell in cells), key=lambda c: (c.split != "test",))
    names, keyed = row_names(cells), row_keys(cells)
    keys = sorted(names, key=lambda key: ROLES.index(key.role))
    table: dict[tuple[RowKey, Column], Cell] = {(keyed[cell], cell.column): cell for cell in cells}
    rows = [(names[key], key.role, f"{key.method}, {key.encoder}", [GridCell() for _ in columns]) for key in keys]
    for i, column in enumerate(columns):
        own = [cell for cell in cells if cell.column == column]
        places, winner = decimals(value for cell in own for value in cell.values), best(own)
        for key, row in zip(keys, rows, strict=True):
            if cell := table.get((key, column)):
                title = f"seeds {', '.join(map(str, cell.seeds))}; {cell.protocol}; {cell.encoder}"
                mark = found[cell].mark if cell in found else 0
                texts = format_value(cell, places), format_median(cell, places)
                row[3][i] = GridCell(texts[0], cell is winner, mark, title, texts[1])
    return Grid([_heading(column, [c for c in cells if c.column == column]) for column in columns], rows)


def _panels(cells: list[Cell], found: Mapping[Cell, Verdict], modality: str) -> Iterator[tuple[dict[str, str], Markup]]:
    names, keys = row_names(cells), row_keys(cells)
    for i, (column, own) in enumerate(group_by(cells, lambda cell: cell.column).items()):
        if any(cell.values for cell in own):
            places = decimals(value for cell in own for value in cell.values)
            won = [cell in found and found[cell].mark > 0 for cell in own]
            labels = [names[keys[cell]] for cell in own]
            yield _heading(column, own), figures.dots(labels, own, won, places, f"dots-{modality}-{i}")


def _in_context(
    folder: Path, results: list[Result], cells: list[Cell], modality: str
) -> tuple[Markup, list[tuple[str, str]], tuple[str, ...]] | None:
    """The aggregate against the size of the model, its legend and the tasks it is the mean of; None without any."""
    points = in_context.aggregate(cells, in_context.sizes(results, folder))
    if not points or not points[0].tasks:
        return None
    return *in_context.scaling(points, f"in-context-{modality}"), points[0].tasks


def _curves(runs: list[Run], modality: str) -> Iterator[tuple[str, str, Markup]]:
    for i, (method, own) in enumerate(group_by(runs, lambda run: run.name).items()):
        train, val = [run.train for run in own if run.train], [run.val for run in own if run.val]
        if train or val:
            count = max(len(train), len(val))
            title = f"Loss of {method} against the step, {count} run{'s' * (count > 1)}"
            yield method, f"{count} run{'s' * (count > 1)}", figures.curves(train, val, f"loss-{modality}-{i}", title)


def _pretraining(runs: list[Run]) -> Iterator[dict[str, Any]]:
    """A row a method, encoder, data and length of training; means over seeds."""
    keys = ("name", "method", "encoder", "data", "parameters", "steps")
    for values, own in group_by(
        runs, lambda run: (run.name, *(str(run.info.get(key, "")) for key in keys[1:]))
    ).items():
        infos = [run.info for run in own]
        speeds = [info.get("throughput") or {} for info in infos]
        name, losses = _final_losses(infos)
        row: dict[str, Any] = dict(zip(keys, values, strict=True))
        yield row | {
            "seeds": len({str(info.get("seed")) for info in infos}),
            "seconds": _mean(info.get("seconds") for info in infos),
            "speed": _mean(speed.get("value") for speed in speeds),
            "unit": next((str(speed["unit"]) for speed in speeds if speed.get("unit")), ""),
            "mfu": _mean(info.get("mfu") for info in infos),
            "loss": losses,
            "loss_name": name,
        }


def _final_losses(infos: Sequence[dict[str, Any]]) -> tuple[str, float]:
    for name in (*VAL_LOSS, *TRAIN_LOSS):
        loss = _mean((info.get("metrics") or {}).get(name) for info in infos)
        if math.isfinite(loss):
            return name.partition("/")[0], loss
    return "", math.nan


def _sources(folder: Path, results: list[Result], runs: list[Run]) -> Iterator[dict[str, Any]]:
    """For each encoder: its runs with what they gave, the command, and the config."""
    entries: list[tuple[str, str, str, list[str], str]] = []
    for run in runs:
        what = f"pre-training, seed {run.info.get('seed', '?')}"
        entries.append((run.name, run.folder, str(run.info.get("command", "")), [what], run.config))
    for (encoder, name, command), rows in group_by(results, lambda row: (row.name, row.run, row.command)).items():
        home = folder / name
        config = read_config(folder, home) if name else ""
        gave = [
            f"{r.task}, seed {r.seed}: {r.error or f'{r.metric} {r.value:.4g}'}{' (online)' * r.online}" for r in rows
        ]
        entries.append((encoder, name, command, gave, config))
    groups = group_by(entries, lambda entry: entry[0])
    for name in dict.fromkeys([row.name for row in results] + list(groups)):  # in the order of the tables
        yield {"name": name, "runs": [entry[1:] for entry in groups[name]]}


# Small helpers ------------------------------------------------------------------------------------------------------


def _heading(column: Column, cells: list[Cell]) -> dict[str, str]:
    counts = sorted({len(cell.seeds) for cell in cells})
    seeds = "–".join(dict.fromkeys(map(str, (counts[0], counts[-1])))) + (" seed" if counts == [1] else " seeds")
    labels = f"{column.labels:,} label{'s' * (column.labels != 1)}".replace(",", "\u202f")
    beside = max(cell.chosen_on for cell in cells)
    chosen = f"{beside:,} more to choose weights".replace(",", "\u202f") if beside else ""
    split = "" if column.split == "test" else f"{column.split} split"
    metric = f"{column.metric} {cells[0].arrow}"
    detail = ", ".join(filter(None, (labels, chosen, seeds, split)))
    return {"task": column.task, "metric": metric, "detail": detail, "data": column.data}


def _rank(modality: str) -> tuple[int, str]:
    return (MODALITIES.index(modality) if modality in MODALITIES else len(MODALITIES), modality)


def _ordered(modalities: Iterable[str]) -> list[str]:
    return sorted({name for name in modalities if name}, key=_rank)


def _mean(values: Iterable[Any]) -> float:
    return stats.mean_interval([value for value in map(figures.to_float, values) if math.isfinite(value)])[0]
