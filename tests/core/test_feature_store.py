"""A store of frozen features: whole shards or none, each made once, and no more bytes than allowed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from processes import run_processes
from safetensors.torch import save_file
from tiny import files_below

from ssl_suite.core.errors import UserError
from ssl_suite.core.files import Lock
from ssl_suite.core.frozen import Room, _memory, remembered
from ssl_suite.core.moments import Moments
from ssl_suite.core.store import PASSING, Plan, Shard, Store, open_store

PLAN = Plan((0, 3, 6, 9, 12, 14), 14 * 8, True)


def shard(items: range) -> Shard:
    """Features that say which items they are of."""
    index = torch.tensor(items)
    values = index[:, None, None].float().expand(-1, 1, 2).contiguous()
    return Shard(values, torch.ones_like(index), index, Moments.of(values))


class Maker:
    """Makes shards and remembers which."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.made: list[int] = []

    def __call__(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            self.store.write(number, shard(self.store.plan.items(number)))
            self.made.append(number)


def opened(root: Path, name: str = "a", bound: float = 1e9, size: int = PLAN.size) -> Store:
    store = open_store(root, name, lambda: Plan(PLAN.starts, size, True), bound)
    assert store is not None
    return store


def filled(root: Path, name: str, used: int) -> int:
    """Makes a store that was used at a time; returns its bytes."""
    store = opened(root, name)
    store.complete(Maker(store))
    os.utime(store.folder / "index.json", (used, used))
    return sum(path.stat().st_size for path in store.folder.iterdir())


def test_shards_are_made_once_and_read_again(tmp_path: Path) -> None:
    first = Maker(opened(tmp_path))
    first.store.complete(first)
    again = Maker(opened(tmp_path))
    shards = again.store.complete(again)
    assert (first.made, again.made) == ([0, 1, 2, 3, 4], [])
    assert torch.cat([s.index for s in shards]).tolist() == list(range(14))
    assert torch.cat([s.values for s in shards])[:, 0, 1].tolist() == list(range(14))
    assert shards[1].moments.mean.tolist() == [[4.0, 4.0]]
    assert files_below(tmp_path) == [".lock", "a/.lease", *(f"a/{k:06}.safetensors" for k in range(5)), "a/index.json"]


@pytest.mark.parametrize("size", [0, 7, 300])
def test_a_shard_cut_short_is_made_again(size: int, tmp_path: Path) -> None:
    filled(tmp_path, "a", 1)
    path = tmp_path / "a/000002.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    again = Maker(opened(tmp_path))
    again.store.complete(again)
    assert again.made == [2]


class Together(Maker):
    """Writes nothing before another process has begun a shard as well."""

    def __init__(self, store: Store, root: Path, rank: int) -> None:
        super().__init__(store)
        self.mine, self.others = root / f"begun{rank}", root / f"begun{1 - rank}"

    def __call__(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            self.mine.touch()
            while not self.others.exists():
                time.sleep(0.01)
            super().__call__(iter([number]))


def share(rank: int, port: int, root: str) -> None:
    maker = Together(opened(Path(root)), Path(root), rank)
    maker.store.complete(maker, first=2 * rank)
    Path(root, f"made{rank}").write_text(" ".join(map(str, maker.made)))


def test_processes_share_the_shards_out(tmp_path: Path) -> None:
    run_processes(share, 2, str(tmp_path))
    made = [(tmp_path / f"made{rank}").read_text().split() for rank in range(2)]
    assert sorted(made[0] + made[1]) == ["0", "1", "2", "3", "4"]
    assert all(made)


def test_what_a_killed_writer_began_is_taken_over(tmp_path: Path) -> None:
    ours = opened(tmp_path)
    claimed, say = os.pipe()
    if (child := os.fork()) == 0:
        store = opened(tmp_path)
        next(store._claims([0]))
        (store.folder / ".000000.safetensors.01234567.new").write_text("half a shard")
        os.write(say, b"!")
        time.sleep(60)
        os._exit(0)
    os.read(claimed, 1)
    assert list(ours._claims([0])) == []
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    maker = Maker(ours)
    ours.complete(maker)
    assert maker.made == [0, 1, 2, 3, 4]
    del maker, ours
    opened(tmp_path)
    assert not [name for name in files_below(tmp_path) if name.endswith(".new")]


def test_the_store_that_was_used_least_recently_goes(tmp_path: Path) -> None:
    size, _, _ = (filled(tmp_path, name, used) for name, used in (("old", 1), ("new", 3), ("mid", 2)))
    opened(tmp_path, "another", bound=2.5 * size, size=size)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["another", "new"]


def test_features_that_nobody_will_want_again_go_first(tmp_path: Path) -> None:
    size, _ = (filled(tmp_path, name, used) for name, used in (("old", 1), (PASSING + "new", 3)))
    opened(tmp_path, "another", bound=2.5 * size, size=size)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["another", "old"]


def test_a_store_in_use_stays_and_what_does_not_fit_beside_it_takes_nothing_away(tmp_path: Path) -> None:
    size = filled(tmp_path, "used", 1)
    filled(tmp_path, "idle", 2)
    using = opened(tmp_path, "used")
    assert open_store(tmp_path, "large", lambda: Plan(PLAN.starts, 2 * size, True), 2.5 * size) is None
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["idle", "used"]
    del using
    opened(tmp_path, "large", 2.5 * size, 2 * size)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["large"]


def test_a_store_that_is_being_made_takes_all_it_will(tmp_path: Path) -> None:
    begun = opened(tmp_path, "begun", 1000, 700)
    assert open_store(tmp_path, "second", lambda: Plan(PLAN.starts, 400, True), 1000) is None
    del begun
    opened(tmp_path, "second", 1000, 400)


def test_a_lock_is_taken_back_from_a_process_that_is_killed_and_by_one_that_forked(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock")
    assert lock.take()
    if (child := os.fork()) == 0:
        time.sleep(60)
        os._exit(0)
    try:
        assert not Lock(tmp_path / "lock").take(wait=False)
        lock.release()  # although the child holds the same file open
        lock.release()
        assert Lock(tmp_path / "lock").take(wait=False)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


class User:
    pass


def test_what_is_in_memory_keeps_within_its_bound() -> None:
    _memory.clear()
    users = {name: User() for name in "abc"}
    made: list[str] = []

    def ask(name: str, size: int, user: User) -> bool:
        def make() -> list[Shard]:
            made.append(name)
            return []

        return remembered(name, user, lambda: size, make, bound=100) is not None

    assert ask("a", 40, users["a"])
    assert ask("b", 40, users["b"])
    assert ask("a", 40, users["a"])  # b is now that used least recently
    assert not ask("c", 40, users["c"])  # both are in use
    del users["a"], users["b"]
    assert ask("c", 40, users["c"])
    assert list(_memory) == ["a", "c"]
    assert not ask("d", 101, users["c"])
    assert made == ["a", "b", "c"]
    _memory.clear()


def zeroed(content: bytes) -> bytes:
    """What is left of a shard whose tensors were lost, but not its length."""
    head = 8 + int.from_bytes(content[:8], "little")
    return content[:head] + bytes(len(content) - head)


@pytest.mark.parametrize("damage", ["zeroed", "another", "incomplete"])
def test_a_shard_that_is_not_of_its_items_is_made_again(damage: str, tmp_path: Path) -> None:
    filled(tmp_path, "a", 1)
    first, second = (tmp_path / f"a/00000{k}.safetensors" for k in (0, 1))
    if damage == "incomplete":
        save_file({"values": torch.zeros(3, 1, 2)}, str(first))
    else:
        first.write_bytes(zeroed(first.read_bytes()) if damage == "zeroed" else second.read_bytes())
    again = Maker(opened(tmp_path))
    found = again.store.complete(again)
    assert again.made == [0]
    assert found[0].index.tolist() == found[0].values[:, 0, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "text", ['{"starts": [], "size": 1, "pooled": true}', '{"starts": [0, 3], "size": "x"}', "[1]", "{"]
)
def test_an_index_that_is_not_its_own_is_made_again(text: str, tmp_path: Path) -> None:
    filled(tmp_path, "a", 1)
    (tmp_path / "a/index.json").write_text(text)
    assert opened(tmp_path).plan == PLAN


def test_features_that_no_longer_fit_are_not_thrown_away(tmp_path: Path) -> None:
    filled(tmp_path, "a", 1)
    before = files_below(tmp_path / "a")
    assert open_store(tmp_path, "a", lambda: PLAN, 10) is None
    assert files_below(tmp_path / "a") == before
    assert open_store(tmp_path, "b", lambda: PLAN, 10) is None
    assert not (tmp_path / "b").exists()


def test_what_is_no_store_is_left_alone(tmp_path: Path) -> None:
    filled(tmp_path, "a", 1)
    (tmp_path / "mine/deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    size = filled(tmp_path, "b", 2)
    opened(tmp_path, "c", bound=2 * size)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["b", "c", "mine"]
    assert files_below(tmp_path / "mine") == []


@pytest.mark.parametrize("gigabytes", [-1, float("nan")])
def test_a_bound_is_a_number(gigabytes: float) -> None:
    with pytest.raises(UserError, match=r"model\.room\.disk_gb"):
        Room(disk_gb=gigabytes)
