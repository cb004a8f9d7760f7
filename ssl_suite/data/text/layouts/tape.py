"""TAPE (arXiv:1906.08230): how stable a protein is, and how bright; judged by Spearman's correlation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ssl_suite.core.errors import UserError
from ssl_suite.data.common.files import each_row
from ssl_suite.data.common.lists import Splits, options, require

SCORES = {"fluorescence": "log_fluorescence", "stability": "stability_score"}
SPLITS = {"train": "train", "validation": "valid", "test": "test"}


def tape(folder: Path, part: str) -> Splits:
    """Rows of `id`, `text` (the amino acids) and `label` (the score).

    Args:
        folder: with stability_train.json, stability_valid.json and stability_test.json (TAPE's raw data, for its .lmdb
            files hold pickles), or with them in stability/.
        part: `stability` or `fluorescence`.
    """
    tasks = sorted(options(part, SCORES, "tape"))
    if len(tasks) != 1:
        raise UserError(f"The layout tape wants stability or fluorescence: tape/stability:{folder}.")
    (task,) = tasks
    place = folder / task if (folder / task).is_dir() else folder
    return {split: list(_rows(place / f"{task}_{name}.json", SCORES[task])) for split, name in SPLITS.items()}


def _rows(path: Path, score: str) -> Iterator[dict[str, Any]]:
    if not path.exists() and (pickled := path.with_suffix(".lmdb")).exists():
        raise UserError(f"{pickled} holds pickles, which could run anything; put TAPE's raw {path.name} beside it.")
    for i, entry in enumerate(each_row(require(path, "TAPE"))):
        value = np.ravel(entry.get(score, ()))
        if not isinstance(entry.get("primary"), str) or len(value) != 1 or value.dtype.kind not in "if":
            raise UserError(f"{path}, row {i + 1}: TAPE's rows have `primary`, a text, and `{score}`, one number.")
        yield {"id": str(entry.get("id", i)), "text": entry["primary"], "label": float(value[0])}
