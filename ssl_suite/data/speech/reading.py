"""Reading audio: any file libsndfile knows, from bytes or disk, resampled in torch."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import soundfile
import torch
from torch import Tensor
from torchaudio.functional import resample

from ssl_suite.core.data import BadItem
from ssl_suite.data.common.manifest import list_media

RATE = 16000
EXTENSIONS = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".w64"}


def list_audio(place: Path) -> dict[str, list[Any]]:
    """See `list_media`."""
    return list_media(place, "audio", EXTENSIONS)


def load_audio(value: Any, where: str) -> Tensor:
    """Decodes {"bytes", "path"} to (N,) float at 16 kHz; channels are averaged.

    Raises:
        BadItem: unreadable, cut short or without samples; names the file, or `where` for bytes in a table.
    """
    path, data = value.get("path"), value.get("bytes")
    name = path if data is None else where
    if data is None and not Path(path).is_file():
        raise BadItem(f"{name} does not exist.")
    try:
        with soundfile.SoundFile(path if data is None else io.BytesIO(data)) as file:
            rate, expected = file.samplerate, file.frames
            samples = file.read(dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise BadItem(f"{name} is not readable audio ({error}); replace it, or set on_error: skip.") from None
    if len(samples) == 0:
        raise BadItem(f"{name} has no samples; remove it, or set on_error: skip.")
    if 0 < expected < 2**62 and len(samples) < expected:
        raise BadItem(f"{name} is cut short ({len(samples)} of {expected} samples); replace it, or set on_error: skip.")
    return resample(torch.from_numpy(samples).mean(1), rate, RATE)


def duration(value: Any, where: str) -> float:
    """Seconds, from the header; 0 where it cannot be read (the sample itself is reported when it is)."""
    try:
        info = soundfile.info(value["path"] if value["bytes"] is None else io.BytesIO(value["bytes"]))
    except (soundfile.LibsndfileError, RuntimeError):
        return 0.0
    return info.frames / info.samplerate
