"""The report: one self-contained HTML page from a folder of results, runs and exhibits."""

from __future__ import annotations

import base64
import binascii
import csv
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_suite.bench import figures, stats
from ssl_suite.bench.stats import Cell, Column, best, decimals, format_value, group_by, random_of, row_key, wins
from ssl_suite.bench.store import MODALITIES, ROLES, Result, Store
from ssl_suite.core.errors import UserError

if TYPE_CHECKING:
    from markupsafe import Markup

ROLE_NAMES = {
    "simple": "simple baseline",
    "random": "random weights",
    "ssl": "self-supervised",
    "supervised": "supervised",
}
TRAIN_LOSS = ("train/loss", "train/loss_epoch", "train/loss_step")
VAL_LOSS = ("val/loss", "val/loss_epoch")
MAX_ITEMS = 60  # of one exhibit
EXHIBIT_KINDS = ("images", "text", "speech", "generated", "map", "table")


@dataclass
class Run:
    """A pre-training run: what its provenance.json, config.yaml and metrics.csv say."""

    folder: str
    info: dict[str, Any]
    config: str
    train: list[tuple[float, float]] = field(default_factory=list)
    val: list[tuple[float, float]] = field(default_factory=list)


@dataclass
class Entry:
    """One cell of a results table."""

    text: str = "–"
    best: bool = False
    beats: bool = False
    title: str = ""
    median: str = ""


@dataclass
class Grid:
    """A results table: headings, and (name, role, detail, entries) rows."""

    headings: list[dict[str, str]]
    rows: list[tuple[str, str, str, list[Entry]]]


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
    page = _render(_context(folder, results, _read_runs(folder, notes), _read_exhibits(folder, notes), notes))
    target, temporary = folder / "report.html", folder / f".report.{os.getpid()}.tmp"
    temporary.write_text(page, encoding="utf-8", newline="\n")
    temporary.replace(target)
    return target


def _render(context: dict[str, Any]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(number=figures.number, compact=figures.compact, duration=figures.duration)
    return environment.get_template("report.html.jinja").render(context).lstrip()


# Reading ------------------------------------------------------------------------------------------------------------


def _read_runs(folder: Path, notes: list[str]) -> list[Run]:
    runs = []
    for path in sorted(folder.glob("**/provenance.json")):
        info = _read_json(path, folder, notes)
        if info is None:
            continue
        if not isinstance(info, dict) or not info.get("modality"):
            notes.append(f"{path.relative_to(folder).as_posix()} names no modality, so its run is not shown.")
            continue
        home = path.parent.parent if path.parent.name == "encoder" else path.parent
        run = Run(home.relative_to(folder).as_posix(), info, _read_config(home))
        if (home / "metrics.csv").is_file():
            run.train, run.val = _read_losses(home / "metrics.csv", folder, notes)
        runs.append(run)
    return runs


def _read_json(path: Path, folder: Path, notes: list[str]) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        notes.append(f"{path.relative_to(folder).as_posix()} could not be read and was left out: {error}.")
        return None


def _read_config(home: Path) -> str:
    try:
        return (home / "config.yaml").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _read_losses(path: Path, folder: Path, notes: list[str]) -> tuple[list[tuple[float, float]], ...]:
    """Training and validation losses as (step, loss) points; rows without a number are skipped."""
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = list(csv.DictReader(file))
    curves = []
    for names in (TRAIN_LOSS, VAL_LOSS):
        column = next((name for name in names if any(row.get(name) for row in rows)), "")
        points = [(figures.to_float(row.get("step")), figures.to_float(row.get(column))) for row in rows]
        curves.append([(step, loss) for step, loss in points if math.isfinite(step) and math.isfinite(loss)])
    if rows and not any(curves):
        notes.append(f"{path.relative_to(folder).as_posix()} has no finite loss, so there is no learning curve of it.")
    return tuple(curves)


def _read_exhibits(folder: Path, notes: list[str]) -> list[dict[str, Any]]:
    exhibits: list[dict[str, Any]] = []
    for path in sorted((folder / "exhibits").glob("*.json")):
        found = _read_json(path, folder, notes)
        if found is None:
            continue
        name = path.relative_to(folder).as_posix()
        kind = found.get("kind") if isinstance(found, dict) else None
        if kind not in EXHIBIT_KINDS or not found.get("modality") or not isinstance(found.get("items"), list):
            notes.append(f"{name} is not an exhibit: modality, a kind of {', '.join(EXHIBIT_KINDS)}, list of items.")
            continue
        exhibit = {"kind": kind, "total": len(found["items"])}
        exhibit |= {key: str(found.get(key) or "") for key in ("modality", "title", "caption")}
        try:
            exhibit |= _prepare(kind, found["items"], f"x{len(exhibits)}", exhibit["title"])
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            notes.append(f"{name} was left out: its items are not those of the kind {kind!r} ({error!r}).")
            continue
        exhibits.append(exhibit)
    return exhibits


def _prepare(kind: str, items: list[Any], name: str, title: str) -> dict[str, Any]:
    """What the template shows of an exhibit's items."""
    if kind == "map":
        points = [(figures.to_float(item["x"]), figures.to_float(item["y"]), str(item["label"])) for item in items]
        points = [point for point in points if math.isfinite(point[0]) and math.isfinite(point[1])]
        figure, legend = figures.scatter(points, name, title)
        return {"figure": figure, "legend": legend, "items": points, "shown": min(len(points), figures.MAP_POINTS)}
    shown = [dict(item) for item in items[:MAX_ITEMS]]
    for item in shown if kind != "table" else ():
        item |= {key: "" if item.get(key) is None else str(item[key]) for key in ("label", "text", "prompt")}
        if kind == "images":
            item["png"] = _base64(item["png"])
        if kind == "speech":
            item["wav"] = _base64(item["wav"]) if item.get("wav") else ""
            item["mel"] = figures.spectrogram(item["mel"]) if item.get("mel") else ""
    keys = list(dict.fromkeys(key for item in shown for key in item))
    return {"items": shown, "keys": keys, "shown": len(shown)}


def _base64(text: str) -> str:
    try:
        return base64.b64encode(base64.b64decode("".join(text.split()), validate=True)).decode()
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from error


# What the page shows ------------------------------------------------------------------------------------------------


def _context(
    folder: Path, results: list[Result], runs: list[Run], exhibits: list[dict[str, Any]], notes: list[str]
) -> dict[str, Any]:
    cells = stats.summarise(results)
    summary = list(_summary(cells))
    compared = [row for row in summary if row["comparable"]]
    modalities = _ordered(
        [r.modality for r in results] + [str(run.info.get("modality", "")) for run in runs]
        + [exhibit["modality"] for exhibit in exhibits]
    )  # fmt: skip
    versions: dict[str, set[str]] = {"ssl_suite": {result.version for result in results}}
    for run in runs:
        for package, version in (run.info.get("versions") or {}).items():
            versions.setdefault(str(package), set()).add(str(version))
    return {
        "tasks": len(compared),
        "wins": sum(row["beats"] for row in compared),
        "over_simple": [row["over_simple"] for row in summary if row["over_simple"] is not None],
        "summary": summary,
        "created": datetime.now().astimezone().strftime("%d %B %Y, %H:%M %Z").lstrip("0"),
        "measured": sorted({result.created[:10] for result in results if result.created}),
        "machines": sorted({str(run.info["machine"]) for run in runs if run.info.get("machine")}),
        "versions": {package: ", ".join(sorted(found)) for package, found in versions.items()},
        "sections": [_section(folder, name, results, cells, runs, exhibits) for name in modalities],
        "missing": any(cell.missing for cell in cells),
        "single": any(len(cell.values) == 1 for cell in cells),
        "protocols": sorted({cell.protocol for cell in cells}),
        "notes": notes,
        "role_names": ROLE_NAMES,
        "online": any(cell.online for cell in cells),
    }


def _section(
    folder: Path,
    modality: str,
    results: list[Result],
    cells: list[Cell],
    runs: list[Run],
    exhibits: list[dict[str, Any]],
) -> dict[str, Any]:
    own = [cell for cell in cells if cell.modality == modality]
    offline = [cell for cell in own if not cell.online]
    runs = [run for run in runs if str(run.info.get("modality", "")) == modality]
    shown = [exhibit for exhibit in exhibits if exhibit["modality"] == modality]
    return {
        "name": modality,
        "data": [exhibit for exhibit in shown if exhibit["kind"] not in ("generated", "map")],
        "generated": [exhibit for exhibit in shown if exhibit["kind"] == "generated"],
        "maps": [exhibit for exhibit in shown if exhibit["kind"] == "map"],
        "grid": _grid(offline),
        "online": _grid([cell for cell in own if cell.online]),
        "panels": list(_panels(offline, modality)),
        "curves": list(_curves(runs, modality)),
        "pretraining": list(_pretraining(runs)),
        "sources": list(_sources(folder, [row for row in results if row.modality == modality], runs)),
    }


def _summary(cells: list[Cell]) -> Iterator[dict[str, Any]]:
    """One row a task: its test split if scored, its first metric, and the best self-supervised method."""
    offline = [cell for cell in cells if not cell.online]
    groups = group_by(offline, lambda cell: (cell.modality, cell.task, cell.column.data, cell.labels))
    for key in sorted(groups, key=lambda key: _rank(key[0])):
        columns = group_by(groups[key], lambda cell: cell.column)
        column = min(columns, key=lambda column: column.split != "test")  # min keeps the first of equals
        row = columns[column]
        ssl = [cell for cell in row if cell.role == "ssl"]
        if not ssl:
            continue
        top = best([cell for cell in ssl if random_of(cell, row)]) or best(ssl)
        untrained = random_of(top, row) if top else None
        simple = best(cell for cell in row if cell.role == "simple")
        gain, half = stats.difference(top, untrained) if top and untrained else (math.nan, math.nan)
        places = decimals(value for cell in row for value in cell.values)
        won = top is not None and wins(top, row)
        named = [(cell.method, format_value(cell, places)) for cell in (simple, untrained, top) if cell]
        yield {
            "heading": _heading(column, row),
            "modality": column.modality,
            "texts": [format_value(c, places) if c else "–" for c in (simple, untrained, top)],
            "method": top.method if top else "",
            "gain": f"{gain:+.{places}f}".replace("-", "−") if math.isfinite(gain) else "–",
            "half": f" ± {half:.{places}f}" if math.isfinite(half) else "",
            "comparable": math.isfinite(half),
            "beats": won,
            "over_simple": simple.sign * (top.mean - simple.mean) > 0 if top and simple else None,
            "strip": figures.strip(row, (untrained, top), won, "; ".join(f"{name} {text}" for name, text in named)),
        }


def _grid(cells: list[Cell]) -> Grid:
    columns = sorted(dict.fromkeys(cell.column for cell in cells), key=lambda c: (c.split != "test",))
    names = stats.row_names(cells)
    keys = sorted(dict.fromkeys(map(row_key, cells)), key=lambda key: ROLES.index(key[0]))
    table: dict[tuple[Any, Column], Cell] = {(row_key(cell), cell.column): cell for cell in cells}
    rows = [(names[key], key[0], f"{key[2]}, {key[3]}", [Entry() for _ in columns]) for key in keys]
    for i, column in enumerate(columns):
        own = [cell for cell in cells if cell.column == column]
        places, winner = decimals(value for cell in own for value in cell.values), best(own)
        for key, row in zip(keys, rows, strict=True):
            if cell := table.get((key, column)):
                title = f"seeds {', '.join(map(str, cell.seeds))}; {cell.protocol}; {cell.encoder}"
                texts = format_value(cell, places), stats.format_median(cell, places)
                row[3][i] = Entry(texts[0], cell is winner, wins(cell, own), title, texts[1])
    return Grid([_heading(column, [c for c in cells if c.column == column]) for column in columns], rows)


def _panels(cells: list[Cell], modality: str) -> Iterator[tuple[dict[str, str], Markup]]:
    names = stats.row_names(cells)
    for i, (column, own) in enumerate(group_by(cells, lambda cell: cell.column).items()):
        if any(cell.values for cell in own):
            places = decimals(value for cell in own for value in cell.values)
            won = [wins(cell, own) for cell in own]
            labels = [names[row_key(cell)] for cell in own]
            yield _heading(column, own), figures.dots(labels, own, won, places, f"dots-{modality}-{i}")


def _curves(runs: list[Run], modality: str) -> Iterator[tuple[str, str, Markup]]:
    for i, (method, own) in enumerate(group_by(runs, lambda run: str(run.info.get("method", "?"))).items()):
        train, val = [run.train for run in own if run.train], [run.val for run in own if run.val]
        if train or val:
            count = max(len(train), len(val))
            title = f"Loss of {method} against the step, {count} run{'s' * (count > 1)}"
            yield method, f"{count} run{'s' * (count > 1)}", figures.curves(train, val, f"loss-{modality}-{i}", title)


def _pretraining(runs: list[Run]) -> Iterator[dict[str, Any]]:
    """A row a method, encoder, data and length of training; means over seeds."""
    keys = ("method", "encoder", "data", "parameters", "steps")
    for values, own in group_by(runs, lambda run: tuple(str(run.info.get(key, "")) for key in keys)).items():
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
    """For each method: its runs with what they gave, the command, and the config."""
    inside = folder.resolve()
    entries: list[tuple[str, str, str, list[str], str]] = []
    for run in runs:
        what = f"pre-training, seed {run.info.get('seed', '?')}"
        entries.append(
            (str(run.info.get("method", "?")), run.folder, str(run.info.get("command", "")), [what], run.config)
        )
    for (method, name, command), rows in group_by(results, lambda row: (row.method, row.run, row.command)).items():
        home = (folder / name).resolve()
        config = _read_config(home) if name and home.is_relative_to(inside) else ""
        gave = [f"{r.task}, seed {r.seed}: {r.metric} {r.value:.4g}{' (online)' * r.online}" for r in rows]
        entries.append((method, name, command, gave, config))
    groups = group_by(entries, lambda entry: entry[0])
    for method in dict.fromkeys([row.method for row in results] + list(groups)):  # in the order of the tables
        yield {"method": method, "runs": [entry[1:] for entry in groups[method]]}


# Small helpers ------------------------------------------------------------------------------------------------------


def _heading(column: Column, cells: list[Cell]) -> dict[str, str]:
    counts = sorted({len(cell.seeds) for cell in cells})
    seeds = "–".join(dict.fromkeys(map(str, (counts[0], counts[-1])))) + (" seed" if counts == [1] else " seeds")
    labels = f"{column.labels:,} label{'s' * (column.labels != 1)}".replace(",", "\u202f")
    split = "" if column.split == "test" else f"{column.split} split"
    metric = f"{column.metric} {cells[0].arrow}"
    detail = ", ".join(filter(None, (labels, seeds, split)))
    return {"task": column.task, "metric": metric, "detail": detail, "data": column.data}


def _rank(modality: str) -> tuple[int, str]:
    return (MODALITIES.index(modality) if modality in MODALITIES else len(MODALITIES), modality)


def _ordered(modalities: Iterable[str]) -> list[str]:
    return sorted({name for name in modalities if name}, key=_rank)


def _mean(values: Iterable[Any]) -> float:
    return stats.mean_interval([value for value in map(figures.to_float, values) if math.isfinite(value)])[0]
