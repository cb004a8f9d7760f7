"""Reading audio: any file libsndfile knows, from bytes or disk, resampled in torch."""

from __future__ import annotations

import io
import struct
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
    if missing := _missing_bytes(path, data):
        raise BadItem(f"{name} is cut short (the last {missing} bytes are missing); replace it, or set on_error: skip.")
    return resample(torch.from_numpy(samples).mean(1), rate, RATE)


def _missing_bytes(path: str, data: bytes | None) -> int:
    """Bytes that a WAV or AIFF promises and lacks; libsndfile shortens such a file without a word."""
    if data is None:
        with open(path, "rb") as file:
            head, size = file.read(8), Path(path).stat().st_size
    else:
        head, size = data[:8], len(data)
    if head[:4] not in (b"RIFF", b"FORM") or len(head) < 8:
        return 0
    promised = struct.unpack("<I" if head[:4] == b"RIFF" else ">I", head[4:])[0] + 8
    streamed = promised > 0x7FFF0000  # the writer could not know the length
    return 0 if streamed else max(0, promised - size - 1)  # some leave out the last padding byte


def duration(value: Any, where: str) -> float:
    """Seconds, from the header; 0 where it cannot be read (the sample itself is reported when it is)."""
    try:
        info = soundfile.info(value["path"] if value["bytes"] is None else io.BytesIO(value["bytes"]))
    except (soundfile.LibsndfileError, RuntimeError):
        return 0.0
    return info.frames / info.samplerate
