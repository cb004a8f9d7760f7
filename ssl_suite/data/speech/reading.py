"""Reading audio: any file libsndfile knows (or FFmpeg, as an extra), from bytes or disk, resampled in torch."""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor
from torchaudio.transforms import Resample

from ssl_suite.core.errors import BadItem
from ssl_suite.data.common.manifest import Media, encoded
from ssl_suite.data.speech.containers import HINT, INSTALLED, Container

RATE = 16000
EXTENSIONS = frozenset((
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".aifc", ".au", ".snd", ".caf", ".sph", ".w64",
    ".rf64",
))  # fmt: skip
CONTAINERS = frozenset((".m4a", ".m4b", ".aac", ".wma", ".amr", ".ac3", ".ape", ".wv", ".webm", ".mp2", ".mka", ".3gp"))
VIDEOS = frozenset((".mp4", ".m4v", ".mkv", ".mov", ".avi", ".wmv", ".flv", ".mpg", ".mpeg", ".ts", ".ogv"))
list_audio = (
    Media("audio", EXTENSIONS | CONTAINERS, VIDEOS, "extract their sound, or name them in a metadata.csv")
    if INSTALLED
    else Media("audio", EXTENSIONS, CONTAINERS | VIDEOS, f"convert them ({HINT})")
)
RATES = 1000, 1_000_000
"""Samples a second below and above which a header lies."""
FILTER = 20_000_000
"""Greatest product of the reduced rates that are resampled: 441 · 160 for a CD's."""
BLOCK = 1 << 20
"""Frames that are decoded at once, whatever a header promises."""
STREAMED = 2_000_000_000
"""Bytes from which on a WAV's promise stands for a length its writer did not know."""


def load_audio(value: Any, where: str, start: float = 0.0, end: float = math.inf, channel: int | None = None) -> Tensor:
    """Decodes {"bytes", "path"} to (N,) float at 16 kHz.

    A file whose header does not know its length (piped FLAC, streamed WAV) is read to its end.

    Args:
        value: the encoded audio, or where it lies.
        where: names bytes in a table.
        start: seconds to leave out.
        end: second to stop at.
        channel: which one, counted from 0; None: their mean.

    Raises:
        BadItem: without that channel, unreadable, cut short, without samples, or with some that are no numbers; names
            the file, or `where`.
    """
    name, content = encoded(value, where)
    try:
        with _open(content) as file:
            rate, known = file.samplerate, _frames(file)
            if not RATES[0] <= rate <= RATES[1]:
                raise ValueError(f"its header promises {rate} samples a second")
            first, last = round(start * rate), known if end == math.inf else round(end * rate)
            last = last if known is None or last is None else min(last, known)
            if channel is None and file.channels > 1:
                rank_zero_warn("Audio of several channels is averaged; --data.channel 0 takes the first of them.")
            if channel is not None and channel >= file.channels:
                raise BadItem(f"{name} has {file.channels} channels, no channel {channel} (the first is 0).")
            blocks = list(_blocks(file, first, last, channel))
    except (soundfile.LibsndfileError, RuntimeError, ValueError) as error:
        remedy = "replace it, or set on_error: skip"
        if Path(name).suffix.lower() in CONTAINERS:
            remedy = "convert it, for instance by ffmpeg to .flac, or set on_error: skip"
            remedy = remedy if INSTALLED else f"{HINT}; else {remedy}"
        raise BadItem(f"{name} is not readable audio ({error}); {remedy}.") from None
    if not blocks:
        raise BadItem(
            f"{name} has no samples{f' after {start:g} s' if start else ''}; remove it, or set on_error: skip."
        )
    read = first + sum(map(len, blocks))
    if known is not None and last is not None and read < last:
        raise BadItem(f"{name} is cut short ({read} of {last} samples); replace it, or set on_error: skip.")
    if missing := _missing_bytes(content):
        raise BadItem(f"{name} is cut short (the last {missing} bytes are missing); replace it, or set on_error: skip.")
    wave = torch.from_numpy(np.concatenate(blocks))
    if not wave.isfinite().all():
        at = int((~wave.isfinite()).nonzero()[0, 0])
        raise BadItem(
            f"{name} holds samples that are no numbers (NaN or infinite, the first at {start + at / rate:.3f} s); "
            "replace it, or set on_error: skip."
        )
    common = math.gcd(rate, RATE)
    if (rate // common) * (RATE // common) > FILTER:
        raise BadItem(f"{name} has {rate:,} samples a second, which no short filter makes {RATE:,}; convert it.")
    return resampler(rate)(wave) if rate != RATE else wave


@lru_cache(maxsize=64)
def resampler(rate: int) -> Resample:
    """From a rate to ours; its filter is made once."""
    return Resample(rate, RATE, dtype=torch.float32)


class _Audio(soundfile.SoundFile):
    """A file that is read from front to back: `soundfile` seeks after every read, which not every format can."""

    def seekable(self) -> bool:
        return False


def _open(content: Path | bytes) -> _Audio | Container:
    try:
        return _Audio(io.BytesIO(content) if isinstance(content, bytes) else content)
    except soundfile.LibsndfileError:
        if not INSTALLED:
            raise
        return Container(content)


def _frames(file: _Audio | Container) -> int | None:
    """Number of frames that the header knows of."""
    return file.frames if isinstance(file, _Audio) and 0 < file.frames < 2**62 else None


def _blocks(
    file: _Audio | Container, first: int, last: int | None, channel: int | None = None
) -> Iterator[NDArray[np.float32]]:
    """Frames `first` to `last` (None: the end) of a channel, or the mean of all, a block at a time."""
    for block in _decoded(file, first, last):
        yield block.mean(1) if channel is None else block[:, channel]


def _decoded(file: _Audio | Container, first: int, last: int | None) -> Iterator[NDArray[np.float32]]:
    """(n, channels) each."""
    at = 0
    if isinstance(file, Container):
        for block in file.blocks():
            if (kept := block[max(0, first - at) : None if last is None else max(0, last - at)]).size:
                yield kept
            at += len(block)
            if last is not None and at >= last:
                break
        return
    if first and file.format != "MP3":  # whose frames need the ones before them
        with suppress(soundfile.LibsndfileError):  # GSM cannot seek: what comes before is read
            at = file.seek(first)
    while last is None or at < last:
        block = file.read(BLOCK if last is None else min(BLOCK, last - at), "float32", always_2d=True)
        if len(block) == 0:
            break
        if (kept := block[max(0, first - at) :]).size:
            yield kept
        at += len(block)


def _missing_bytes(content: Path | bytes) -> int:
    """Bytes that a WAV or AIFF promises and lacks; libsndfile shortens such a file without a word."""
    if isinstance(content, bytes):
        head, size = content[:8], len(content)
    else:
        with content.open("rb") as file:
            head, size = file.read(8), content.stat().st_size
    if head[:4] not in (b"RIFF", b"FORM") or len(head) < 8:
        return 0
    promised = struct.unpack("<I" if head[:4] == b"RIFF" else ">I", head[4:])[0] + 8
    return 0 if promised >= STREAMED else max(0, promised - size - 1)  # some leave out the last padding byte


def measured(value: Any, where: str) -> float:
    """Seconds, from the header or, where that does not know, by decoding all.

    Raises:
        BadItem: it cannot be read, or has no samples; names the file, or `where`.
    """
    name, content = encoded(value, where)
    try:
        with _open(content) as file:
            if isinstance(file, Container) and file.seconds:
                return file.seconds
            if not RATES[0] <= file.samplerate <= RATES[1]:
                raise ValueError(f"its header promises {file.samplerate} samples a second")
            frames = _frames(file) or sum(map(len, _blocks(file, 0, None)))
        if missing := _missing_bytes(content):
            raise ValueError(f"the last {missing} bytes are missing")
        if frames:
            return frames / file.samplerate
    except (soundfile.LibsndfileError, RuntimeError, ValueError) as error:
        raise BadItem(f"{name} is not readable audio ({error}).") from None
    raise BadItem(f"{name} has no samples.")


def duration(value: Any) -> float:
    """The same; 0 where it cannot be read: the sample itself is reported when it is."""
    try:
        return measured(value, "")
    except BadItem:
        return 0.0
