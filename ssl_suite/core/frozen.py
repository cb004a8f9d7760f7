"""Frozen: what a probe is served: features from a store, or what the encoder in the loop is to make features of."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import torch
from pytorch_lightning.utilities import rank_zero_warn

from ssl_suite.core.check import within
from ssl_suite.core.errors import UserError
from ssl_suite.core.features import Encode, Features, default_cache, encoded_shards, planned
from ssl_suite.core.loader import Loader
from ssl_suite.core.moments import Moments
from ssl_suite.core.outcomes import gathered
from ssl_suite.core.random import run_seed
from ssl_suite.core.sampler import EvalSampler, budget_batches, plain_batches
from ssl_suite.core.store import PASSING, Plan, Shard, Store, open_store

if TYPE_CHECKING:
    from ssl_suite.core.data import DataModule

VERSION = 2
"""Part of every key: features of another version are never read."""


@dataclass(frozen=True)
class Room:
    """Where frozen features are kept; nothing of it changes a result.

    Args:
        keep: on disk, in the user's cache folder, for later runs; otherwise in memory, for this process.
        disk_gb: 10⁹ bytes that all kept features may take; those used least recently go.
        memory_gb: the same of those in memory.
    """

    keep: bool = True
    disk_gb: float = 50.0
    memory_gb: float = 4.0

    def __post_init__(self) -> None:
        within("model.room.disk_gb", self.disk_gb, low=0)
        within("model.room.memory_gb", self.memory_gb, low=0)

    @property
    def bound(self) -> float:
        """Bytes."""
        return 1e9 * (self.disk_gb if self.keep else self.memory_gb)

    @property
    def option(self) -> str:
        return "disk_gb" if self.keep else "memory_gb"


class Frozen:
    """Serves what a frozen encoder makes of the data.

    Args:
        data: whose items are encoded.
        encode: a batch as it is loaded → the selected states.
        key: all that determines what `encode` gives for a batch.
        dtype: of kept features.
        passing: whether no later run will want them: they go first.
        room: where they are kept.
    """

    def __init__(
        self,
        data: DataModule,
        encode: Encode,
        key: str,
        dtype: torch.dtype = torch.float32,
        passing: bool = False,
        room: Room = Room(),
    ) -> None:
        self.data, self.encode, self.key, self.dtype, self.passing, self.room = data, encode, key, dtype, passing, room
        self._plans: dict[str, Plan] = {}
        self._features: dict[str, Features | None] = {}
        self._stores: list[Store] = []

    def features(self, split: str) -> Features | None:
        """The features of a split, made where they are not kept yet; None: the encoder is to run in the loop."""
        if split not in self._features:
            data = self.data
            shards = self._kept(split) if self.room.keep else self._remembered(split)
            if shards is None:
                rank_zero_warn(
                    f"The features of the {split} split would take {self._plan(split).size / 1e9:.3g} GB, more than "
                    f"model.room.{self.room.option} ({getattr(self.room, self.room.option):g}) or the disk has left, "
                    "so the encoder runs in the loop."
                )
                self._features[split] = None
            else:
                target = partial(data.target, split) if data.has_targets(split) else None
                features = self._features[split] = Features(shards, target)
                self._note_skipped(split, features.index.tolist())
        return self._features[split]

    @property
    def moments(self) -> Moments:
        """Of the features of the training split; the same on every rank."""
        features = self.features("train")
        return self._survey[1] if features is None else features.moments

    def measure(self) -> Moments:
        """The same, of features that nobody keeps."""
        return self._survey[1]

    def train_batches(self, epoch: int) -> list[list[int]]:
        """Batches of training: rows of the features, or items of the split where the encoder runs in the loop."""
        data, features = self.data, self.features("train")
        items = self._readable if features is None else features.index.tolist()
        pooled = self._plan("train").pooled if features is None else features.pooled
        if data.train_budget is not None and not pooled:
            batches = budget_batches(self._lengths("train", items), data.train_budget, run_seed(), epoch)
        else:
            batches = plain_batches(len(items), data.batch_size, run_seed(), epoch, drop_last=False)
        return batches if features is not None else [[items[i] for i in batch] for batch in batches]

    def eval_loader(self, split: str) -> Loader:
        """Every item of a split once."""
        data, features = self.data, self.features(split)
        items = list(range(data.size(split))) if features is None else features.index.tolist()
        bound = data.eval_budget is not None and (features is None or not features.pooled)
        lengths = self._lengths(split, items) if bound else None
        sampler = EvalSampler(len(items), data.eval_batch_size, lengths, *data.place, data.eval_budget)
        return data.loader(sampler, data.dataset(split) if features is None else features, features is not None)

    def _lengths(self, split: str, items: list[int]) -> list[float]:
        lengths = self.data.lengths(split)
        return [1.0 if lengths is None else lengths[i] for i in items]

    def _plan(self, split: str) -> Plan:
        if split not in self._plans:
            self._plans[split] = planned(self.data, split, self.encode, self.dtype)
        return self._plans[split]

    def _name(self, split: str) -> str:
        made_from = (VERSION, self.key, self.dtype, self.data.fingerprint(split), split, self.data.on_error == "skip")
        return hashlib.sha256("|".join(map(str, made_from)).encode()).hexdigest()[:24]

    def _kept(self, split: str) -> list[Shard] | None:
        """Those on disk; the first rank says whether they fit, and all share the work out."""
        rank, world = self.data.place
        name, root, plan = PASSING * self.passing + self._name(split), default_cache() / "features", self._plan
        store = open_store(root, name, partial(plan, split), self.room.bound) if rank == 0 else None
        if not self._first_says(store is not None):
            return None
        store = store or open_store(root, name, partial(plan, split), float("inf"))
        if store is None:
            raise UserError(f"The disk of {root} has become full; make room or name another: SSL_SUITE_CACHE=FOLDER.")
        self._stores.append(store)
        self._plans[split] = store.plan

        def write(number: int, shard: Callable[[], Shard]) -> None:
            store.write(number, shard())

        def make(numbers: Iterator[int]) -> None:
            """A thread writes a shard while the encoder makes the next."""
            writing: Future[None] | None = None
            with ThreadPoolExecutor(1) as writer:
                for number, shard in encoded_shards(self.data, split, self.encode, store.plan, numbers, self.dtype):
                    if writing is not None:
                        writing.result()
                    writing = writer.submit(write, number, shard)
            if writing is not None:
                writing.result()

        return store.complete(make, first=rank * len(store.plan) // world)

    def _remembered(self, split: str) -> list[Shard] | None:
        """Those in memory; of several ranks, each makes some and is given the others."""
        rank, world = self.data.place

        def make() -> list[Shard]:
            plan = self._plan(split)
            numbers = iter(range(rank, len(plan), world))
            parts = encoded_shards(self.data, split, self.encode, plan, numbers, self.dtype)
            made = gathered([(number, shard()) for number, shard in parts])
            return [shard for _, shard in sorted(made, key=lambda one: one[0])]

        if world == 1:
            return remembered(self._name(split), self, lambda: self._plan(split).size, make, self.room.bound)
        return make() if self._first_says(self._plan(split).size <= self.room.bound) else None

    def _first_says(self, mine: bool) -> bool:
        """What the first rank says."""
        trainer = self.data.trainer
        return bool(trainer.strategy.broadcast(mine)) if trainer else mine

    @property
    def _readable(self) -> list[int]:
        """Items of the training split that can be read."""
        return self._survey[0] if self.data.on_error == "skip" else list(range(self.data.size("train")))

    @cached_property
    def _survey(self) -> tuple[list[int], Moments]:
        """What features of the training split would say if they were kept: which items have some, and their moments."""
        rank, world = self.data.place
        plan = self._plan("train")
        parts = encoded_shards(self.data, "train", self.encode, plan, iter(range(rank, len(plan), world)), self.dtype)
        made = ((number, shard()) for number, shard in parts)
        found = sorted(gathered([(n, s.index.tolist(), s.moments) for n, s in made]), key=lambda part: part[0])
        items = [i for _, index, _ in found for i in index]
        self._note_skipped("train", items)
        return items, Moments.join([moments for _, index, moments in found if index])

    def _note_skipped(self, split: str, kept: list[int]) -> None:
        """Counts unreadable items that were met when features were made, maybe in another run."""
        self.data.skipped.expect(split, self.data.size(split))
        for lost in set(range(self.data.size(split))).difference(kept):
            self.data.skipped.add(split, lost)


@dataclass(eq=False)
class _Held:
    """Features in memory, and who uses them."""

    shards: list[Shard]
    size: int
    users: WeakSet[Any] = field(default_factory=WeakSet)


_memory: dict[str, _Held] = {}
"""By key, that used least recently first."""


def remembered(
    key: str, user: Any, size: Callable[[], int], make: Callable[[], list[Shard]], bound: float
) -> list[Shard] | None:
    """Returns what `make` made for this key, now or earlier in this process.

    Args:
        key: names it.
        user: it stays in memory while this one lives.
        size: bytes it will take, asked before it is made.
        make: makes it.
        bound: bytes that all may take together; those used least recently go.

    Returns:
        None where it would not fit beside those in use.
    """
    held = _memory.pop(key, None)
    if held is None:
        size_of_it = size()
        if size_of_it + sum(other.size for other in _memory.values() if other.users) > bound:
            return None
        for name, other in list(_memory.items()):
            if size_of_it + sum(kept.size for kept in _memory.values()) > bound and not other.users:
                del _memory[name]
        held = _Held(make(), size_of_it)
    _memory[key] = held
    held.users.add(user)
    return held.shards
