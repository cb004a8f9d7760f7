"""What every test shares: one thread, a cache of its own, and small real files of each modality."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image


def pytest_configure(config: pytest.Config) -> None:
    for text in (
        "resuming from a checkpoint that ended",
        "exists and is not empty",
        "in eval mode at the start",
        "LeafSpec",
    ):
        config.addinivalue_line("filterwarnings", f"ignore:.*{text}.*")


@pytest.fixture(scope="session", autouse=True)
def _one_thread_and_own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    torch.set_num_threads(1)
    patch = pytest.MonkeyPatch()
    patch.setenv("SSL_SUITE_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def _no_seed_is_left_behind() -> Iterator[None]:
    before = os.environ.get("PL_GLOBAL_SEED")
    torch.manual_seed(0)
    yield
    os.environ.pop("PL_GLOBAL_SEED", None)
    if before is not None:
        os.environ["PL_GLOBAL_SEED"] = before


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three splits of 16-pixel images of two classes: 14, 5 and 4."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for split, n in {"train": 14, "validation": 5, "test": 4}.items():
        for i in range(n):
            folder = root / split / ("dark" if i % 2 else "light")
            folder.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 100, (16, 16, 3)) + (0 if i % 2 else 150)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:02}.png")
    return str(root)


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Sixty lines of words."""
    rng = random.Random(0)
    words = [
        "the",
        "cat",
        "sat",
        "on",
        "a",
        "mat",
        "while",
        "some",
        "dog",
        "ran",
        "far",
        "away",
        "over",
        "green",
        "hills",
        "and",
        "small",
        "houses",
    ]
    lines = [" ".join(rng.choices(words, k=rng.randint(3, 12))) for _ in range(60)]
    path = tmp_path_factory.mktemp("text") / "corpus.txt"
    path.write_text("\n".join(lines))
    return str(path)


@pytest.fixture(scope="session")
def speech_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two splits of short tones in noise: 12 and 4."""
    root = tmp_path_factory.mktemp("speech")
    rng = np.random.default_rng(0)
    for split, n in {"train": 12, "validation": 4}.items():
        for i in range(n):
            folder = root / split / ("low" if i % 2 else "high")
            folder.mkdir(parents=True, exist_ok=True)
            time = np.arange(3200 + 400 * i) / 16000
            wave = 0.3 * np.sin(2 * np.pi * (200 if i % 2 else 900) * time) + 0.05 * rng.standard_normal(len(time))
            soundfile.write(folder / f"{i:02}.wav", wave, 16000)
    return str(root)


@pytest.fixture(scope="session")
def units_folder(speech_folder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Five units of the tones, every 10 ms."""
    from ssl_suite.data.speech.prepare import Recipe, prepare_units

    folder = tmp_path_factory.mktemp("units") / "made"
    prepare_units(Recipe(speech_folder, units=5), folder)
    return str(folder)
