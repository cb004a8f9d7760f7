"""What a report is made from, as it lies in a folder: runs, their losses and configurations, exhibits.

Files come from anywhere, so what is broken is named and left out, and nothing outside the folder is read.
"""

from __future__ import annotations

import base64
import binascii
import csv
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssl_suite.bench import figures

TRAIN_LOSS = ("train/loss", "train/loss_epoch", "train/loss_step")
VAL_LOSS = ("val/loss", "val/loss_epoch")
MAX_ITEMS = 60  # of one exhibit
EXHIBIT_KINDS = ("images", "text", "speech", "generated", "map", "table")
SHOWN = 100_000  # characters of a configuration


@dataclass
class Run:
    """A pre-training run: what its provenance.json, config.yaml and metrics.csv say."""

    folder: str
    info: dict[str, Any]
    config: str
    train: list[tuple[float, float]] = field(default_factory=list)
    val: list[tuple[float, float]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What a benchmark calls its encoder, else the method."""
        if self.info.get("name"):
            return str(self.info["name"])
        part, _, name = self.folder.rpartition("/")
        return name if part.endswith("pretrain") else str(self.info.get("method", "?"))


def run_of(folder: Path) -> Path:
    """The run whose encoder folder this is; itself if it is of none. See `core.folder.encoder_folder`."""
    return next((place.parent for place in (folder, folder.parent) if place.name == "encoder"), folder)


def read_runs(folder: Path, notes: list[str]) -> list[Run]:
    runs: list[Run] = []
    for path in sorted(folder.glob("**/provenance.json")):
        info = _read_json(path, folder, notes)
        if info is None:
            continue
        if not isinstance(info, dict) or not info.get("modality"):
            notes.append(f"{path.relative_to(folder).as_posix()} names no modality, so its run is not shown.")
            continue
        home = run_of(path.parent)
        if runs and runs[-1].folder == home.relative_to(folder).as_posix():  # another encoder of a joint run
            continue
        run = Run(home.relative_to(folder).as_posix(), info, read_config(folder, home))
        if is_inside(home / "metrics.csv", folder):
            run.train, run.val = _read_losses(home / "metrics.csv", folder, notes)
        runs.append(run)
    return runs


def is_inside(path: Path, folder: Path) -> bool:
    """Whether this is a file that lies, links followed, in the folder."""
    try:
        return path.resolve().is_relative_to(folder.resolve()) and path.is_file()
    except (OSError, RuntimeError, ValueError):  # a loop of links, a name that is none
        return False


def _read_json(path: Path, folder: Path, notes: list[str]) -> Any:
    name = path.relative_to(folder).as_posix()
    if not is_inside(path, folder):
        notes.append(f"{name} is not a file of this folder (it leads outside, or nowhere) and was left out.")
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        notes.append(f"{name} could not be read and was left out: {error}.")
        return None


def read_config(folder: Path, home: Path) -> str:
    """The configuration of the run in `home`; "" if there is none inside `folder`."""
    path = home / "config.yaml"
    if not is_inside(path, folder):
        return ""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(SHOWN)
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


def read_exhibits(folder: Path, notes: list[str]) -> list[dict[str, Any]]:
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
