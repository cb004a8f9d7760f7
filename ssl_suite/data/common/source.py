"""Opening a source: embedded samples, parquet, jsonl, csv, a folder, or a hub data set, all as `datasets.Dataset`."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ssl_suite.core.errors import UserError, nearest
from ssl_suite.data.common.arrow import HELD, Row, mapped, tables_folder
from ssl_suite.data.common.columns import Column, Places
from ssl_suite.data.common.files import PLAIN, Form, columns_of, each_row, read_documents, suffix_of
from ssl_suite.data.common.layout import ALIASES, Kinds, Names, find_splits
from ssl_suite.data.common.manifest import Media
from ssl_suite.data.common.walk import files_below

if TYPE_CHECKING:
    from datasets import Dataset

LARGE = 50_000_000
"""Bytes of files above which they are not read into memory but mapped, from a copy in the cache folder."""
STAMPED = 50_000_000
"""Bytes below which a column is hashed whole."""
TABLES = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv"}
TABLES |= dict.fromkeys((".conllu", ".conll", ".bio", ".iob", ".iob2"), "CoNLL")  # read by Text
SAMPLES = Path(__file__).parent.parent / "samples"

FolderReader = Callable[[Path, Form], dict[str, list[Any]] | Iterator[Row]]
"""A modality's way to read a table, or a folder of files: column → values, or, of what may be large, row after row."""

Layout = Callable[[Path, str], dict[str, list[dict[str, Any]]]]
"""Reads the official folder or file of a corpus, and a part of it or "" for the usual one: split → rows."""
Layouts = Mapping[str, Layout]
OFFICIAL = re.compile(r"(?P<layout>\w+)(/(?P<part>[^:]*))?:(?P<folder>.+)")
"""`librispeech/train-clean-100+dev-clean:/data/LibriSpeech`."""


class Rows:
    """One split: columns by name, rows by number, and how to name a row in a message.

    Attributes:
        fingerprint: changes whenever the file or the selection of rows does.
        numbers: (rows,) place of each row in the source, for messages; None for all of it.
        parts: number of the first row of each file and its name, where there are several.
        beside: more columns, which are kept elsewhere.
    """

    def __init__(
        self,
        table: Dataset,
        name: str,
        fingerprint: str = "",
        numbers: Sequence[int] | Places | None = None,
        parts: Sequence[tuple[int, str]] = (),
        beside: Mapping[str, Column] | None = None,
    ) -> None:
        self.table, self.name, self.fingerprint = table, name, fingerprint
        self.parts = parts
        self.numbers = None if numbers is None else np.asarray(numbers)
        self.beside = dict(beside or {})
        self._columns: dict[str, list[Any]] = {}

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.table[index]

    @property
    def columns(self) -> list[str]:
        return [*self.table.column_names, *self.beside]

    def expect(self, name: str) -> None:
        """Raises UserError unless there is such a column."""
        if name not in self.columns:
            separated = suffix_of(Path(self.name)) in (".csv", ".tsv")
            hint = " Of a file without a header: --data.header false; --data.delimiter says what separates columns."
            raise UserError(f"{self.name} has no column {name!r}.{nearest(name, self.columns)}{hint * separated}")

    def column(self, name: str) -> list[Any]:
        """All values of a column, read once; one that is kept beside the table is read as it is asked for."""
        if name in self.beside:
            return cast("list[Any]", self.beside[name])
        self.expect(name)
        if name not in self._columns:
            self._columns[name] = list(self.values(name))
        return self._columns[name]

    def values(self, name: str, start: int = 0) -> Iterator[Any]:
        """Values of a column one after the other, from row `start` on; a thousand, or 16 MB, at a time in memory."""
        self.expect(name)
        table = self.table.select_columns(name)
        size = max(1, min(1000, HELD * len(table.data) // max(1, table.data.nbytes)))
        for first in range(start, len(self), size):
            last = min(first + size, len(self))
            try:
                yield from table[first:last][name]
            except UnicodeDecodeError:
                raise UserError(
                    f"{self.name}, rows {first + 1} to {last}: one holds text that is not UTF-8; convert it."
                ) from None

    def label_names(self, name: str) -> list[str] | None:
        """Names of a `ClassLabel` column, or of a list of them; None for other columns."""
        feature: Any = self.table.features.get(name)
        feature = getattr(feature, "feature", feature)
        return list(feature.names) if hasattr(feature, "names") else None

    def where(self, index: int) -> str:
        number, name = int(index if self.numbers is None else self.numbers[index]), self.name
        if self.parts:
            first, name = self.parts[bisect_right(self.parts, number, key=lambda part: part[0]) - 1]
            number -= first
        return f"{name}, row {number + 1}"

    def take(self, indices: Sequence[int] | Places) -> Rows:
        places = np.asarray(indices, np.int64)
        digest = hashlib.sha256(self.fingerprint.encode() + places.tobytes()).hexdigest()[:16]
        numbers = places if self.numbers is None else self.numbers[places]
        beside = {name: column.take(places) for name, column in self.beside.items()}
        return Rows(self.table.select(places), self.name, digest, numbers, self.parts, beside)

    def with_column(self, name: str, column: Column) -> Rows:
        """These rows with one more column, which is kept elsewhere."""
        beside = self.beside | {name: column}
        return Rows(self.table, self.name, self.fingerprint, self.numbers, self.parts, beside)


Opened = tuple[Any, str, Sequence[tuple[int, str]]]
"""A split as read: its table, its name, and its parts as of `Rows`."""


def open_source(
    source: str | None,
    folder_reader: FolderReader | None = None,
    media: str | None = None,
    names: Names | None = None,
    form: Form = PLAIN,
    given: Mapping[str, str] | None = None,
    layouts: Layouts | None = None,
) -> dict[str, Rows]:
    """Opens every split of a source.

    Args:
        source: `samples:NAME`, `hf:NAME` or `hf:NAME/CONFIG`, `LAYOUT:FOLDER` or `LAYOUT/PART:FOLDER`, a parquet,
            jsonl or csv file, a folder of them named after their split, or a folder of media files (with `train`,
            `validation`, `test` inside, or none of them); None: only what is given.
        folder_reader: lists a folder of media files.
        media: name of the image or audio column, kept as encoded bytes.
        names: what the splits are called there, instead of train, validation (or dev, ...) and test.
        form: of csv and tsv files.
        given: split → a file or folder of its own, instead of what the source has for it.
        layouts: official layouts by name.

    Returns:
        split → rows; a source without splits is `train`.

    Raises:
        UserError: it does not exist, is empty, or cannot be read.
    """
    given, layouts = given or {}, layouts or {}
    official = OFFICIAL.fullmatch(source or "")
    state = ""
    opened: dict[str, Opened] = {}
    if source is None:
        pass
    elif source.startswith("samples:"):
        opened = _samples(source.removeprefix("samples:"))
    elif source.startswith("hf:"):
        opened = _hub(source.removeprefix("hf:"), names or ALIASES)
        state = "|".join(_hub_state(table) for table, _, _ in opened.values())
    elif official and official["layout"] in layouts:
        path = Path(official["folder"]).expanduser()
        opened = _official(source, path, official["part"], layouts[official["layout"]])
        state = _state(path, [table for table, _, _ in opened.values()], media)
    else:
        path = Path(source).expanduser()
        if not path.exists():
            hint = f" Did you mean samples:{source}?" if (SAMPLES / source).is_dir() else ""
            hint = hint or (nearest(official["layout"], layouts) if official else "")
            raise UserError(f"No data at {source!r}.{hint}")
        if not path.is_file() and not path.is_dir():
            raise UserError(f"{source} is neither a file nor a folder.")
        reader = folder_reader or each_row
        opened = _file(path, reader, form) if path.is_file() else _folder(path, folder_reader, names, form, given)
        state = f"{_state(path, [t for t, _, _ in opened.values()], media)}|{form}"
    splits = {
        split: Rows(_undecoded(table), name, f"{name}|{len(table)}|{_stamp(table)}|{state}", parts=parts)
        for split, (table, name, parts) in opened.items()
        if split not in given
    }
    for split, place in given.items():
        inside = open_source(place, folder_reader, media, None, form, layouts=layouts)
        if split not in inside and len(inside) > 1:
            raise UserError(f"{place}, given for the split {split}, has the splits {', '.join(inside)}; name one file.")
        splits[split] = inside.get(split) or next(iter(inside.values()))
    if not splits or all(len(rows) == 0 for rows in splits.values()):
        raise UserError(f"{source or ', '.join(given.values())} holds no samples.")
    return splits


def _stamp(table: Dataset) -> str:
    """A hash of the columns that are small: cheap. `_state` and `_hub_state` tell whether large ones changed."""
    digest = hashlib.sha256()
    for name in table.column_names:
        column = table.data.column(name)
        if column.nbytes < STAMPED:
            for buffer in (b for chunk in column.chunks for b in chunk.buffers() if b is not None):
                digest.update(buffer)
    return digest.hexdigest()[:16]


def _state(place: Path, tables: list[Dataset], media: str | None) -> str:
    """A hash of the names, sizes and times of a local source's files: changes whenever one of them does.

    Args:
        place: of the source.
        tables: those it has; the files they name count too, wherever they lie.
        media: name of the column that names files.
    """
    files = {str(path) for path in (files_below(place) if place.is_dir() else [place])}
    files.update(path for table in tables if media in table.column_names for path in _named_files(table, media))
    digest = hashlib.sha256()
    for path in sorted(files):
        try:
            stat = os.stat(path)
        except OSError:  # a row that names no file is reported when it is read
            continue
        digest.update(os.fsencode(path) + f"|{stat.st_size}|{stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def _named_files(table: Dataset, media: str | None) -> set[str]:
    """The files that a column of {"bytes", "path"} names and does not hold."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = table.data.column(media)
    if not pa.types.is_struct(column.type) or not {"bytes", "path"} <= {field.name for field in column.type}:
        return set()
    outside = pc.is_null(pc.struct_field(column, "bytes"))
    return set(pc.struct_field(column, "path").filter(outside).drop_null().to_pylist())


def _hub_state(table: Dataset) -> str:
    """What `datasets` names a table by (data set, configuration, revision, split), and the files it was prepared in.

    The files' sizes and times tell a table that was prepared again under the same name.
    """
    files = [Path(file["filename"]).stat() for file in table.cache_files]
    return "|".join([table._fingerprint, *(f"{stat.st_size}|{stat.st_mtime_ns}" for stat in files)])


def _datasets() -> Any:
    import datasets

    datasets.disable_progress_bars()
    logging.getLogger("datasets").setLevel(logging.ERROR)
    return datasets


def _undecoded(table: Dataset) -> Dataset:
    """Keeps images and audio as {"bytes", "path"}: we decode, and know which row failed."""
    for name, feature in table.features.items():
        if hasattr(feature, "decode"):
            table = table.cast_column(name, type(feature)(decode=False))
    return table


def _table(path: Path, reader: FolderReader, form: Form, large: bool) -> Dataset:
    """Reads a file or a folder.

    Raises:
        UserError: it is of an unknown kind, or broken.
    """
    suffix = suffix_of(path)
    kind = "text" if suffix == ".txt" or path.is_dir() else TABLES.get(suffix)
    packed = path.suffix == ".gz"
    if kind is None or (kind == "parquet" and packed):
        raise UserError(f"{path}: cannot read {path.suffix or 'this'} files as a table; use {', '.join(TABLES)}.")
    try:
        if kind == "parquet":
            keep: Any = {"cache_dir": str(tables_folder())} if large else {"keep_in_memory": True}
            return _datasets().Dataset.from_parquet(str(path), **keep)
        return _read(path, each_text if path.is_file() and kind == "text" else reader, form, large)
    except UserError:
        raise
    except Exception as error:  # one library, many errors
        cause = error.__cause__ or error
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS):
            raise UserError(f"The copy that is made of {path} could not be written: {cause.strerror}.") from error
        raise UserError(f"{path} cannot be read as {kind}: {' '.join(str(cause).split())[:200]}") from error


def _read(place: Path, reader: FolderReader, form: Form, large: bool) -> Dataset:
    found, dataset = reader(place, form), _datasets().Dataset
    if isinstance(found, dict):
        return dataset.from_dict(found)
    if large:
        return mapped(lambda: reader(place, form), f"{_state(place, [], None)}-{_key(form)}")  # type: ignore[arg-type, return-value]
    return dataset.from_dict(columns_of(list(found)))


def _key(form: Form) -> str:
    return hashlib.sha256(str(form).encode()).hexdigest()[:8]


def _is_large(paths: Iterable[Path]) -> bool:
    """Whether files are large together; packed ones grow about fivefold."""
    return sum(path.stat().st_size * (5 if path.suffix == ".gz" else 1) for path in paths) > LARGE


def each_text(path: Path, form: Form = PLAIN) -> Iterator[Row]:
    """The documents of a text file as rows."""
    return ({"text": document} for document in read_documents(path))


def _read_splits(named: Mapping[str, list[Path]], reader: FolderReader, form: Form = PLAIN) -> dict[str, Opened]:
    """Reads the files of each split, or its folder."""
    paths = [path for found in named.values() for path in found]
    large = _is_large(file for path in paths for file in (files_below(path) if path.is_dir() else [path]))
    return {split: _joined(found, [_table(p, reader, form, large) for p in found]) for split, found in named.items()}


def _joined(paths: list[Path], tables: list[Dataset]) -> Opened:
    """One table of several, and where each begins."""
    if len(tables) == 1:
        return tables[0], str(paths[0]), ()
    try:
        table = _datasets().concatenate_datasets(tables)
    except Exception as error:  # one library, many errors
        raise UserError(
            f"{paths[0]} and the files numbered after it have other columns: {' '.join(str(error).split())[:200]}"
        ) from error
    firsts = np.cumsum([0, *map(len, tables)]).tolist()
    return table, str(paths[0]), list(zip(firsts, map(str, paths), strict=False))


def _official(source: str, folder: Path, part: str | None, layout: Layout) -> dict[str, Opened]:
    if not folder.exists():
        raise UserError(f"{source}: there is no {folder}.")
    splits = {split: rows for split, rows in layout(folder, part or "").items() if rows}
    tables = {split: _datasets().Dataset.from_dict(columns_of(rows)) for split, rows in splits.items()}
    return {split: (table, f"{source}, {split}", ()) for split, table in tables.items()}


def _samples(name: str) -> dict[str, Opened]:
    known = [p.name for p in SAMPLES.iterdir() if p.is_dir() and any(p.glob("*.parquet"))]
    if name not in known:
        raise UserError(f"No embedded data {name!r}.{nearest(name, known)}")
    opened = _read_splits(find_splits(SAMPLES / name, Kinds(TABLES, (), False)), each_row)
    return {split: (table, f"samples:{name}, {split}", ()) for split, (table, *_) in opened.items()}


def _hub(name: str, names: Names) -> dict[str, Opened]:
    datasets = _datasets()
    parts = name.split("/")
    repository, config = ("/".join(parts[:2]), "/".join(parts[2:]) or None) if len(parts) > 1 else (name, None)
    try:
        loaded = datasets.load_dataset(repository, config)
    except Exception as error:
        raise UserError(
            f"The hub data set {name!r} could not be loaded: {' '.join(str(error).split())[:200]}"
        ) from error
    found = {s: next((a for a in names[s] if a in loaded), None) for s in names}
    return {s: (loaded[a], f"hf:{name}, {a}", ()) for s, a in found.items() if a}


def _file(path: Path, reader: FolderReader, form: Form) -> dict[str, Opened]:
    return _read_splits({"train": [path]}, reader, form)


def _folder(
    path: Path, reader: FolderReader | None, names: Names | None, form: Form, given: Mapping[str, str]
) -> dict[str, Opened]:
    if isinstance(reader, Media):
        kinds = Kinds(TABLES, reader.extensions, True)
    else:
        kinds = Kinds((*TABLES, ".txt"), (".txt",), False)
    named = find_splits(path, kinds, names, given)
    if not named and not given and reader is None:
        raise UserError(f"{path} has no tables named after splits (train.jsonl, test.parquet, ...).")
    if not named and "train" in given:
        return {}
    return _read_splits(named or {"train": [path]}, reader or each_row, form)
