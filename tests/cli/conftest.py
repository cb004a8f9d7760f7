"""Small real data sets, encoders pretrained on them through the command line, and a way to call it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from cli_recipes import DATA, ENCODERS, METHODS, QUICK

import ssl_suite
from ssl_suite.cli import main

SAMPLES = Path(ssl_suite.__file__).parent / "data/samples"


@pytest.fixture(scope="session", autouse=True)
def _no_seed_left_behind() -> Iterator[None]:
    """`seed_everything` sets variables of the process; other tests shall not see them."""
    kept = {k: os.environ.get(k) for k in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")}
    yield
    for name, value in kept.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Writes the first rows of a sample pack as a folder of its own."""
    folder = tmp_path_factory.mktemp("small")

    def make(pack: str) -> str:
        for split, rows in (("train", 64), ("validation", 24), ("test", 24)):
            path = folder / pack / f"{split}.parquet"
            path.parent.mkdir(exist_ok=True)
            if not path.exists():
                pq.write_table(pq.read_table(SAMPLES / pack / f"{split}.parquet").slice(0, rows), path)
        return str(folder / pack)

    return make


@pytest.fixture(scope="session")
def sources(small: Callable[[str], str]) -> dict[str, str]:
    return {"text": small("sentences"), "image": small("digits"), "speech": small("prompts")}


@pytest.fixture(scope="session")
def pretrained(sources: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """modality → run folder of a method after a few steps."""
    folder = tmp_path_factory.mktemp("runs")
    runs = {}
    for modality, method in METHODS.items():
        runs[modality] = folder / modality
        fit = ["fit", f"--model={method}", f"--model.encoder={ENCODERS[modality]}", *DATA[modality], *QUICK]
        assert (
            main([*fit, f"--data.source={sources[modality]}", "--data.batch_size=16", f"--out={runs[modality]}"]) == 0
        )
    return runs


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must fail, and returns the one sentence it says."""

    def run(*arguments: str) -> str:
        capsys.readouterr()
        assert main(list(arguments)) == 2
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ssl-suite:")]
        assert len(said) == 1
        assert len(said[0]) < 500
        assert "Traceback" not in said[0]
        return said[0].removeprefix("ssl-suite: ")

    return run
