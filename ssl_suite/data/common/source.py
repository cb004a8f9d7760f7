"""Opening a source: embedded samples, parquet, jsonl, csv, a folder, or a hub data set, all as `datasets.Dataset`."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ssl_suite.core.errors import UserError, nearest
from ssl_suite.data.common.arrow import HELD, Row, mapped, tables_folder
from ssl_suite.data.common.files import columns_of, each_row, read_documents

if TYPE_CHECKING:
    from datasets import Dataset

SPLITS = ("train", "validation", "test")
ALIASES = {"validation": ("validation", "valid", "val", "dev"), "train": ("train", "training"), "test": ("test",)}
LARGE = 50_000_000
"""Bytes of files above which they are not read into memory but mapped, from a copy in the cache folder."""
STAMPED = 50_000_000
"""Bytes below which a column is hashed whole."""
TABLES = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv"}
TABLES |= dict.fromkeys((".conllu", ".conll", ".bio", ".iob", ".iob2"), "CoNLL")  # read by Text
SAMPLES = Path(__file__).parent.parent / "samples"

FolderReader = Callable[[Path], dict[str, list[Any]] | Iterator[Row]]
"""A modality's way to read a table, or a folder of files: column → values, or, of what may be large, row after row."""

Places = NDArray[np.int64]

Names = Mapping[str, tuple[str, ...]]
"""Split → what it may be called; the first that is there is taken."""


class Rows:
    """One split: columns by name, rows by number, and how to name a row in a message.

    Attributes:
        fingerprint: changes whenever the file or the selection of rows does.
        numbers: (rows,) place of each row in the source, for messages; None for all of it.
    """

    def __init__(
        self, table: Dataset, name: str, fingerprint: str = "", numbers: Sequence[int] | Places | None = None
    ) -> None:
        self.table, self.name, self.fingerprint = table, name, fingerprint
        self.numbers = None if numbers is None else np.asarray(numbers)
        self._columns: dict[str, list[Any]] = {}

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.table[index]

    @property
    def columns(self) -> list[str]:
        return self.table.column_names

    def expect(self, name: str) -> None:
        """Raises UserError unless there is such a column."""
        if name not in self.columns:
            raise UserError(f"{self.name} has no column {name!r}.{nearest(name, self.columns)}")

    def column(self, name: str) -> list[Any]:
        """All values of a column, read once."""
        self.expect(name)
        if name not in self._columns:
            self._columns[name] = list(self.table[name])
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
        return f"{self.name}, row {(index if self.numbers is None else self.numbers[index]) + 1}"

    def take(self, indices: Sequence[int] | Places) -> Rows:
        places = np.asarray(indices, np.int64)
        digest = hashlib.sha256(self.fingerprint.encode() + places.tobytes()).hexdigest()[:16]
        numbers = places if self.numbers is None else self.numbers[places]
        return Rows(self.table.select(places), self.name, digest, numbers)


def open_source(
    source: str, folder_reader: FolderReader | None = None, media: str | None = None, names: Names | None = None
) -> dict[str, Rows]:
    """Opens every split of a source.

    Args:
        source: `samples:NAME`, `hf:NAME` or `hf:NAME/CONFIG`, a parquet, jsonl or csv file, a folder of them named
            after their split, or a folder of media files (with `train`, `validation`, `test` inside, or none of them).
        folder_reader: lists a folder of media files.
        media: name of the image or audio column, kept as encoded bytes.
        names: what the splits are called there, instead of train, validation (or dev, ...) and test.

    Returns:
        split → rows; a source without splits is `train`.

    Raises:
        UserError: it does not exist, is empty, or cannot be read.
    """
    state = ""
    if source.startswith("samples:"):
        opened = _samples(source.removeprefix("samples:"))
    elif source.startswith("hf:"):
        opened = _hub(source.removeprefix("hf:"), names or ALIASES)
        state = "|".join(_hub_state(table) for table, _ in opened.values())
    else:
        path = Path(source).expanduser()
        if not path.exists():
            hint = f" Did you mean samples:{source}?" if (SAMPLES / source).is_dir() else ""
            raise UserError(f"No data at {source!r}.{hint}")
        opened = _file(path, folder_reader) if path.is_file() else _folder(path, folder_reader, names)
        state = _state(path, [t for t, _ in opened.values()], media)
    splits = {
        split: Rows(_undecoded(table, media), name, f"{name}|{len(table)}|{_stamp(table)}|{state}")
        for split, (table, name) in opened.items()
    }
    if not splits or all(len(rows) == 0 for rows in splits.values()):
        raise UserError(f"{source} holds no samples.")
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
    """A hash of the names, sizes and times of a local source's files: changes whenever one of them does."""
    files = set(place.rglob("*")) if place.is_dir() else {place}
    for table in tables:
        if place.is_file() and media in table.column_names and table.data.column(media).nbytes < STAMPED:
            files |= {Path(v["path"]) for v in table[media] if isinstance(v, dict) and v.get("bytes") is None}
    digest = hashlib.sha256()
    for path in sorted(p for p in files if p.is_file()):
        stat = path.stat()
        digest.update(f"{path}|{stat.st_size}|{stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


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


def _undecoded(table: Dataset, media: str | None) -> Dataset:
    """Keeps an image or audio column as {"bytes", "path"}: we decode, and know which row failed."""
    if media is None or media not in table.column_names:
        return table
    feature = table.features[media]
    return table.cast_column(media, type(feature)(decode=False)) if hasattr(feature, "decode") else table


def _table(path: Path, reader: FolderReader, large: bool) -> Dataset:
    kind = TABLES.get(path.suffix)
    if kind is None:
        raise UserError(f"{path}: cannot read {path.suffix or 'this'} files as a table; use {', '.join(TABLES)}.")
    try:
        if kind != "parquet":
            return _read(path, reader, large)
        if large:
            return _datasets().Dataset.from_parquet(str(path), cache_dir=str(tables_folder()))
        return _datasets().Dataset.from_parquet(str(path), keep_in_memory=True)
    except UserError:
        raise
    except Exception as error:  # one library, many errors
        cause = error.__cause__ or error
        raise UserError(f"{path} cannot be read as {kind}: {' '.join(str(cause).split())[:200]}") from error


def _read(place: Path, reader: FolderReader, large: bool) -> Dataset:
    found, dataset = reader(place), _datasets().Dataset
    if isinstance(found, dict):
        return dataset.from_dict(found)
    if large:
        return mapped(lambda: reader(place), _state(place, [], None))  # type: ignore[arg-type, return-value]
    return dataset.from_dict(columns_of(list(found)))


def _is_large(paths: Iterable[Path]) -> bool:
    return sum(path.stat().st_size for path in paths if path.is_file()) > LARGE


def each_text(path: Path) -> Iterator[Row]:
    """The documents of a text file as rows."""
    return ({"text": document} for document in read_documents(path))


def _named_tables(folder: Path, names: Names | None = None) -> dict[str, list[Path]]:
    """split → table files named after it."""
    files = sorted(p for p in folder.iterdir() if p.suffix in TABLES and p.is_file())
    if names is not None:
        named = {s: [[p for p in files if name in (p.stem, p.stem.split("-")[0])] for name in names[s]] for s in names}
        return {s: found for s, choices in named.items() if (found := next(filter(None, choices), []))}
    return {s: found for s in SPLITS if (found := [p for p in files if split_named(p) == s])}


def split_named(path: Path) -> str | None:
    """The split a file is named after: `dev-v1.1.json`, `cmrc2018_train.json`, `en_ewt-ud-dev.conllu`."""
    parts = re.split(r"[-_.]", path.stem)
    return next((s for part in (parts[0], parts[-1]) for s in SPLITS if part in ALIASES[s]), None)


def _read_tables(named: dict[str, list[Path]], reader: FolderReader | None = None) -> dict[str, tuple[Dataset, str]]:
    large = _is_large(path for paths in named.values() for path in paths)
    tables = {split: [_table(p, reader or each_row, large) for p in paths] for split, paths in named.items()}
    join = _datasets().concatenate_datasets
    return {s: (join(t) if len(t) > 1 else t[0], str(named[s][0])) for s, t in tables.items()}


def _samples(name: str) -> dict[str, tuple[Dataset, str]]:
    known = [p.name for p in SAMPLES.iterdir() if p.is_dir() and any(p.glob("*.parquet"))]
    if name not in known:
        raise UserError(f"No embedded data {name!r}.{nearest(name, known)}")
    return {s: (t, f"samples:{name}, {s}") for s, (t, _) in _read_tables(_named_tables(SAMPLES / name)).items()}


def _hub(name: str, names: Names) -> dict[str, tuple[Dataset, str]]:
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
    return {s: (loaded[a], f"hf:{name}, {a}") for s, a in found.items() if a}


def _file(path: Path, reader: FolderReader | None) -> dict[str, tuple[Dataset, str]]:
    large = _is_large([path])
    if path.suffix == ".txt":
        return {"train": (_read(path, each_text, large), str(path))}
    return {"train": (_table(path, reader or each_row, large), str(path))}


def _folder(path: Path, reader: FolderReader | None, names: Names | None) -> dict[str, tuple[Dataset, str]]:
    if named := _named_tables(path, names):
        return _read_tables(named, reader)
    inside = {s: d for s in SPLITS for a in ALIASES[s] if (d := path / a).is_dir()}
    if reader is None:
        raise UserError(f"{path} has no tables named after splits (train.jsonl, test.parquet, ...).")
    folders = inside or {"train": path}
    large = _is_large(path.rglob("*"))
    return {split: (_read(folder, reader, large), str(folder)) for split, folder in folders.items()}


def hold_out(splits: dict[str, Rows], share: float = 0.1) -> dict[str, Rows]:
    """Takes every tenth row (by a hash of its number) of `train` for validation where a source has none."""
    if "validation" in splits or "train" not in splits or len(splits["train"]) < 10:
        return splits
    train = splits["train"]
    hashes = (int(hashlib.md5(f"{i}".encode()).hexdigest(), 16) % 1000 for i in range(len(train)))
    chosen = np.fromiter((h < share * 1000 for h in hashes), bool, len(train))
    chosen[-1] |= not chosen.any()
    return {
        **splits,
        "train": train.take(np.flatnonzero(~chosen)),
        "validation": train.take(np.flatnonzero(chosen)),
    }
