"""Folders of media files: with a metadata.csv, with a subfolder a class, or just files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ssl_suite.core.errors import UserError
from ssl_suite.data.common.files import columns_of, read_rows

MANIFESTS = ("metadata.csv", "manifest.csv")
PATH_COLUMNS = ("file_name", "path", "file")


def list_media(place: Path, media: str, extensions: set[str]) -> dict[str, list[Any]]:
    """Lists a folder of media files, or the files a manifest names.

    A manifest names each file in a column `file_name`, `path` or `file`, relative to itself. Without one, and where all
    files lie in subfolders, the first subfolder's name is the column `label`.

    Args:
        place: a folder, or a manifest.
        media: name of the resulting column, `image` or `audio`.
        extensions: what to look for.

    Returns:
        column → values; `media` holds {"bytes": None, "path": ...}.

    Raises:
        UserError: there is no such file, no such column, or a row names a file that does not exist.
    """
    manifest = place if place.is_file() else next((place / m for m in MANIFESTS if (place / m).exists()), None)
    if manifest is not None:
        columns, paths = _read_manifest(manifest, media)
    else:
        paths = sorted(p for p in place.rglob("*") if p.suffix.lower() in extensions and p.is_file())
        if not paths:
            raise UserError(f"{place} holds no {media} files ({', '.join(sorted(extensions))}).")
        columns = {"id": [str(p.relative_to(place)) for p in paths]}
        parts = [p.relative_to(place).parts for p in paths]
        if all(len(part) > 1 for part in parts):
            columns["label"] = [part[0] for part in parts]
    return columns | {media: [{"bytes": None, "path": str(p)} for p in paths]}


def _read_manifest(manifest: Path, media: str) -> tuple[dict[str, list[Any]], list[Path]]:
    rows = read_rows(manifest)
    if not rows:
        raise UserError(f"{manifest} has no rows.")
    values = columns_of(rows)
    names = list(values)
    key = next((name for name in (*PATH_COLUMNS, media) if name in names), None)
    if key is None:
        raise UserError(f"{manifest} has no column {PATH_COLUMNS[0]!r}; it has {', '.join(names)}.")
    for number, row in enumerate(rows, 2):
        if not (manifest.parent / str(row.get(key))).is_file():
            raise UserError(f"{manifest}, row {number}: there is no file {row.get(key)!r}.")
    paths = [manifest.parent / name for name in values[key]]
    columns = {name: values[name] for name in names if name != key}
    columns.setdefault("id", values[key])
    return columns, paths
