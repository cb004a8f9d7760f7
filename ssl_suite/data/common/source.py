"""Opening a source: embedded samples, parquet, jsonl, csv, a folder, or a hub data set, all as `datasets.Dataset`."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_suite.core.errors import UserError, nearest
from ssl_suite.core.features import default_cache
from ssl_suite.data.common.files import columns_of, read_documents, read_rows

if TYPE_CHECKING:
    from datasets import Dataset

SPLITS = ("train", "validation", "test")
ALIASES = {"validation": ("validation", "valid", "val", "dev"), "train": ("train", "training"), "test": ("test",)}
LARGE = 200_000_000
"""Bytes above which a file of text is not read into memory but mapped, from a copy in the cache folder."""
TABLES = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv"}
TABLES |= dict.fromkeys((".conllu", ".conll", ".bio", ".iob", ".iob2"), "CoNLL")  # read by Text
SAMPLES = Path(__file__).parent.parent / "samples"

FolderReader = Callable[[Path], "dict[str, list[Any]] | Dataset"]
"""A modality's way to list a folder of media files, or the files a CSV names: column → values, or a table."""

Names = Mapping[str, tuple[str, ...]]
"""Split → what it may be called; the first that is there is taken."""


class Rows:
    """One split: columns by name, rows by number, and how to name a row in a message.

    Attributes:
        fingerprint: changes whenever the file or the selection of rows does.
        numbers: place of each row in the source, for messages; None for all of it.
    """

    def __init__(self, table: Dataset, name: str, fingerprint: str = "", numbers: list[int] | None = None) -> None:
        self.table, self.name, self.fingerprint, self.numbers = table, name, fingerprint, numbers
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

    def values(self, name: str, start: int = 0, size: int = 1000) -> Iterator[Any]:
        """Values of a column one after the other, from row `start` on; `size` at a time in memory."""
        self.expect(name)
        table = self.table.select_columns(name)
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
        return f"{self.name}, row {(self.numbers[index] if self.numbers else index) + 1}"

    def take(self, indices: list[int]) -> Rows:
        digest = hashlib.sha256(f"{self.fingerprint}{indices}".encode()).hexdigest()[:16]
        numbers = [self.numbers[i] for i in indices] if self.numbers else indices
        return Rows(self.table.select(indices), self.name, digest, numbers)


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
    """A hash of the columns that hold no media: cheap, and different for different data."""
    digest = hashlib.sha256()
    for name in table.column_names:
        column = table.data.column(name)
        if column.nbytes < 50_000_000:
            for buffer in (b for chunk in column.chunks for b in chunk.buffers() if b is not None):
                digest.update(buffer)
    return digest.hexdigest()[:16]


def _state(place: Path, tables: list[Dataset], media: str | None) -> str:
    """A hash of the names, sizes and times of a local source's files: changes whenever one of them does."""
    files = set(place.rglob("*")) if place.is_dir() else {place}
    for table in tables:
        if place.is_file() and media in table.column_names and table.data.column(media).nbytes < 50_000_000:
            files |= {Path(v["path"]) for v in table[media] if isinstance(v, dict) and v.get("bytes") is None}
    digest = hashlib.sha256()
    for path in sorted(p for p in files if p.is_file()):
        stat = path.stat()
        digest.update(f"{path}|{stat.st_size}|{stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


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


def _table(path: Path, reader: FolderReader | None = None) -> Dataset:
    kind = TABLES.get(path.suffix)
    if kind is None:
        raise UserError(f"{path}: cannot read {path.suffix or 'this'} files as a table; use {', '.join(TABLES)}.")
    datasets = _datasets()
    try:
        if kind != "parquet":
            read = (reader or read_table)(path)
            return read if isinstance(read, datasets.Dataset) else datasets.Dataset.from_dict(read)
        if path.stat().st_size > LARGE:
            return datasets.Dataset.from_parquet(str(path), cache_dir=_tables())
        return datasets.Dataset.from_parquet(str(path), keep_in_memory=True)
    except UserError:
        raise
    except Exception as error:  # one library, many errors
        cause = error.__cause__ or error
        raise UserError(f"{path} cannot be read as {kind}: {' '.join(str(cause).split())[:200]}") from error


def _tables() -> str:
    """Where tables are kept that stay on the disk; a file that changes gets another."""
    return str(default_cache() / "tables")


def read_table(path: Path) -> dict[str, list[Any]] | Dataset:
    """Columns of a csv, tsv, json or jsonl file; a large jsonl stays on the disk."""
    if path.suffix != ".jsonl" or path.stat().st_size <= LARGE:
        return columns_of(read_rows(path))
    try:
        return _datasets().Dataset.from_json(str(path), cache_dir=_tables())
    except Exception:
        read_rows(path)  # names the line
        raise


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
    tables = {split: [_table(p, reader) for p in paths] for split, paths in named.items()}
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
    if path.suffix == ".txt":
        dataset = _datasets().Dataset
        if path.stat().st_size > LARGE:
            changed = path.stat().st_mtime_ns
            table = dataset.from_generator(_texts, cache_dir=_tables(), gen_kwargs={"path": path, "changed": changed})
        else:
            table = dataset.from_dict({"text": list(read_documents(path))})
        return {"train": (table, str(path))}
    return {"train": (_table(path, reader), str(path))}


def _texts(path: Path, changed: int) -> Iterator[dict[str, str]]:
    for document in read_documents(path):
        yield {"text": document}


def _folder(path: Path, reader: FolderReader | None, names: Names | None) -> dict[str, tuple[Dataset, str]]:
    if named := _named_tables(path, names):
        return _read_tables(named, reader)
    inside = {s: d for s in SPLITS for a in ALIASES[s] if (d := path / a).is_dir()}
    if reader is None:
        raise UserError(f"{path} has no tables named after splits (train.jsonl, test.parquet, ...).")
    folders = inside or {"train": path}
    dataset = _datasets().Dataset
    return {split: (dataset.from_dict(reader(folder)), str(folder)) for split, folder in folders.items()}


def hold_out(splits: dict[str, Rows], share: float = 0.1) -> dict[str, Rows]:
    """Takes every tenth row (by a hash of its number) of `train` for validation where a source has none."""
    if "validation" in splits or "train" not in splits or len(splits["train"]) < 10:
        return splits
    train = splits["train"]
    n = len(train)
    chosen = {i for i in range(n) if int(hashlib.md5(f"{i}".encode()).hexdigest(), 16) % 1000 < share * 1000}
    chosen = chosen or {n - 1}
    kept = train.take([i for i in range(n) if i not in chosen])
    return {**splits, "train": kept, "validation": train.take(sorted(chosen))}
