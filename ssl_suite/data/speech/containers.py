"""Audio that libsndfile does not know (m4a, aac, wma, the sound of a video), by FFmpeg, where PyAV is installed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

INSTALLED = find_spec("av") is not None
FORMATS = "aac,ac3,amr,ape,asf,matroska,webm,mov,mp4,m4a,3gp,mp3,wv"
"""No playlists, which would have other files read, or fetched."""
HINT = "pip install 'ssl_suite[m4a]' reads such files"


class Container:
    """The first audio stream of a file, read from front to back.

    Args:
        content: of the file, or where it lies.

    Attributes:
        samplerate: samples a second.
        channels: of the stream.
        seconds: how long it says that it is; None where it does not.

    Raises:
        ValueError: it is none that FFmpeg knows, or has no sound.
    """

    def __init__(self, content: Path | bytes) -> None:
        import av

        try:
            file = io.BytesIO(content) if isinstance(content, bytes) else f"file:{content}"
            opened: Any = av.open(file, options={"format_whitelist": FORMATS, "protocol_whitelist": "file"})
        except (av.FFmpegError, OSError) as error:
            raise ValueError(error.strerror or str(error)) from None
        if not opened.streams.audio or not opened.streams.audio[0].rate:
            opened.close()
            raise ValueError("it has no sound")
        self.opened, self.stream = opened, opened.streams.audio[0]
        self.samplerate, self.channels = self.stream.rate, self.stream.channels
        lasts = self.stream.duration and float(self.stream.duration * self.stream.time_base)
        self.seconds: float | None = lasts or (opened.duration and opened.duration / 1e6) or None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.opened.close()

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """(n, channels) float in [-1, 1], one after the other.

        Raises:
            ValueError: the stream is damaged.
        """
        import av

        plain = av.AudioResampler(format="fltp")
        try:
            for frame in self.opened.decode(self.stream):
                for part in plain.resample(frame):
                    yield part.to_ndarray().T.astype(np.float32, copy=False)
        except av.FFmpegError as error:
            raise ValueError(error.strerror or str(error)) from None
