"""VoxCeleb1 (Nagrani et al. 2017, arXiv:1706.08612)."""

from __future__ import annotations

from pathlib import Path

from ssl_suite.core.errors import UserError
from ssl_suite.data.common.lists import Splits, lines, options
from ssl_suite.data.speech.layouts.lists import audio

LISTS = "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/meta/"
SPLIT_OF = {"1": "train", "2": "validation", "3": "test"}
HELD = 40
"""Of so many speakers that are not in the trials, one is for validation."""


def voxceleb1(folder: Path, part: str) -> Splits:
    """Rows of `id` (id10001/1zcIwhmdeo4/00001.wav), `audio` and `speaker`.

    Args:
        folder: with wav/, or dev/wav/ and test/wav/, and the official list.
        part: `verification`: test is what veri_test.txt poses trials of, training all other speakers but one in
            forty, who are for validation; empty: identification, by iden_split.txt.
    """
    places = [p for p in (folder / "wav", folder / "dev" / "wav", folder / "test" / "wav") if p.is_dir()] or [folder]
    verification = bool(options(part, ("verification", "identification"), "voxceleb1") & {"verification"})
    table = folder / ("veri_test.txt" if verification else "iden_split.txt")
    if not table.is_file():
        raise UserError(f"{table} is not there; fetch it from {LISTS}{table.name}.")
    return _verification(places, table) if verification else _identification(places, table)


def _identification(places: list[Path], table: Path) -> Splits:
    splits: Splits = {split: [] for split in SPLIT_OF.values()}
    for where, line in lines(table):
        code, _, name = line.partition(" ")
        if code not in SPLIT_OF or not name:
            raise UserError(f"{where}: {line[:60]!r} is not `1`, `2` or `3` and a file.")
        splits[SPLIT_OF[code]].append(_row(places, name, where))
    return splits


def _verification(places: list[Path], table: Path) -> Splits:
    posed: dict[str, str] = {}
    for where, line in lines(table):
        same, *pair = line.split()
        if same not in ("0", "1") or len(pair) != 2:
            raise UserError(f"{where}: {line[:60]!r} is no trial; one is `1` or `0` and two files.")
        for name in pair:
            posed.setdefault(name, where)
    tested = {name.split("/")[0] for name in posed}
    paths = {path.relative_to(place).as_posix() for place in places for path in place.glob("*/*/*.wav")}
    names = sorted(name for name in paths if name.split("/")[0] not in tested)
    held = set(sorted({name.split("/")[0] for name in names})[::HELD])
    splits: Splits = {"train": [], "validation": [], "test": []}
    for name in names:
        splits["validation" if name.split("/")[0] in held else "train"].append(_row(places, name, str(table)))
    splits["test"] = [_row(places, name, where) for name, where in posed.items()]
    return splits


def _row(places: list[Path], name: str, where: str) -> dict[str, object]:
    path = next((place / name for place in places if (place / name).is_file()), places[0] / name)
    return {"id": name, "audio": audio(path, where), "speaker": name.split("/")[0]}
