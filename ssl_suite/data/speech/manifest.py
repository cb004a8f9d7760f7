"""`ssl-suite prepare manifest`: what a source of speech has, as tables with the seconds of each recording.

Every file is read once, by several processes; what was found of it is kept beside the tables, so that a scan that was
stopped goes on where it was, and one of a folder that grew reads what is new.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ssl_suite.core.check import within
from ssl_suite.core.errors import BadItem, UserError
from ssl_suite.core.files import write_text
from ssl_suite.core.pace import told
from ssl_suite.data.common.source import Rows, open_source
from ssl_suite.data.speech.layouts.official import LAYOUTS
from ssl_suite.data.speech.reading import RATE, list_audio, load_audio, measured
from ssl_suite.data.speech.segments import BEGIN, END, LENGTH, SECONDS, path_of, utterances

SCAN, BROKEN, REMARKS = ".scan.jsonl", "broken.txt", "remarks.txt"
BEYOND, CLIPPED, FLAT = 1.5, 0.99, 0.005
"""Louder than 1.5 no file of whole numbers is, resampled or not. A recording is clipped of which more than 0.5 % lies
within a hundredth of its greatest value: of 200 prompts at most 0.04 %, and, of most that were played twice as loud as
there is room for, 1 % or more. Of a pure tone 9 % does, which is no speech."""
CHUNK = 32
"""Files that a process is given at once."""


@dataclass(frozen=True)
class Found:
    """What a file is: how long, or why it cannot be read; what is odd about it; whether all of it was decoded.

    `size` and `time` tell whether it has changed since.
    """

    path: str
    size: int
    time: int
    seconds: float
    reason: str = ""
    remark: str = ""
    decoded: bool = True


def prepare_manifest(
    source: str, out: Path, column: str = "audio", headers: bool = False, workers: int = 0
) -> list[str]:
    """Writes a table for each split of a source: `path`, `seconds`, and what else is known of a recording.

    Recordings that cannot be read are left out, and named in broken.txt with the reason; those that are clipped, silent
    or beyond all scale stay, and are named in remarks.txt.

    Args:
        source: as `Speech.source`.
        out: folder; it is a source itself then, whose recordings need not be opened to know how long they are.
        column: of the audio.
        headers: believe what a file says of itself, instead of decoding all of it.
        workers: processes that read; 0: this one.

    Returns:
        lines of a summary.

    Raises:
        UserError: there is no such source, it has its audio inside tables, or nothing can be read.
    """
    within("--workers", workers, low=0, whole=True)
    splits = open_source(source, list_audio, column, layouts=LAYOUTS)
    for rows in splits.values():
        rows.expect(column)
        if any(path_of(value) is None for value in rows.column(column)):
            raise UserError(
                f"{rows.name} has its audio inside, which no table of paths can name; train on it as it is."
            )
    paths = list(dict.fromkeys(str(path_of(v)) for rows in splits.values() for v in rows.column(column)))
    out.mkdir(parents=True, exist_ok=True)
    found = scanned(paths, out / SCAN, headers, workers)
    broken = [found[path] for path in paths if found[path].reason]
    if len(broken) == len(paths):
        raise UserError(f"None of the {len(paths)} recordings of {source} can be read; the first: {broken[0].reason}")
    lines = []
    for split, rows in splits.items():
        text, known, seconds = table(rows, column, found, out)
        write_text(out / f"{split}.csv", text)
        lines.append(f"{out / split}.csv: {known:,} of {len(rows):,} recordings, {seconds / 3600:.2f} hours")
    write_text(out / BROKEN, "".join(f"{file.reason}\n" for file in broken))
    odd = [found[path] for path in paths if found[path].remark]
    write_text(out / REMARKS, "".join(f"{file.path} {file.remark}\n" for file in odd))
    if odd:
        first = f"{odd[0].path} {odd[0].remark}"
        lines.append(f"{out / REMARKS}: {len(odd)} of {len(paths)} files are odd; the first: {first}")
    if broken:
        lines.append(
            f"{out / BROKEN}: {len(broken)} of {len(paths)} files cannot be read; the first: {broken[0].reason}"
        )
    return lines


def scanned(paths: Sequence[str], notes: Path, headers: bool, workers: int) -> dict[str, Found]:
    """What each file is, by its path; from `notes` where those know it, else read and noted there."""
    known = {file.path: file for file in noted(notes) if still(file) and file.decoded >= (not headers)}
    left = [path for path in paths if path not in known]
    write_text(notes, "".join(map(note, known.values())))  # without those of other times, and what was cut short
    with notes.open("a", encoding="utf-8") as log:
        for file in told(looked_at(left, headers, workers), "Reading files", len(left)):
            known[file.path] = file
            log.write(note(file))
            log.flush()
    return known


def noted(notes: Path) -> Iterator[Found]:
    """What a scan wrote down before; a last line that was cut short is no note."""
    for line in notes.read_text(encoding="utf-8").splitlines() if notes.exists() else ():
        with suppress(ValueError, TypeError):
            yield Found(**json.loads(line))


def note(file: Found) -> str:
    return json.dumps(asdict(file)) + "\n"


def still(file: Found) -> bool:
    """Whether a file is as it was when it was read."""
    return stamp(file.path) == (file.size, file.time)


def stamp(path: str) -> tuple[int, int]:
    """Size and time of change; zeros where there is no file."""
    try:
        stat = Path(path).stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def looked_at(paths: Sequence[str], headers: bool, workers: int) -> Iterator[Found]:
    """Reads files, in their order."""
    if paths:
        loader = DataLoader(Files(paths, headers), batch_size=CHUNK, num_workers=workers, collate_fn=list)
        yield from chain.from_iterable(loader)


@dataclass(frozen=True)
class Files(Dataset[Found]):
    """Files that are read as they are asked for."""

    paths: Sequence[str]
    headers: bool

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Found:
        return look(self.paths[index], self.headers)


def look(path: str, headers: bool) -> Found:
    """Reads one file."""
    size, time = stamp(path)
    value = {"bytes": None, "path": path}
    try:
        if headers:
            return Found(path, size, time, measured(value, path), decoded=False)
        wave = load_audio(value, path)
    except BadItem as error:
        return Found(path, size, time, 0.0, str(error), decoded=not headers)
    return Found(path, size, time, len(wave) / RATE, remark=remark(wave))


def remark(wave: Tensor) -> str:
    """What is odd about (N,) samples that can be read: silence, clipping; empty where nothing is."""
    loudest = float(wave.abs().max())
    if loudest == 0:
        return "is silent"
    if loudest > BEYOND:
        return f"reaches {loudest:.3g} where 1 is the most"
    share = float((wave.abs() > CLIPPED * loudest).float().mean())
    return f"is clipped ({share:.0%} of its samples are as loud as the loudest)" if share > FLAT else ""


def table(rows: Rows, column: str, found: dict[str, Found], folder: Path) -> tuple[str, int, float]:
    """A split as CSV, the number of its recordings that can be read, and their seconds."""
    lengths = {name for name in rows.columns if name.lower() in (*LENGTH, *SECONDS)}
    parts = segments(rows, column, lengths)
    others = {name: [cell(v) for v in rows.column(name)] for name in rows.columns if name not in {column, *lengths}}
    others = {name: values for name, values in others.items() if any(value is not None for value in values)}
    text, known, total = io.StringIO(), 0, 0.0
    writer = csv.writer(text)
    writer.writerow(["path", "seconds", *others])
    for i, value in enumerate(rows.column(column)):
        file = found[str(path_of(value))]
        if file.reason:
            continue
        seconds = parts.get(i, file.seconds)
        known, total = known + 1, total + seconds
        writer.writerow([near(file.path, folder), f"{seconds:.4f}", *(values[i] for values in others.values())])
    return text.getvalue(), known, total


def segments(rows: Rows, column: str, lengths: set[str]) -> dict[int, float]:
    """Seconds of the rows that are parts of their files, checked; whatever columns of `lengths` say."""
    if not {name.lower() for name in rows.columns} & {*BEGIN, *END}:
        return {}
    found = utterances(Rows(rows.table.remove_columns(sorted(lengths)), rows.name, numbers=rows.numbers), column)
    return {i: part.seconds for i, part in enumerate(found) if part.start or part.end < math.inf}


def cell(value: Any) -> Any:
    """A value as a table has it: of a file its path; None for a list, which none has."""
    if isinstance(value, dict):
        return path_of(value)
    return None if isinstance(value, (list, tuple)) else value


def near(path: str, folder: Path) -> str:
    """A path from the folder on, where it lies below."""
    full, base = Path(path).resolve(), folder.resolve()
    return str(full.relative_to(base)) if full.is_relative_to(base) else str(full)
