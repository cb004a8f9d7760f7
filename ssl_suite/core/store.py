"""A store of frozen features: shards by item range, each written once by one process and mapped into memory.

A store is a folder. `index.json` says which items each shard holds and how many bytes all will take; a shard says
itself which of them it has, and their lengths. A store that is in use is never removed: whoever uses it holds a lock on
it, which the system takes back from a process that is killed. So it does from the writer of a shard.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ssl_suite.core.files import Lock, replacing, sweep, write_text
from ssl_suite.core.hashing import config_hash
from ssl_suite.core.moments import Moments

INDEX, LEASE = "index.json", ".lease"
PASSING = "passing-"
"""How the names of stores begin that go first: features that nobody will ask for again."""


@dataclass
class Shard:
    """Features of some items, one after the other.

    Attributes:
        values: (ΣT, S, D) states.
        lengths: (N,) T of each item.
        index: (N,) position of each item in its split, ascending.
        moments: of the values.
    """

    values: Tensor
    lengths: Tensor
    index: Tensor
    moments: Moments

    def save(self, path: Path) -> None:
        of = self.moments
        tensors = {"values": self.values, "lengths": self.lengths, "index": self.index}
        tensors |= {"count": torch.tensor(of.count), "mean": of.mean, "squares": of.squares}
        with replacing(path) as temporary:
            save_file(tensors, str(temporary))

    @classmethod
    def load(cls, path: Path, items: range) -> Shard | None:
        """Maps a file; None where there is none, or one that is cut short or not of these items."""
        try:
            found = load_file(str(path)) if path.exists() else {}
            moments = Moments(int(found["count"]), found["mean"], found["squares"])
            shard = cls(found["values"], found["lengths"], found["index"], moments)
        except (SafetensorError, OSError, KeyError):
            return None
        return shard if shard.is_of(items) else None

    def is_of(self, items: range) -> bool:
        """Whether what it says of itself can be true of some of these items."""
        index = self.index.tolist()
        return (
            index == sorted(set(index) & set(items))
            and len(index) == len(self.lengths)
            and int(self.lengths.sum()) == len(self.values) == self.moments.count
        )


@dataclass(frozen=True)
class Plan:
    """How a split is cut into shards.

    Attributes:
        starts: first item of each shard, and the number of items.
        size: bytes that all shards will take, or somewhat fewer.
        pooled: whether an item has one vector a state.
    """

    starts: tuple[int, ...]
    size: int
    pooled: bool

    def __len__(self) -> int:
        return len(self.starts) - 1

    def items(self, shard: int) -> range:
        return range(self.starts[shard], self.starts[shard + 1])


class Store:
    """An opened store: nobody removes it while this object lives.

    Args:
        folder: of the store.
        plan: of its shards.
        lease: the lock that says so.
    """

    def __init__(self, folder: Path, plan: Plan, lease: Lock) -> None:
        self.folder, self.plan = folder, plan
        self._shards: dict[int, Shard] = {}
        self._writing: dict[int, Lock] = {}
        weakref.finalize(self, lease.release)

    def shard(self, number: int) -> Shard | None:
        """A shard that is there and whole."""
        if number not in self._shards and (shard := Shard.load(self._path(number), self.plan.items(number))):
            self._shards[number] = shard
        return self._shards.get(number)

    def complete(self, make: Callable[[Iterator[int]], None], first: int = 0) -> list[Shard]:
        """Returns all shards, after making those that are missing; of several processes, each makes some.

        Args:
            make: is given the numbers of shards to make, one when it has begun the one before, and calls `write`.
            first: where to begin; another one in each process, so that they rarely meet.
        """
        order = [*range(first, len(self.plan)), *range(first)]
        try:
            while missing := [k for k in order if self.shard(k) is None]:
                claimed = self._claims(missing)
                if (one := next(claimed, None)) is not None:
                    make(_chained(one, claimed))
                else:  # others make them: wait until one is done, or gives it up
                    with Lock(self._path(missing[0], "lock")):
                        pass
        finally:
            for lock in self._writing.values():
                lock.release()
            self._writing.clear()
        return [self._shards[k] for k in range(len(self.plan))]

    def _claims(self, numbers: list[int]) -> Iterator[int]:
        """Those that no other process makes; they are ours from now on."""
        for number in numbers:
            lock = Lock(self._path(number, "lock"))
            if not lock.take(wait=False):
                continue
            if self.shard(number) is None:
                self._writing[number] = lock
                yield number
            else:
                lock.release()

    def write(self, number: int, shard: Shard) -> None:
        """Keeps a shard that was claimed."""
        shard.save(self._path(number))
        self._path(number, "lock").unlink(missing_ok=True)  # a process that waits for it looks for the shard first
        self._writing.pop(number).release()

    def _path(self, number: int, kind: str = "safetensors") -> Path:
        return self.folder / f"{number:06}.{kind}"


def open_store(root: Path, name: str, plan: Callable[[], Plan], bound: float) -> Store | None:
    """Opens a store, or begins it; others go until it fits, first `PASSING` ones, then those not used for longest.

    Args:
        root: of all stores.
        name: of this one.
        plan: of its shards; called where there is none yet.
        bound: bytes all stores may take together.

    Returns:
        The store; None where it would not fit beside those in use, or on the disk.
    """
    folder, lease = root / name, Lock(root / name / LEASE)
    begun = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with Lock(root / ".lock"):
        folder.mkdir(exist_ok=True)
        if lease.take(wait=False):  # nobody else writes here
            sweep(folder)
        lease.take(shared=True)
    try:
        made = _read_plan(folder) or plan()
        with Lock(root / ".lock"):
            fits = _make_room(root, folder, made.size, bound)
            if not fits:
                gc.collect()  # stores of models that are gone are in use no more
                fits = _make_room(root, folder, made.size, bound)
            if fits:
                write_text(folder / INDEX, json.dumps(asdict(made) | {"hash": _hash(made)}))  # now the one used last
    except BaseException:
        lease.release()
        raise
    if fits:
        return Store(folder, made, lease)
    lease.release()
    with Lock(root / ".lock"):
        if begun and _free(folder):
            shutil.rmtree(folder)
    return None


def _read_plan(folder: Path) -> Plan | None:
    try:
        found = json.loads((folder / INDEX).read_text())
        plan = Plan(tuple(found["starts"]), found["size"], found["pooled"])
        return plan if found["hash"] == _hash(plan) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _hash(plan: Plan) -> str:
    """Tells an index that somebody changed."""
    return config_hash(asdict(plan))


def _make_room(root: Path, mine: Path, size: int, bound: float) -> bool:
    """Removes other stores until one of `size` bytes fits; none where that does not suffice."""
    found = [path for path in root.iterdir() if path != mine and not path.is_symlink()]
    others = [path for path in found if (path / LEASE).is_file()]  # what else lies here is nobody's to remove
    sizes = {folder: _size(folder) for folder in others}
    free = sorted((f for f in others if _free(f)), key=lambda f: (not f.name.startswith(PASSING), _used(f)))
    there = _size(mine)
    room = bound - sum(sizes.values())
    disk = shutil.disk_usage(root).free + there
    going: list[Path] = []
    while min(room, disk) < size and free:
        going.append(free.pop(0))
        room, disk = room + sizes[going[-1]], disk + sizes[going[-1]]
    if min(room, disk) < size:
        return False
    for folder in going:
        shutil.rmtree(folder)
    return True


def _size(folder: Path) -> int:
    """Bytes of a store; of one in use, at least those it will have."""
    taken = 0
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            taken += path.stat().st_size
    planned = None if _free(folder) else _read_plan(folder)
    return max(taken, planned.size if planned else 0)


def _used(folder: Path) -> float:
    """When a store was opened last."""
    path = folder / INDEX
    return os.stat(path if path.exists() else folder).st_mtime


def _free(folder: Path) -> bool:
    """Whether nobody has a store open."""
    lease = Lock(folder / LEASE)
    taken = lease.take(wait=False)
    lease.release()
    return taken


def _chained(first: int, rest: Iterable[int]) -> Iterator[int]:
    yield first
    yield from rest
