"""Who speaks when, as a target: from lists of labels, or from each voice of a mixture on its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ssl_suite.core.errors import UserError
from ssl_suite.data.common.kinds import Frames, TargetKind
from ssl_suite.data.speech.mixing import heard
from ssl_suite.data.speech.reading import RATE, load_audio


class MultiFrames(TargetKind):
    """(L, C) which of C labels each state of the encoder has, 0 or 1: who speaks when.

    A cell is a list with a list of labels for each state; or a list of recordings, each of one voice of the mixture and
    as long: a voice is heard where it is loud, and called by its place in the list.
    """

    name = "multi_frames"
    modalities = ("speech",)
    along = True
    lasts, cut, played = Frames.lasts, Frames.cut, Frames.played

    def read(self) -> list[Any]:
        wanted = "a list with a list of labels for each state of the encoder"
        values = self.lists(wanted)
        self.alone = any(isinstance(voice, dict) for value in values for voice in value)
        wanted = "a list of recordings" if self.alone else wanted
        for i, value in enumerate(values):
            if not all(isinstance(part, dict if self.alone else (list, tuple)) for part in value):
                raise UserError(f"{self.rows.where(i)}: {self.column!r} holds {repr(value)[:60]}, not {wanted}.")
        if self.alone:
            return values
        return [[[self.label(i, v, t) for v in frame] for t, frame in enumerate(row)] for i, row in enumerate(values)]

    def parts(self, value: list[Any]) -> Iterable[str]:
        if self.alone:
            return map(str, range(len(value)))
        return (label for frame in value for label in frame)

    def tensor(self, row: int, ids: Mapping[str, int]) -> Tensor:
        value = self.values[row]
        if self.alone:
            return self._heard(row, ids)
        target = torch.zeros(len(value), len(ids))
        for frame, labels in zip(target, value, strict=True):
            frame[[ids[label] for label in labels]] = 1
        return target

    def _heard(self, row: int, ids: Mapping[str, int]) -> Tensor:
        voices = [load_audio(voice, self.rows.where(row)) for voice in self.values[row]]
        target = torch.zeros(max(-(-len(voice) // self.stride) for voice in voices), len(ids))
        for place, voice in enumerate(voices):
            states = heard(voice, self.stride, RATE)
            target[: len(states), ids[str(place)]] = states
        return target
