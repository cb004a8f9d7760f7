"""Inputs that a program has in memory, as the rows of a split."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from ssl_suite.core.encoder import Modality
from ssl_suite.core.errors import UserError
from ssl_suite.data.common.source import Rows

COLUMNS: dict[Modality, str] = {"text": "text", "image": "image", "speech": "audio"}
WANTED: dict[Modality, str] = {
    "text": "text: a list of strings",
    "image": "images: a list of PIL images, or of paths",
    "speech": "speech: a list of (wave, rate), the wave a one-dimensional array, or of paths",
}


class Given(Rows):
    """Rows of one column.

    Args:
        values: of the column, as a data module reads them.
        column: its name.
    """

    def __init__(self, values: Sequence[Any], column: str) -> None:
        super().__init__(None, "inputs")
        self.given, self.name_of_column = values, column

    def __len__(self) -> int:
        return len(self.given)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {self.name_of_column: self.given[index]}

    @property
    def columns(self) -> list[str]:
        return [self.name_of_column]

    def values(self, name: str, start: int = 0) -> Iterator[Any]:
        self.expect(name)
        return iter(self.given[start:])

    def label_names(self, name: str) -> list[str] | None:
        return None

    def where(self, index: int) -> str:
        return f"inputs[{index}]"


def given(inputs: Iterable[Any], modality: Modality) -> Given:
    """Checks what was given to an encoder of a modality, and makes rows of it.

    Args:
        inputs: strings; PIL images or paths; or (wave, rate) or paths.
        modality: of the encoder.

    Raises:
        UserError: they are none, one that is in no list, or not what this modality reads.
    """
    if isinstance(inputs, str | Path | Image.Image | np.ndarray | dict):
        raise UserError(f"The inputs are one {type(inputs).__name__}; this encoder reads {WANTED[modality]}.")
    rows = list(inputs)
    if not rows:
        raise UserError(f"There are no inputs; this encoder reads {WANTED[modality]}.")
    return Given([_value(row, f"inputs[{i}]", modality) for i, row in enumerate(rows)], COLUMNS[modality])


def _value(value: Any, where: str, modality: Modality) -> Any:
    """One input as the column of a table would hold it."""
    if modality == "text" and isinstance(value, str):
        return value
    if modality == "image" and isinstance(value, Image.Image):
        return value
    if modality != "text" and isinstance(value, str | Path):
        if not Path(value).is_file():
            raise UserError(f"{where}: there is no file {str(value)[:80]!r}; this encoder reads {WANTED[modality]}.")
        return {"bytes": None, "path": str(value)}
    if modality == "speech" and isinstance(value, tuple | list) and len(value) == 2:
        return {"bytes": _wav(value[0], value[1], where), "path": None}
    raise UserError(f"{where} is of the type {type(value).__name__}; this encoder reads {WANTED[modality]}.")


def _wav(wave: Any, rate: Any, where: str) -> bytes:
    """A wave as a file that holds the very same samples."""
    samples = np.asarray(wave.detach() if hasattr(wave, "detach") else wave)
    whole = samples.dtype.kind == "i"
    if samples.ndim != 1 or samples.dtype.kind not in "fi" or (whole and samples.dtype.itemsize not in (2, 4)):
        raise UserError(
            f"{where}: the wave is of shape {samples.shape} and {samples.dtype}; give one channel, (N,), of float in "
            "[-1, 1], int16 or int32."
        )
    if not isinstance(rate, int | np.integer) or isinstance(rate, bool) or not 0 < rate < 10**7:
        raise UserError(f"{where}: the rate is {rate!r}, but must be a whole number of samples a second.")
    exact = samples.astype(samples.dtype.newbyteorder("=") if whole else np.float32)
    file = io.BytesIO()
    subtype = {"int16": "PCM_16", "int32": "PCM_32"}.get(str(exact.dtype), "FLOAT")
    soundfile.write(file, exact, int(rate), format="WAV", subtype=subtype)
    return file.getvalue()
