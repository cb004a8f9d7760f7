"""Writing: whole or not at all, never over another kind of thing, and by one process at a time."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny import files_below

import ssl_suite.core.files as files
from ssl_suite.core.errors import UserError
from ssl_suite.core.files import check_target, locked, replacing, sweep, write_text


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "a.txt") as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert (tmp_path / "a.txt").read_text() == "old"
    assert files_below(tmp_path) == ["a.txt"]


def test_a_file_never_takes_the_place_of_a_folder_nor_of_a_device(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    for place, why in (("data", "is a folder"), (".", "is a folder"), ("pipe", "no ordinary file")):
        with pytest.raises(UserError, match=why):
            write_text(tmp_path / place, "x")
    with pytest.raises(UserError, match=r"/dev/null exists and is no ordinary file"):
        write_text(Path("/dev/null"), "x")
    with pytest.raises(UserError, match="is a folder"):
        write_text(Path("."), "x")
    assert (tmp_path / "data" / "a.txt").read_text() == "mine"


def test_a_folder_takes_the_place_of_nothing_of_an_empty_one_or_of_one_of_ours(tmp_path: Path) -> None:
    def make(place: Path, ours: bool) -> None:
        with replacing(place, lambda _: ours) as temporary:
            temporary.mkdir()
            (temporary / "new.txt").write_text("new")

    (tmp_path / "empty").mkdir()
    for name in ("absent", "empty"):
        make(tmp_path / name, False)
        assert files_below(tmp_path / name) == ["new.txt"]
    (tmp_path / "empty" / "old.txt").write_text("old")
    with pytest.raises(UserError, match="holds other files, which are not removed"):
        make(tmp_path / "empty", False)
    assert files_below(tmp_path / "empty") == ["new.txt", "old.txt"]
    make(tmp_path / "empty", True)
    assert files_below(tmp_path / "empty") == ["new.txt"]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="exists and is no folder"):
        make(tmp_path / "file", True)
    assert files_below(tmp_path) == ["absent/new.txt", "empty/new.txt", "file"]


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link.txt").symlink_to(tmp_path / "real" / "a.txt")
    for text in ("one", "two"):
        write_text(tmp_path / "link.txt", text)
        assert (tmp_path / "real" / "a.txt").read_text() == text
    assert (tmp_path / "link.txt").is_symlink()


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_can_be_read_by_whom_the_umask_lets(
    mask: int, mode: int, tmp_path: Path, umask: Callable[[int], int]
) -> None:
    umask(mask)
    with replacing(tmp_path / "folder", lambda _: False) as temporary:
        temporary.mkdir()
        save_file({"a": torch.zeros(2)}, str(temporary / "a.safetensors"))
        (temporary / "b.txt").write_text("b")
    write_text(tmp_path / "c.txt", "c")
    assert {p.stat().st_mode & 0o777 for p in tmp_path.rglob("*") if p.is_file()} == {mode}


def test_a_full_disk_names_the_output_and_leaves_the_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(UserError, match=r"Could not write .*a\.txt: File too large"):
            write_text(tmp_path / "a.txt", "x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / "a.txt").read_text() == "old"
    assert files_below(tmp_path) == ["a.txt"]


def test_an_error_of_what_is_read_is_not_blamed_on_the_output(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"source\.txt"), replacing(tmp_path / "out" / "a.txt") as temporary:
        temporary.write_text((tmp_path / "source.txt").read_text())


def test_a_place_below_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="Could not write"):
        write_text(tmp_path / "file" / "a.txt", "x")


def test_what_a_killed_write_left_is_swept_and_a_folder_moved_aside_comes_back(tmp_path: Path) -> None:
    for name in (".a.ckpt.0123abcd.new", ".notes.old", ".b.0123abcd.new.txt"):
        (tmp_path / name).write_text("x")
    for name in (".encoder.0123abcd.old", ".encoder.0123abcd.new", ".kept.0123abcd.old", "kept"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text(name)
    sweep(tmp_path)
    assert files_below(tmp_path) == [".b.0123abcd.new.txt", ".notes.old", "encoder/f", "kept/f"]
    assert (tmp_path / "encoder" / "f").read_text() == ".encoder.0123abcd.old"
    assert (tmp_path / "kept" / "f").read_text() == "kept"


def test_check_target_lets_an_ordinary_file_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    check_target(tmp_path / "a")
    check_target(tmp_path / "b")


HOLD = "import sys, pathlib; from ssl_suite.core.files import locked\nwith locked(pathlib.Path(sys.argv[1])):\n print('held', flush=True); sys.stdin.read()"  # noqa: E501


def test_a_second_process_is_told_and_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0.1)
    run = tmp_path / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=r"Another process is writing to .*run"), locked(run):
        pass
    assert holder.communicate("")[0] == ""
    assert not run.exists()
    with locked(run):
        (run / "a.txt").write_text("x")
    assert files_below(tmp_path) == ["run/a.txt"]


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    holder.kill()
    holder.communicate()
    with locked(tmp_path):
        pass
