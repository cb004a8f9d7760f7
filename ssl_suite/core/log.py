"""When a figure is logged, and metrics.csv: a row for each logged step, appended to by a run that goes on."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.loggers.logger import rank_zero_experiment

from ssl_suite.core.files import write_text


class CSVLog(CSVLogger):
    """Writes each row at once into a file of the run's folder.

    Args:
        folder: of the run.
        name: of the file.
        until: rows of earlier processes that are kept: those of steps before this one, which a resumed run does not
            take again; None keeps all.
    """

    def __init__(self, folder: str | Path, name: str = "metrics.csv", until: int | None = None) -> None:
        super().__init__(folder, name="", version="", flush_logs_every_n_steps=1)
        self.file, self.until = name, until

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is None:
            self._experiment = _Rows(Path(self.log_dir), self.file, self.until)
        return self._experiment


class _Rows(ExperimentWriter):
    """Rows with columns that may grow; a file whose columns change is replaced as a whole."""

    def __init__(self, folder: Path, name: str, until: int | None) -> None:
        self.path = folder / name
        folder.mkdir(parents=True, exist_ok=True)
        self.log_dir, self.hparams, self.metrics = str(folder), {}, []
        kept = [row for row in _read(self.path) if until is None or int(row["step"]) < until]
        self.columns = list(kept[0]) if kept else []
        if kept:
            self._replace(kept)
        else:
            self.path.unlink(missing_ok=True)

    def save(self) -> None:
        if not self.metrics:
            return
        new = sorted(set().union(*self.metrics) - set(self.columns))
        fresh, self.metrics = self.metrics, []
        if new:
            self.columns = sorted({*self.columns, *new})
            self._replace([*_read(self.path), *fresh])
        else:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, self.columns).writerows(fresh)

    def _replace(self, rows: list[dict[str, Any]]) -> None:
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, self.columns)
        table.writeheader()
        table.writerows(rows)
        write_text(self.path, text.getvalue())


def _read(path: Path) -> list[dict[str, Any]]:
    """Rows of an earlier process; one that a kill cut off is left out."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if (row.get("step") or "").isdigit() and None not in row.values()]


def log_interval(trainer: pl.Trainer) -> int:
    """Steps between two logs, at least 1."""
    return max(1, trainer.log_every_n_steps)  # type: ignore[attr-defined]
