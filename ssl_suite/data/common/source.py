"""Opening a source: embedded samples, parquet, jsonl, csv, a folder, or a hub data set, all as `datasets.Dataset`."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_suite.core.errors import UserError, nearest

if TYPE_CHECKING:
    from datasets import Dataset

SPLITS = ("train", "validation", "test")
ALIASES = {"validation": ("validation", "valid", "val", "dev"), "train": ("train", "training"), "test": ("test",)}
TABLES = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv"}
SAMPLES = Path(__file__).parent.parent / "samples"

FolderReader = Callable[[Path], "dict[str, list[Any]]"]
"""A modality's way to list a folder of media files, or the files a CSV names: column → values."""


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


def open_source(source: str, folder_reader: FolderReader | None = None, media: str | None = None) -> dict[str, Rows]:
    """Opens every split of a source.

    Args:
        source: `samples:NAME`, `hf:NAME` or `hf:NAME/CONFIG`, a parquet, jsonl or csv file, a folder of them named
            after their split, or a folder of media files (with `train`, `validation`, `test` inside, or none of them).
        folder_reader: lists a folder of media files.
        media: name of the image or audio column, kept as encoded bytes.

    Returns:
        split → rows; a source without splits is `train`.

    Raises:
        UserError: it does not exist, is empty, or cannot be read.
    """
    state = ""
    if source.startswith("samples:"):
        opened = _samples(source.removeprefix("samples:"))
    elif source.startswith("hf:"):
        opened = _hub(source.removeprefix("hf:"))
    else:
        path = Path(source).expanduser()
        if not path.exists():
            hint = f" Did you mean samples:{source}?" if (SAMPLES / source).is_dir() else ""
            raise UserError(f"No data at {source!r}.{hint}")
        opened = _file(path, folder_reader) if path.is_file() else _folder(path, folder_reader)
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
            return datasets.Dataset.from_dict(reader(path) if reader else columns_of(read_rows(path)))
        return datasets.Dataset.from_parquet(str(path), keep_in_memory=True)
    except UserError:
        raise
    except Exception as error:  # one library, many errors
        cause = error.__cause__ or error
        raise UserError(f"{path} cannot be read as {kind}: {' '.join(str(cause).split())[:200]}") from error


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a csv, tsv, jsonl or json file; values of csv and tsv are text, and tsv knows no quotes (as GLUE's)."""
    text = read_utf8(path)
    if path.suffix in (".csv", ".tsv"):
        csv.field_size_limit(2**31 - 1)
        file = io.StringIO(text, newline="")
        if path.suffix == ".tsv":
            return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        return list(csv.DictReader(file))
    if path.suffix == ".json" and text.lstrip().startswith("["):
        rows = json.loads(text)
        places = [f"entry {i}" for i in range(1, len(rows) + 1)]
    else:
        lines = [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
        places, rows = [f"line {i}" for i, _ in lines], []
        for place, (_, line) in zip(places, lines, strict=True):
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise UserError(f"{path}, {place} is not JSON ({error}); mend or remove it.") from None
    for place, row in zip(places, rows, strict=True):
        if not isinstance(row, dict):
            raise UserError(f"{path}, {place} is not a JSON object with named columns.")
    return rows


def columns_of(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Rows → column → values, None where a row has none."""
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(k for row in rows for k in row if k)}


def read_utf8(path: Path) -> str:
    """Reads a text file, or names the line and byte that are not UTF-8."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line} is not UTF-8 (byte {error.start}); save the file as UTF-8.") from None


def _named_tables(folder: Path) -> dict[str, list[Path]]:
    """split → table files named after it."""
    files = sorted(p for p in folder.iterdir() if p.suffix in TABLES and p.is_file())
    return {s: found for s in SPLITS if (found := [p for p in files if split_named(p) == s])}


def split_named(path: Path) -> str | None:
    """The split a file is named after: `dev-v1.1.json`, `cmrc2018_train.json`."""
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


def _hub(name: str) -> dict[str, tuple[Dataset, str]]:
    datasets = _datasets()
    parts = name.split("/")
    repository, config = ("/".join(parts[:2]), "/".join(parts[2:]) or None) if len(parts) > 1 else (name, None)
    try:
        loaded = datasets.load_dataset(repository, config)
    except Exception as error:
        raise UserError(
            f"The hub data set {name!r} could not be loaded: {' '.join(str(error).split())[:200]}"
        ) from error
    found = {s: next((a for a in ALIASES[s] if a in loaded), None) for s in SPLITS}
    return {s: (loaded[a], f"hf:{name}, {a}") for s, a in found.items() if a}


def _file(path: Path, reader: FolderReader | None) -> dict[str, tuple[Dataset, str]]:
    if path.suffix == ".txt":
        return {"train": (_datasets().Dataset.from_dict({"text": read_lines(path)}), str(path))}
    return {"train": (_table(path, reader), str(path))}


def read_lines(path: Path) -> list[str]:
    """Documents of a text file: separated by empty lines where there are any, else one a line."""
    text = read_utf8(path)
    parts = text.split("\n\n") if "\n\n" in text.strip() else text.splitlines()
    return [p.strip() for p in parts if p.strip()]


def _folder(path: Path, reader: FolderReader | None) -> dict[str, tuple[Dataset, str]]:
    if named := _named_tables(path):
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
