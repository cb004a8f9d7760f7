"""Units of speech: a number for each frame of every recording, made by `prepare units`, mapped into memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ssl_suite.core.check import within
from ssl_suite.core.errors import UserError
from ssl_suite.core.files import replacing
from ssl_suite.core.reading import a_file, read_json
from ssl_suite.data.common.columns import Numbers, Places
from ssl_suite.data.common.source import Rows
from ssl_suite.data.speech.segments import Utterance, path_of

CARD = "units.json"
"""Says what made a folder of units."""
MOST = 2**15
"""Different units there can be: they are kept as int16."""


@dataclass(frozen=True)
class UnitFile:
    """The units of all recordings of a split, one after the other.

    Attributes:
        units: (ΣT,) int16.
        starts: (N + 1,) int64 where those of each recording begin.
        marks: (N,) int64 `mark` of each recording.
    """

    units: Tensor
    starts: Tensor
    marks: Tensor

    def save(self, path: Path) -> None:
        with replacing(path) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in vars(self).items()}, str(temporary))

    @classmethod
    def load(cls, path: Path) -> UnitFile:
        """Maps a file.

        Raises:
            UserError: there is none, or it is damaged.
        """
        try:
            file = cls(**load_file(str(a_file(path))))
        except (SafetensorError, OSError, TypeError) as error:
            raise UserError(f"{path} cannot be read as units ({error}); make them again.") from None
        if len(file.starts) != len(file.marks) + 1 or int(file.starts[-1]) != len(file.units):
            raise UserError(f"{path} does not hold the units it promises; make them again.")
        return file


@dataclass(frozen=True, eq=False)
class Units(Numbers):
    """The units of some recordings of a split, for an encoder.

    A state has the unit of its first sample (the rule of fairseq's HuBERT): state t the number ⌊t · stride / own⌋.

    Attributes:
        path: of the split's file.
        classes: how many units there are.
        own: samples a unit.
        stride: samples a state of the encoder.
        places: number of each recording in the file; None: all of them.
    """

    path: Path
    classes: int
    own: int
    stride: int
    places: Places | None = None

    @cached_property
    def file(self) -> UnitFile:
        return UnitFile.load(self.path)

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs: it maps the file anew."""
        return {name: value for name, value in vars(self).items() if name != "file"}

    def __len__(self) -> int:
        return len(self.file.marks) if self.places is None else len(self.places)

    def __getitem__(self, index: int) -> NDArray[np.int64]:  # type: ignore[override]
        """(T,) for each state of a recording."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        row = index if self.places is None else int(self.places[index])
        first, end = self.file.starts[row : row + 2].tolist()
        states = torch.arange(0, (end - first) * self.own, self.stride)
        return self.file.units[first:end][states // self.own].long().numpy()

    def take(self, places: Places) -> Units:
        return replace(self, places=places if self.places is None else self.places[places])

    def expect(self, rows: Rows, column: str, found: Sequence[Utterance]) -> None:
        """Raises UserError at the first row that is not the recording its units were made of.

        Args:
            rows: of the split, one for each recording.
            column: of the audio.
            found: which part of its file each is.
        """
        marks = self.file.marks if self.places is None else self.file.marks[torch.from_numpy(self.places)]
        mine = torch.tensor([mark(value, part) for value, part in zip(rows.column(column), found, strict=True)])
        if len(other := (marks != mine).nonzero()):
            raise UserError(f"{rows.where(int(other[0]))}: the units in {self.path} are of another recording there.")


def mark(audio: Any, part: Utterance) -> int:
    """64 bits that tell a recording from its neighbours, wherever its folder lies."""
    path = path_of(audio)
    name = f"{part.seconds:.2f}" if path is None else Path(path).name
    digest = hashlib.blake2b(f"{name}|{part.start:.3f}|{part.end:.3f}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)


def open_units(folder: Path, split: str, rows: Rows, stride: int) -> Units | None:
    """The units of a split's rows.

    Args:
        folder: that `prepare units` wrote.
        split: of the rows; what was held out of the training split has its units there.
        rows: of the split.
        stride: samples a state of the encoder.

    Returns:
        None for a test split without units, which may be there to be answered.

    Raises:
        UserError: the folder holds no units, or those of fewer recordings.
    """
    if not (folder / CARD).exists():
        raise UserError(f"{folder} holds no units; ssl-suite prepare units makes some, and data.units names them.")
    card = read_json(folder / CARD, "a folder of units")
    for name in ("units", "stride"):
        within(f"{folder / CARD}: {name}", card.get(name), low=1, high=MOST, whole=True)
    path = folder / f"{split}.safetensors"
    if not path.exists():
        if split.startswith("test"):
            return None
        path = folder / "train.safetensors"
    units = Units(path, card["units"], card["stride"], stride, rows.numbers)
    there, needed = len(units.file.marks), len(rows) if rows.numbers is None else int(rows.numbers.max()) + 1
    if there != needed if rows.numbers is None else there < needed:
        raise UserError(
            f"{path} has the units of {there:,} recordings, and {rows.name} has {needed:,}; make them again."
        )
    return units
