"""A run that is killed anywhere and taken up again ends bit for bit where it would have ended, with default settings.

Every run is a process of the command line; a fork server that has loaded the libraries once starts them quickly.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import pytest
import torch
from cli_recipes import DATA, ENCODERS, METHODS, QUICK
from safetensors.torch import load_file

MOMENTS = 10
"""Of each modality: five SIGKILLs and five SIGTERMs, half of them on another file system."""

EPOCHS = ["--trainer.max_epochs=4"]

Start = Callable[[list[str]], ForkServerProcess]
Straight = Callable[[str], Path]


def command(arguments: list[str]) -> None:
    """What the installed script does, in a process of its own."""
    import ssl_suite.cli

    multiprocessing.set_start_method("fork", force=True)  # of its workers, as in a process that was not forked
    os.setsid()  # a group of its own, so that a test can signal its workers too
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    torch.set_num_threads(1)
    sys.exit(ssl_suite.cli.main(arguments))


@pytest.fixture(scope="module")
def server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ssl_suite.cli.fit", "timm", "tokenizers", "datasets", "torchaudio"])
    return context


@pytest.fixture
def started(server: ForkServerContext) -> Iterator[Start]:
    processes: list[ForkServerProcess] = []

    def start(arguments: list[str]) -> ForkServerProcess:
        process = server.Process(target=command, args=(arguments,))
        process.start()
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()


@pytest.fixture(params=["here", "another file system"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder on the file system of the temporary folder, and one on another."""
    if request.param == "here":
        yield tmp_path
        return
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is only one file system here")
    folder = memory / f"killed-{os.getpid()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def fit(modality: str, source: str, out: Path, *options: str) -> list[str]:
    model = [f"--model={METHODS[modality]}", f"--model.encoder={ENCODERS[modality]}"]
    return ["fit", *model, *DATA[modality], f"--data.source={source}", "--data.batch_size=8", *QUICK, *EPOCHS,
            f"--out={out}", *options]  # fmt: skip


def taken_up(arguments: list[str], out: Path) -> list[str]:
    """As a user goes on: from the last checkpoint where there is one, else from the beginning."""
    last = out / "checkpoints" / "last.ckpt"
    return [*arguments, f"--ckpt_path={last}"] if last.exists() else [*arguments, "--overwrite=true"]


def rows(out: Path) -> int:
    """Steps a run has logged so far."""
    log = out / "metrics.csv"
    return max(0, len(log.read_text().splitlines()) - 1) if log.exists() else 0


def finish(start: Callable[[list[str]], ForkServerProcess], arguments: list[str]) -> None:
    process = start(arguments)
    process.join(120)
    assert process.exitcode == 0


@pytest.fixture(scope="module")
def straight(sources: dict[str, str], server: ForkServerContext, tmp_path_factory: pytest.TempPathFactory) -> Straight:
    """Modality → folder of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("straight")

    def make(modality: str) -> Path:
        if not (folder / modality).exists():
            process = server.Process(target=command, args=(fit(modality, sources[modality], folder / modality),))
            process.start()
            process.join(120)
            assert process.exitcode == 0
        return folder / modality

    return make


@pytest.mark.parametrize("modality", METHODS)
def test_a_run_killed_at_random_moments_ends_bit_identical(
    modality: str, sources: dict[str, str], place: Path, straight: Straight, started: Start
) -> None:
    whole, out = straight(modality), place / "killed"
    arguments = fit(modality, sources[modality], out)
    draw = random.Random(f"{modality} {place.parent}")
    killed = 0
    for moment, steps in enumerate(sorted(draw.sample(range(rows(whole)), MOMENTS // 2))):
        process = started(taken_up(arguments, out))
        while process.is_alive() and rows(out) < steps:
            time.sleep(0.005)
        process.join(draw.uniform(0, 0.2))
        number = signal.SIGKILL if moment % 2 else signal.SIGTERM
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, number)
        process.join(60)
        # killed, or saved and said so, or done before: never a 0 that leaves nothing
        assert process.exitcode in (-number, 128 + number, 0)
        assert process.exitcode != 0 or (out / "encoder").is_dir()
        killed += process.exitcode != 0
        if (last := out / "checkpoints" / "last.ckpt").exists():
            torch.load(last, weights_only=True)
    assert killed
    finish(started, taken_up(arguments, out))
    wanted, found = (load_file(str(folder / "encoder" / "model.safetensors")) for folder in (whole, out))
    assert wanted.keys() == found.keys()
    for name, weights in wanted.items():
        assert torch.equal(weights, found[name]), name
    steps_taken = [json.loads((f / "encoder" / "provenance.json").read_text())["steps"] for f in (whole, out)]
    assert steps_taken[0] == steps_taken[1]
    assert rows(whole) == rows(out)
    assert [p.name for p in out.rglob(".*")] == []


def test_a_signal_to_every_process_of_a_run_with_workers_saves_its_state(
    sources: dict[str, str], tmp_path: Path, straight: Straight, started: Start
) -> None:
    whole, out = straight("image"), tmp_path / "killed"
    arguments = [*fit("image", sources["image"], out), "--data.num_workers=2"]
    process = started(arguments)
    while process.is_alive() and rows(out) < 12:
        time.sleep(0.005)
    assert process.pid is not None
    os.killpg(process.pid, signal.SIGTERM)
    process.join(60)
    assert process.exitcode == 128 + signal.SIGTERM
    finish(started, taken_up(arguments, out))
    wanted, found = (load_file(str(folder / "encoder" / "model.safetensors")) for folder in (whole, out))
    assert all(torch.equal(weights, found[name]) for name, weights in wanted.items())


def test_a_signal_to_the_first_of_two_ranks_saves_and_ends_both(sources: dict[str, str], tmp_path: Path) -> None:
    ranks = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.max_epochs=400"]
    arguments = [*fit("image", sources["image"], tmp_path / "run"), *ranks]
    process = subprocess.Popen(
        [sys.executable, "-m", "ssl_suite", *arguments], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        while process.poll() is None and rows(tmp_path / "run") < 5:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=120)[1]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 128 + signal.SIGTERM
    assert said.count("Stopped by SIGTERM; go on with --ckpt_path") == 1
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["settings"]["number of processes"] == 2
    assert checkpoint["global_step"] > 0
    assert [p.name for p in (tmp_path / "run").rglob(".*")] == []
