"""The outcomes of single test examples on disk, beside the run that gave them; see `core.outcomes`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ssl_suite.bench.resample import Outcomes, score
from ssl_suite.bench.store import Result

if TYPE_CHECKING:
    from ssl_suite.core.outcomes import Example

COLUMNS = {"ratio": ("numerator", "denominator")}
PAIR = ("prediction", "target")
META = b"ssl_suite"
TOLERANCE = 1e-3  # of a metric in fp32, against the same from its outcomes in fp64


def path_of(folder: Path, split: str) -> Path:
    return folder / f"outcomes-{split}.parquet"


def write_outcomes(folder: Path, row: Result, examples: Sequence[Example], statistic: str) -> None:
    """Writes the outcomes of a run on a split.

    Args:
        folder: of the run.
        row: the result they belong to.
        examples: of the split.
        statistic: how the metric is made of them.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ssl_suite.core.files import replacing

    first, second = COLUMNS.get(statistic, PAIR)
    ids, a, b = zip(*sorted(examples, key=lambda example: example[0]), strict=True)
    columns = {"id": pa.array(ids, pa.string()), first: pa.array(a, pa.float64()), second: pa.array(b, pa.float64())}
    meta = {META: f"{row.identity}|{row.metric}|{statistic}".encode()}
    with replacing(path_of(folder, row.split)) as temporary:
        pq.write_table(pa.table(columns).replace_schema_metadata(meta), temporary)


def read_outcomes(folder: Path, row: Result) -> Outcomes | None:
    """The outcomes that make up a result; None where there are none, or the file is of another run or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = path_of(folder, row.split)
    if not row.main or row.error or not path.is_file():
        return None
    try:
        table = pq.read_table(path)
        identity, metric, statistic = (table.schema.metadata or {}).get(META, b"||").decode().split("|")
        if (identity, metric) != (row.identity, row.metric):
            return None
        ids = tuple(table["id"].to_pylist())
        columns = [table[name].to_numpy().astype(np.float64) for name in COLUMNS.get(statistic, PAIR)]
    except (OSError, KeyError, ValueError, pa.ArrowException):
        return None
    found = Outcomes(ids, np.stack(columns, 1), statistic)
    if not ids or not np.isfinite(found.values).all():
        return None
    again = score(found, np.ones((1, len(ids))))[0]
    return found if abs(again - row.value) <= TOLERANCE * max(1, abs(row.value)) else None
