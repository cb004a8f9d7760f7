"""A table of more rows than memory holds: an Arrow file in the cache folder, made once and then mapped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from ssl_suite.core.features import default_cache
from ssl_suite.core.files import replacing
from ssl_suite.data.common.files import columns_of

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

Row = dict[str, Any]
VERSION = 1
"""Of how rows are read: a copy made by another is not used."""
HELD = 1 << 24
"""Characters of rows that are in memory together."""


def tables_folder() -> Path:
    """Where tables are kept that stay on the disk; a file that changes gets another."""
    return default_cache() / "tables"


def mapped(rows: Callable[[], Iterator[Row]], key: str) -> Dataset:
    """The table of rows that are too many for memory, from a copy in the cache folder.

    Columns have the types of the first rows; where later ones have further columns or a wider type (numbers with a
    fraction after whole ones, something after nothing), it begins again with those.

    Args:
        rows: gives them from the first on, each time it is called.
        key: names them; others have another.

    Raises:
        UserError: the disk is full.
    """
    from datasets import Dataset

    path = tables_folder() / f"{key}-{VERSION}.arrow"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):  # processes of one run must not each write their own
        if not path.exists():
            with replacing(path) as temporary:
                schema = None
                while (wider := _write(rows(), temporary, schema)) is not None:
                    schema = wider
    return Dataset.from_file(str(path))


def _write(rows: Iterator[Row], path: Path, schema: pa.Schema | None) -> pa.Schema | None:
    """Writes rows as record batches; stops at some that the columns cannot hold, and returns columns that can."""
    import pyarrow as pa

    with path.open("wb") as file:
        writer = None
        for held in _held(rows):
            table = pa.table(columns_of(held))
            schema = schema or table.schema
            wider = pa.unify_schemas([schema, table.schema], promote_options="permissive")
            if wider != schema:
                return wider
            writer = writer or pa.ipc.new_stream(file, schema)
            writer.write_table(pa.Table.from_pylist(held, schema) if table.schema != schema else table)
        if writer is None:
            writer = pa.ipc.new_stream(file, schema or pa.schema([]))
        writer.close()
    return None


def _held(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Groups rows of together `HELD` characters or, with the last one, more."""
    held: list[Row] = []
    size = 0
    for row in rows:
        held.append(row)
        size += 16 + sum(len(value) for value in row.values() if isinstance(value, (str, list, dict)))
        if size >= HELD:
            yield held
            held, size = [], 0
    if held:
        yield held
