"""Joint: rows that two or more modalities share: pictures with captions, recordings with transcripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from ssl_suite.core.batch import JointBatch, Target
from ssl_suite.core.data import DataModule
from ssl_suite.core.errors import UserError
from ssl_suite.core.request import Request


class Joint(DataModule):
    """Several data modules over the same rows, an item of each at a time.

    Args:
        parts: by the names of the encoders: `{image: {class_path: Images, ...}, text: {class_path: Text, ...}}`; their
            own batch sizes are not used. The first one's target is that of the item.
        batch_size: items a step and rank.
        eval_batch_size: for validation and test; default: `batch_size`.
        num_workers: loader processes.
        on_error: `raise` at the first item of which a part is unreadable, or `skip` and count it.
    """

    def __init__(
        self,
        parts: dict[str, DataModule],
        batch_size: int = 256,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, on_error)
        if len(parts) < 2:
            raise UserError("Joint data have two parts or more: data.parts {image: ..., text: ...}.")
        self.named = parts
        for part in parts.values():
            part.num_workers, part.on_error = num_workers, on_error
        self.modality = "+".join(part.modality for part in parts.values())

    @classmethod
    def kinds(cls) -> Sequence[str]:
        return ("class",)

    @property
    def first(self) -> DataModule:
        return next(iter(self.named.values()))

    @property
    def source_name(self) -> str:
        return ", ".join(dict.fromkeys(part.source_name for part in self.named.values()))

    def part(self, name: str) -> DataModule:
        if name not in self.named:
            raise UserError(f"data.parts has no {name!r}, which an encoder is called; it has {', '.join(self.named)}.")
        return self.named[name]

    def prepare(self, request: Request) -> None:
        """Serves each part.

        Raises:
            UserError: their rows are not the same.
        """
        for name, part in self.named.items():
            asked = request.parts.get(name, Request(pretrains=request.pretrains, aligned=True))
            if part is self.first:
                asked = replace(asked, target=request.target, watch=request.watch)
            part.serve(asked)
        for name, part in self.named.items():
            for split in self.splits():
                both = self.first, part
                ids = all(data.has_names(split) for data in both) and part.ids(split) == self.first.ids(split)
                if not ids and part.rows_of(split) != self.first.rows_of(split):
                    raise UserError(
                        f"The {split} split of {self.source_name} has {self.first.size(split)} rows for "
                        f"{next(iter(self.named))!r} and {part.size(split)} others for {name!r}: an item of a joint "
                        "batch is one row of all. Read the same table, with `where` and splits alike, or give both "
                        "tables a column `id`."
                    )
        self.labels, self.unseen = self.first.labels, self.first.unseen

    def splits(self) -> Sequence[str]:
        return [split for split in self.first.splits() if all(part.has(split) for part in self.named.values())]

    def size(self, split: str) -> int:
        return self.first.size(split)

    def ids(self, split: str) -> list[str]:
        return self.first.ids(split)

    def read(self, split: str, index: int, seed: int) -> dict[str, Any]:
        return {name: part.read(split, index, seed) for name, part in self.named.items()}

    def read_for_training(self, index: int, seed: int) -> dict[str, Any]:
        return {name: part.read_for_training(index, seed) for name, part in self.named.items()}

    @property
    def augments(self) -> bool:
        return any(part.augments for part in self.named.values())

    def collate(self, items: list[dict[str, Any]]) -> JointBatch:
        parts = {name: part.collate([item[name] for item in items]) for name, part in self.named.items()}
        first = next(iter(parts.values()))
        return JointBatch(first.index, first.seed, first.target, parts)

    def finish(self, batch: Any) -> Any:
        if not isinstance(batch, JointBatch):
            return batch
        parts = {name: part.finish(batch.parts[name]) for name, part in self.named.items()}
        return JointBatch(batch.index, batch.seed, batch.target, parts)

    def target(self, split: str, index: int) -> Target:
        return self.first.target(split, index)

    def has_targets(self, split: str) -> bool:
        return self.first.has_targets(split)

    @property
    def labels_used(self) -> int:
        return self.first.labels_used

    @property
    def task_name(self) -> str:
        return self.first.task_name

    def fingerprint(self, split: str) -> str:
        return "|".join(f"{name}:{part.fingerprint(split)}" for name, part in self.named.items())

    def identity(self) -> str:
        return "|".join(f"{name}:{part.identity()}" for name, part in self.named.items())
