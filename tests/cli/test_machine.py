"""What a machine lacks is one sentence: a disk with room, memory, a home folder; a bug stays a traceback."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli_recipes import DATA, ENCODERS, QUICK

from ssl_suite import cli

Fails = Callable[..., str]


def pretrain(modality: str, sources: dict[str, str], out: Path) -> list[str]:
    method = {"text": "MaskedLM", "image": "SimCLR"}[modality]
    model = [f"--model={method}", f"--model.encoder={ENCODERS[modality]}", *DATA[modality]]
    return ["fit", *model, f"--data.source={sources[modality]}", *QUICK, f"--out={out}"]


@contextmanager
def room(size: int) -> Iterator[None]:
    """Files of at most `size` bytes can be written: what a full disk does, at the write itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def corpus(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "a.txt").write_text("\n".join(f"the {i} cats sat on a mat of {i * 7} stitches" for i in range(4000)))
    return {"text": str(tmp_path / "a.txt")}


@pytest.mark.parametrize(("size", "place"), [(2_000, "tokenizers"), (40_000, "tokens")])
def test_a_cache_without_room(
    size: int, place: str, fails: Fails, corpus: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_SUITE_CACHE", str(tmp_path / "cache"))
    with room(size):
        message = fails(*pretrain("text", corpus, tmp_path / "run"))
    assert message.startswith(f"Could not write {tmp_path / 'cache' / place}/")
    assert "File too large" in message
    finished = [p for p in (tmp_path / "cache" / place).iterdir() if p.suffix in (".json", ".tokens")]
    assert finished == []


def test_a_copy_that_has_no_room_does_not_blame_the_table(
    fails: Fails, sources: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    with room(100):
        message = fails(*pretrain("image", sources, tmp_path / "run"))
    assert message.startswith("The copy that is made of ")
    assert message.endswith("could not be written: File too large.")


def test_a_cache_that_is_a_file(
    fails: Fails, corpus: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SSL_SUITE_CACHE", str(tmp_path / "file"))
    assert str(tmp_path / "file") in fails(*pretrain("text", corpus, tmp_path / "run"))


def test_no_home(fails: Fails, corpus: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_SUITE_CACHE")
    monkeypatch.setenv("HOME", "")
    monkeypatch.setattr("posixpath.expanduser", lambda path: path)  # as where a user has no entry in passwd
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    message = fails(*pretrain("text", corpus, tmp_path / "run"))
    assert message == "There is no home folder to keep tokenizers and features in; name one: SSL_SUITE_CACHE=FOLDER."


@pytest.mark.parametrize(("error", "sentence"), [
    (MemoryError(), "There is not enough memory; lower --data.batch_size"),
    (RuntimeError("CUDA out of memory. Tried to allocate 9.00 GiB."), "There is not enough memory; lower"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."), "There is not enough"),
    (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "A loader process was killed"),
    (OSError("the hub is not there"), "the hub is not there"),
    (FileNotFoundError(2, "No such file or directory", "/x"), "/x: No such file or directory"),
])  # fmt: skip
def test_what_the_machine_says(error: Exception, sentence: str, fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "dispatch", raises)
    assert fails("fit").startswith(sentence)


def test_a_model_larger_than_memory(fails: Fails, sources: dict[str, str], tmp_path: Path) -> None:
    encoder = "{class_path: TextEncoder, init_args: {vocab_size: 400, dim: 8589934592, layers: 1, heads: 2}}"
    arguments = pretrain("text", sources, tmp_path / "run")
    message = fails(*[f"--model.encoder={encoder}" if a.startswith("--model.encoder") else a for a in arguments])
    assert message.startswith("There is not enough memory; lower --data.batch_size")


def test_a_bug_stays_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(arguments: list[str]) -> int:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(cli, "dispatch", raises)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        cli.main(["fit"])


def test_a_reader_that_leaves_is_no_error() -> None:
    code = "from ssl_suite.cli import main; import sys; sys.exit(main(['list']))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
