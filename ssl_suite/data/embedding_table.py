"""A parquet file of ids and embeddings, which come in any order and are kept in that of their split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ssl_suite.core.files import replacing

ROWS = 256
"""Rows that are put in order together."""


def write_table(
    out: Path,
    batches: Iterable[tuple[Tensor, list[Tensor]]],
    ids: Sequence[str],
    dim: int,
    frames: bool,
    metadata: dict[str, str],
) -> int:
    """Writes the columns `id` and `embedding`; memory holds a few batches.

    Args:
        out: replaced once all is written.
        batches: (B,) positions in the split and, of each, (T, D) states; T is 1 without `frames`.
        ids: of all positions.
        dim: D.
        frames: a list of T times D numbers a row, instead of D numbers.
        metadata: of the file.

    Returns:
        Rows that were written.
    """
    vector = pa.list_(pa.float32(), dim)
    schema = pa.schema({"id": pa.string(), "embedding": pa.large_list(vector) if frames else vector})
    with replacing(out) as temporary:
        as_they_came = temporary.with_suffix(".arrow")
        try:
            places = []
            with pa.OSFile(str(as_they_came), "wb") as file, pa.ipc.new_file(file, schema) as rows:
                for index, values in batches:
                    places.append(index)
                    rows.write_batch(_record_batch([ids[i] for i in index.tolist()], values, frames, schema))
            order = torch.cat(places).argsort().numpy()
            with (
                pa.memory_map(str(as_they_came)) as file,
                pq.ParquetWriter(temporary, schema.with_metadata(metadata)) as table,
            ):
                unordered = pa.ipc.open_file(file).read_all()
                for start in range(0, len(order), ROWS):
                    table.write_table(unordered.take(pa.array(order[start : start + ROWS])))
                del unordered
        finally:
            as_they_came.unlink(missing_ok=True)
    return len(order)


def holds_embeddings(path: Path) -> bool:
    """Whether a file is one of these."""
    try:
        return pq.read_schema(path).names == ["id", "embedding"]
    except pa.ArrowInvalid:
        return False


def _record_batch(ids: list[str], values: list[Tensor], frames: bool, schema: Any) -> Any:
    flat = pa.array(torch.cat(values).numpy().ravel())
    vectors = pa.FixedSizeListArray.from_arrays(flat, values[0].shape[1])
    if frames:
        ends = torch.tensor([0, *(len(v) for v in values)]).cumsum(0)
        vectors = pa.LargeListArray.from_arrays(pa.array(ends.numpy()), vectors)
    return pa.record_batch([pa.array(ids), vectors], schema=schema)
