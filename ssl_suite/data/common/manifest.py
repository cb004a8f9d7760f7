"""Folders of media files: with a metadata.csv, with a subfolder a class, or just files."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_warn

from ssl_suite.core.errors import BadItem, UserError
from ssl_suite.data.common.files import PLAIN, Form, columns_of, read_rows
from ssl_suite.data.common.layout import MANIFESTS
from ssl_suite.data.common.walk import files_below, printable

PATH_COLUMNS = ("file_name", "path", "file", "audio_filepath")
"""The last is NeMo's."""


@dataclass(frozen=True)
class Media:
    """Reads a folder of media files, or the files a manifest names.

    A manifest names each file in a column `file_name`, `path`, `file` or `audio_filepath`, relative to itself; a column
    of which every cell names such a file is one of media too: the clean voice in a noisy one, a mask. Without a
    manifest, and where files lie in subfolders, the first subfolder's name is the column `label`; a few files beside
    them, which have none, are named and left out.

    Attributes:
        name: of the resulting column, `image` or `audio`; it holds {"bytes": None, "path": ...}.
        extensions: what to look for.
        others: extensions of such files that are not read, but counted and named.
        remedy: what to do about those.
    """

    name: str
    extensions: frozenset[str]
    others: frozenset[str] = frozenset()
    remedy: str = "convert them"

    def __call__(self, place: Path, form: Form = PLAIN) -> dict[str, list[Any]]:
        """Returns column → values.

        Args:
            place: a folder, or a manifest.
            form: of the manifest.

        Raises:
            UserError: there is no such file, no such column, or a row names a file that does not exist.
        """
        manifest = place if place.is_file() else next((place / m for m in MANIFESTS if (place / m).exists()), None)
        if manifest is not None:
            columns, paths = _read_manifest(manifest, self.name, form)
            columns = {k: v if k == "id" else self._media(manifest.parent, v) for k, v in columns.items()}
        else:
            paths = self._paths(place)
            columns = {"id": [str(p.relative_to(place)) for p in paths]}
            if place not in {p.parent for p in paths}:
                columns["label"] = [p.relative_to(place).parts[0] for p in paths]
        for path in paths:
            try:
                str(path).encode()
            except UnicodeEncodeError:
                raise UserError(f"{printable(path)}: the file's name is not UTF-8; rename it.") from None
        return columns | {self.name: [{"bytes": None, "path": str(p)} for p in paths]}

    def _media(self, folder: Path, values: list[Any]) -> list[Any]:
        """A column, as files where every cell names one."""
        named = [folder / value if isinstance(value, str) else folder for value in values]
        files = all(path.suffix.lower() in self.extensions and path.is_file() for path in named)
        return [{"bytes": None, "path": str(path)} for path in named] if files else values

    def _paths(self, folder: Path) -> list[Path]:
        """The files below a folder: those in its subfolders, or all where most lie in itself."""
        kinds: dict[str, list[Path]] = {}
        for path in files_below(folder):
            kinds.setdefault(path.suffix.lower(), []).append(path)
        paths = sorted(path for kind, found in kinds.items() if kind in self.extensions for path in found)
        unread = Counter({kind: len(found) for kind, found in kinds.items() if kind in self.others})
        said = ", ".join(f"{n} {kind}" for kind, n in sorted(unread.items()))
        if not paths:
            there = f"; it has {said}, which are not read: {self.remedy}" if said else ""
            raise UserError(f"{folder} holds no {self.name} files ({', '.join(sorted(self.extensions))}){there}.")
        if said:
            rank_zero_warn(f"{folder}: passed over {said}: such files are not read, {self.remedy}.")
        beside = [path for path in paths if path.parent == folder]
        if not 0 < len(beside) < len(paths) / 2:
            return paths
        more = f" and {len(beside) - 1} more" if len(beside) > 1 else ""
        rank_zero_warn(f"{folder}: left out, beside the folders that are classes: {beside[0].name}{more}.")
        return [path for path in paths if path.parent != folder]


def encoded(value: Any, where: str) -> tuple[str, Path | bytes]:
    """What a row has of a media file: how to name it, and its bytes, or the path of a file that is there.

    Args:
        value: of the column: {"bytes", "path"}.
        where: the row.

    Raises:
        BadItem: it has neither, or the file is not there.
    """
    data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (None, None)
    if isinstance(data, bytes):
        return where, data
    if data is not None or not isinstance(path, str):
        raise BadItem(f"{where} holds {repr(value)[:60]}, no file and no bytes of one; mend it, or set on_error: skip.")
    if not Path(path).is_file():  # no pipe or device either
        raise BadItem(f"{path} does not exist.")
    return path, Path(path)


def _read_manifest(manifest: Path, media: str, form: Form) -> tuple[dict[str, list[Any]], list[Path]]:
    rows = read_rows(manifest, form)
    if not rows:
        raise UserError(f"{manifest} has no rows.")
    values = columns_of(rows)
    names = list(values)
    key = next((name for name in (*PATH_COLUMNS, media) if name in names), None)
    if key is None:
        raise UserError(f"{manifest} has no column {PATH_COLUMNS[0]!r}; it has {', '.join(names)}.")
    for number, row in enumerate(rows, 1):
        if not (manifest.parent / str(row.get(key))).is_file():
            raise UserError(f"{manifest}, row {number}: there is no file {row.get(key)!r}.")
    paths = [manifest.parent / name for name in values[key]]
    columns = {name: values[name] for name in names if name != key}
    columns.setdefault("id", values[key])
    return columns, paths
