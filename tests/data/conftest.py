"""Small files of every kind, made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens, tokenizers and features of one test are no other's, and the seed is the default."""
    monkeypatch.setenv("SSL_SUITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)


@pytest.fixture
def picture() -> Callable[..., Path]:
    """Writes an image of noise around a grey of its own."""

    def make(path: Path, value: int = 128, size: tuple[int, int] = (12, 10), mode: str = "RGB") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(value).integers(0, 20, (size[1], size[0], 3))
        Image.fromarray((noise + value).clip(0, 255).astype(np.uint8)).convert(mode).save(path)
        return path

    return make


@pytest.fixture
def pictures(picture: Callable[..., Path]) -> Callable[..., Path]:
    """Writes a folder of `n` images a class."""

    def make(folder: Path, n: int = 10, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
        for c, name in enumerate(classes):
            for i in range(n):
                picture(folder / name / f"{i:02}.png", 60 + 100 * c + i)
        return folder

    return make


@pytest.fixture
def sound() -> Callable[..., Path]:
    """Writes a tone."""

    def make(path: Path, seconds: float = 0.5, rate: int = 16000, channels: int = 1, pitch: float = 440.0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        time = np.arange(round(seconds * rate)) / rate
        wave = 0.5 * np.sin(2 * np.pi * pitch * time)
        soundfile.write(path, np.stack([wave * (1 - c) for c in range(channels)], 1) if channels > 1 else wave, rate)
        return path

    return make
