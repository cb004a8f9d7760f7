"""A waveform as a target: the clean voice in a noisy recording, or each voice of a mixture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ssl_suite.data.common.kinds import TargetKind
from ssl_suite.data.speech.reading import RATE, load_audio, resampler
from ssl_suite.data.speech.segments import Utterance, utterances


class Waveform(TargetKind):
    """(N) audio at 16 kHz, of the same part of its file as the input is of its own."""

    name = "waveform"
    modalities = ("speech",)
    along = True

    def read(self) -> list[tuple[Any, Utterance]]:
        found = utterances(self.rows, self.column)
        return list(zip(self.rows.column(self.column), found, strict=True))

    def tensor(self, row: int, ids: Mapping[str, int]) -> Tensor:
        audio, part = self.values[row]
        return load_audio(audio, self.rows.where(row), part.start, part.end)

    def lasts(self, target: Tensor, size: int, stride: int) -> bool:
        """Resampling may round by a sample."""
        return abs(len(target) - size) <= 1

    def cut(self, target: Tensor, start: int, size: int, stride: int) -> Tensor:
        return target[start : start + size]

    def played(self, target: Tensor, speed: float) -> Tensor:
        return resampler(round(speed * RATE))(target)
