"""Lhotse's cuts (arXiv:2110.12561): JSON lines of parts of recordings, with what is said in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ssl_suite.core.errors import UserError
from ssl_suite.data.common.files import each_row
from ssl_suite.data.common.lists import Splits, options
from ssl_suite.data.speech.layouts.lists import audio, located

SAID = ("text", "speaker", "language", "gender")


def lhotse(place: Path, part: str) -> Splits:
    """Rows of `id`, `audio`, `start`, `end`, and of `text`, `speaker`, `language` and `gender` where they are known.

    Args:
        place: a file of cuts of one recording each (MonoCut), .jsonl or .jsonl.gz, which is the training split.
        part: empty.
    """
    options(part, (), "lhotse")
    if not place.is_file():
        raise UserError(f"{place} is no file of cuts; name one, and others with --data.validation and --data.test.")
    return {"train": [_row(cut, f"{place}, line {n}", place.parent) for n, cut in enumerate(each_row(place), 1)]}


def _row(cut: dict[str, Any], where: str, folder: Path) -> dict[str, Any]:
    try:
        recording, start, seconds = cut["recording"], float(cut["start"]), float(cut["duration"])
        (source,) = recording["sources"]
        lasts, said = float(recording["duration"]), cut.get("supervisions") or []
        kind, path = source["type"], str(source["source"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{where} is no cut of one recording with one file ({type(error).__name__}: {error})."
        ) from None
    if kind != "file":
        raise UserError(f"{where}: its recording is a {kind}, which is never fetched or run; save it as a file first.")
    if len(said) > 1:
        raise UserError(f"{where}: the cut has {len(said)} supervisions; cut it to them, by trim_to_supervisions.")
    whole = start == 0 and abs(seconds - lasts) < 0.01
    row = {"id": cut.get("id"), "audio": audio(located(path, folder), where)}
    row |= {"start": None if whole else start, "end": None if whole else start + seconds}
    return row | {name: said[0][name] for name in SAID if said and said[0].get(name) is not None}
