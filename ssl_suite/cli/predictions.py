"""What `predict` writes: an answer a row, or the files that a leaderboard wants."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from ssl_suite.core.data import DataModule
from ssl_suite.core.files import write_bytes, write_text
from ssl_suite.core.finetune import Finetune
from ssl_suite.core.outcomes import gathered


class WritePredictions(pl.Callback):
    """Writes what was predicted of each split, and what the data's leaderboard wants.

    A task's own files where it has some, else one {"id", "prediction"} a row, in the order of the split; a split that
    was asked for and is not test is in the file's name, so that none takes another's place. A task's answers are
    gathered over ranks; the embeddings of a method are written to a file a rank.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._rows: dict[int, list[tuple[int, Any]]] = {}

    def on_predict_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        answers = outputs.tolist() if hasattr(outputs, "tolist") else outputs
        self._rows.setdefault(dataloader_idx, []).extend(zip(batch.index.tolist(), answers, strict=True))

    def on_predict_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        data: DataModule = pl_module.data
        task = pl_module.task if isinstance(pl_module, Finetune) else None
        plain = "test" if data.predict_split else data.predicted[0]  # which nobody had to name
        for number, split in enumerate(data.predicted):
            rows = self._rows.get(number, [])
            if task is not None:
                rows = list(dict(gathered(rows)).items())  # of few items, every rank has all
                if not trainer.is_global_zero:
                    continue
                if files := task.files(rows, data, split):
                    self._write({named(name, split, plain): content for name, content in files.items()}, len(rows))
                    continue
            rank = f"-rank{trainer.global_rank}" if task is None and trainer.world_size > 1 else ""
            path = self.folder / named(f"predictions{rank}.jsonl", split, plain)
            ids, rows = data.ids(split), sorted(rows, key=lambda row: row[0])
            answers = [data.answer(split, i, answer) for i, answer in rows]
            written = [{"id": ids[i], "prediction": answer} for (i, _), answer in zip(rows, answers, strict=True)]
            write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in written))
            print(f"{path}: {len(rows)} predictions")
            if task is not None and len(rows) == data.size(split) and (sheet := data.submission(split, answers)):
                write_text(self.folder / sheet[0], sheet[1])
                print(f"{self.folder / sheet[0]}: for the leaderboard")

    def _write(self, files: dict[str, Any], rows: int) -> None:
        """A task's own files, for so many rows; those of bytes are one a row or more, in a folder."""
        folders = Counter[Path]()
        for name, content in files.items():
            path = self.folder / name
            if isinstance(content, bytes):
                write_bytes(path, content)
                folders[path.parent] += 1
                continue
            text = isinstance(content, str)
            write_text(path, content if text else json.dumps(content, ensure_ascii=False, indent=1) + "\n")
            print(f"{path}: {rows if text else len(content)} predictions")
        for folder, count in folders.items():
            print(f"{folder}: {count} files of {rows} predictions")


def named(name: str, split: str, plain: str) -> str:
    """The name of a file of answers: as it is for the split `plain`, with the split in it for another."""
    stem, dot, kind = name.rpartition(".")
    mark = split.removeprefix(plain).strip("_")
    return f"{stem}-{mark}{dot}{kind}" if mark else name
