"""DataModule: what all data modules share: splits, loaders, seeds, targets, frozen features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch.utils.data import DataLoader, Dataset

from ssl_suite.core.batch import Batch, Target
from ssl_suite.core.check import within
from ssl_suite.core.encoder import Modality
from ssl_suite.core.errors import UserError
from ssl_suite.core.features import Encode, Features
from ssl_suite.core.frozen import Frozen
from ssl_suite.core.items import Collate, ItemDataset, Skipped
from ssl_suite.core.loader import Loader
from ssl_suite.core.random import run_seed
from ssl_suite.core.request import Request
from ssl_suite.core.sampler import EpochSampler, EvalSampler, Key, joined, plain_batches
from ssl_suite.core.sharding import place
from ssl_suite.core.task import Labels
from ssl_suite.core.workers import heed_the_run_alone

Split = Literal["train", "validation", "test"]


def batches_done(trainer: pl.Trainer) -> int:
    """Training batches a run has finished, over all epochs and resumes; Lightning keeps the count in checkpoints."""
    return trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]


class DataModule(pl.LightningDataModule, ABC):
    """Base of all data modules.

    A subclass says how many items a split has, reads one, and collates; everything else is here.

    Args:
        batch_size: items a step and rank.
        eval_batch_size: for validation, test and frozen features; default: `batch_size`.
        num_workers: loader processes.
        on_error: `raise` at the first unreadable sample, or `skip` and count it.
    """

    modality: Modality | str
    labels: Labels
    train_budget: float | None = None
    """Most padded units of `lengths` in a training batch; None: `batch_size` decides."""
    eval_budget: float | None = None
    """The same of a batch that is evaluated or encoded, beside `eval_batch_size`."""
    tokenizer: Any = None
    """Of texts, once they are served."""
    unseen: Labels | tuple[()] = ()
    """Labels that occur, but not in training: right answers that nobody can give, see `Task.unseen`."""

    def __init__(
        self,
        batch_size: int,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> None:
        super().__init__()
        within("data.batch_size", batch_size, low=1, whole=True)
        if eval_batch_size is not None:
            within("data.eval_batch_size", eval_batch_size, low=1, whole=True)
        within("data.num_workers", num_workers, low=0, whole=True)
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size or batch_size
        self.num_workers, self.on_error = num_workers, on_error
        self.labels = []
        self.predict_split: str | None = None
        self.request: Request | None = None
        self.skipped = Skipped()
        self._frozen: Frozen | None = None
        self._training: Loader | None = None

    # What a subclass gives -------------------------------------------------------------------------------------

    @abstractmethod
    def prepare(self, request: Request) -> None:
        """Opens the source, checks it and resolves targets; called once by `serve`."""

    @abstractmethod
    def splits(self) -> Sequence[str]:
        """The splits there are."""

    @abstractmethod
    def size(self, split: str) -> int:
        """Number of items of a split."""

    @abstractmethod
    def read(self, split: str, index: int, seed: int) -> Any:
        """Reads one item; raises BadItem naming file and row."""

    def read_for_training(self, index: int, seed: int) -> Any:
        """Reads one item of the training split for a step of training: augmented, where the user wants that."""
        return self.read("train", index, seed)

    @property
    def augments(self) -> bool:
        """Whether `read_for_training` differs from `read`, and from epoch to epoch."""
        return False

    @classmethod
    def kinds(cls) -> Sequence[str]:
        """The kinds of target it can give."""
        return ()

    @abstractmethod
    def collate(self, items: list[Any]) -> Batch:
        """Makes the batch."""

    def finish(self, batch: Any) -> Any:
        """What is cheaper on the device, once the batch is there: decoding to float, augmentation."""
        return batch

    @abstractmethod
    def fingerprint(self, split: str) -> str:
        """Names a split's data and every option that changes what an encoder sees; keys the feature cache."""

    def identity(self) -> str:
        """Names all rows of the task, whatever encoder reads them and whichever of them a seed gives labels."""
        return "|".join(f"{split}:{self.fingerprint(split)}" for split in self.splits())

    def rows_of(self, split: str) -> str:
        """Names the table and which of its rows the items are, whatever of a row is read."""
        return self.fingerprint(split)

    def has_names(self, split: str) -> bool:
        """Whether `ids` are names that the data give, rather than numbers."""
        return False

    def ids(self, split: str) -> list[str]:
        """A name for each item of a split."""
        return [str(i) for i in range(self.size(split))]

    def lengths(self, split: str) -> Sequence[float] | None:
        """Length of each item where batches should hold similar lengths; None where all are equal."""
        return None

    def tokens_per_byte(self, split: str) -> float | None:
        """Of a text's tokens and UTF-8 bytes, for figures that compare tokenizers; None where that is not known."""
        return None

    def train_batches(self, epoch: int) -> list[list[int]]:
        """All training batches of an epoch, over all ranks."""
        size, seed = self.size("train"), run_seed()
        return joined(plain_batches(size, self.batch_size, seed, epoch, drop_last=self._pretraining))

    @classmethod
    def proposed_task(cls, settings: Mapping[str, Any]) -> tuple[str, list[str]] | None:
        """Kind of target and metrics (the first selects models) of the task that these settings name, if they do."""
        return None

    def has_targets(self, split: str) -> bool:
        """Whether a split has targets, where a task wants some; without, it is only for `predict`."""
        return True

    @property
    def labels_used(self) -> int:
        """Labelled training items a task learns from."""
        return self.size("train") if self.has("train") and self.has_targets("train") else 0

    @property
    def task_name(self) -> str:
        """How results name the task, unless the user does."""
        return self.source_name.removeprefix("samples:")

    def part(self, name: str) -> DataModule:
        """The data of one encoder: all of it, unless batches are joint."""
        return self

    def expect_known(self, split: str) -> None:
        """Raises UserError at a row whose label the task cannot learn."""

    def answer(self, split: str, index: int, answer: Any) -> Any:
        """What `predict` writes of a task's answer on one item."""
        return answer

    def submission(self, split: str, answers: list[Any]) -> tuple[str, str] | None:
        """Name and text of the file a leaderboard wants for the answers on all items of a split; None: it has none."""
        return None

    # What every data module does -------------------------------------------------------------------------------

    def serve(self, request: Request) -> None:
        """Called by a model's `setup`: tells the data what is wanted. The same request again changes nothing.

        Raw inputs are served from now on, until `use_features`: another model may have asked for its own.
        """
        self._frozen = None
        if not self._served(request):
            self._expect_given(request)
            self.skipped.clear()
            self.prepare(request)
            self.request = request
            for split in self.splits():
                if self.size(split) == 0:
                    raise UserError(f"{self.source_name}: split {split!r} is empty.")

    def _served(self, request: Request) -> bool:
        """Whether this was asked before; a tokenizer or preprocessing that came from here is no new wish."""
        mine = self.tokenizer
        before = self.request and replace(self.request, tokenizer=mine, labels=None, preprocess={})
        return (
            before == replace(request, tokenizer=request.tokenizer or mine, labels=None, preprocess={})
            and (request.labels is None or request.labels == self.labels)
            and self.preprocess(request) == self.preprocess(self.request)
        )

    def _expect_given(self, request: Request) -> None:
        for kind in request.kinds:
            if kind not in self.kinds():
                fitting = (c for c in below(DataModule) if getattr(c, "modality", None) == self.modality)
                able = sorted(c.__name__ for c in fitting if kind in c.kinds())
                hint = f" {', '.join(able)} can: --data {able[0]}." if able else ""
                mine = ", ".join(self.kinds()) or "none at all"
                raise UserError(f"{type(self).__name__} gives no target of the kind {kind!r}; it gives {mine}.{hint}")

    def preprocess(self, request: Request | None) -> dict[str, Any]:
        """The options that change what an encoder sees, as they are for this request; an encoder folder keeps them."""
        return {}

    @property
    def source_name(self) -> str:
        return str(getattr(self, "source", type(self).__name__))

    @property
    def _pretraining(self) -> bool:
        return self.request is None or self.request.pretrains

    def use_features(self, encode: Encode, key: str, **options: Any) -> None:
        """Serves what `encode` makes of the inputs from now on, see `Frozen`; training inputs only if they stay."""
        self._frozen = Frozen(self, encode, key, **options)

    def use_inputs(self) -> None:
        """Serves the inputs themselves from now on, for a probe that looks at them too."""
        self._frozen = None

    @property
    def frozen(self) -> Frozen:
        assert self._frozen is not None
        return self._frozen

    def has(self, split: str) -> bool:
        return split in self.splits()

    def dataset(self, split: str, training: bool = False) -> Dataset[Any]:
        return ItemDataset(self, split, run_seed(), training)

    def __getstate__(self) -> dict[str, Any]:
        """What loader processes that are not forked need: no trainer, model or features."""
        return self.__dict__ | {"trainer": None, "_frozen": None, "_training": None}

    def features(self, split: str) -> Features | None:
        """The frozen features of a split with its targets; None where they would not fit."""
        self._expect(split)
        return self.frozen.features(split)

    def target(self, split: str, index: int) -> Target:
        """The target of one item, without reading its input."""
        raise UserError(f"{type(self).__name__} has no targets.")

    def train_dataloader(self) -> Loader:
        self._expect("train")
        frozen = None if self.augments else self._frozen
        batches = frozen.train_batches if frozen else self.train_batches
        rank, world = self.place
        sampler = EpochSampler(batches, self._position, rank, world, self._limit(len(batches(0)) // world))
        if frozen and (features := frozen.features("train")) is not None:
            return self.loader(sampler, features, True)
        together = self.trainer.accumulate_grad_batches if self.trainer else 1
        self._training = self.loader(sampler, self.dataset("train", training=True), False, together)
        return self._training

    @property
    def following(self) -> list[Any]:
        """Training batches, on the host, that come after the present one and share its optimizer step."""
        return self._training.following() if self._training else []

    def parts(self, kind: str) -> list[str]:
        """A split and what a task has beside it: of MNLI, `validation` and `validation_mismatched`."""
        judged = self.request is not None and self.request.target is not None and not self.request.pretrains
        beside = [] if not judged else [s for s in self.splits() if s.startswith(f"{kind}_")]
        return [kind, *beside]

    @property
    def predicted(self) -> list[str]:
        """The splits `predict` answers: the one that was named, and what a task has beside it."""
        split = self.predict_split or "test"
        if not self.has(split):
            raise UserError(
                f"{self.source_name} has no {split} split to answer; it has: {', '.join(self.splits())}. Name one with "
                "--split, or keep the rows to answer in a folder as test.jsonl, test.csv, ... or, files, in test/."
            )
        return self.parts(split)

    def val_dataloader(self) -> Loader | list[Loader]:
        if self.trainer and self.trainer.state.fn == "validate":  # training does without
            self._expect("validation")
        return self._loaders(self.parts("validation")) if self.has("validation") else []

    def test_dataloader(self) -> Loader | list[Loader]:
        return self._loaders(self.parts("test"))

    def predict_dataloader(self) -> Loader | list[Loader]:
        return self._loaders(self.predicted)

    def _loaders(self, splits: list[str]) -> Loader | list[Loader]:
        loaders = [self.eval_dataloader(split) for split in splits]
        return loaders if len(loaders) > 1 else loaders[0]

    def eval_dataloader(self, split: str) -> Loader:
        """Every item of a split once, unshuffled and un-augmented, from cached features where those are in use."""
        self._expect(split)
        if self._frozen is not None:
            return self._frozen.eval_loader(split)
        lengths = self.lengths(split)
        sampler = EvalSampler(self.size(split), self.eval_batch_size, lengths, *self.place, self.eval_budget)
        return self.loader(sampler, self.dataset(split), False)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return self.finish(batch)

    def loader(self, sampler: Iterable[list[Key]], dataset: Dataset[Any], ready: bool, together: int = 1) -> Loader:
        """Loads what `sampler` names; in this process, and as they come, where items are `ready` batches."""
        workers = 0 if ready else self.num_workers
        loader = DataLoader(
            dataset,
            batch_sampler=sampler,
            collate_fn=_identity if ready else Collate(self.collate),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # workers take no number from the run's own stream
            worker_init_fn=heed_the_run_alone,
        )
        return Loader(loader, together)

    @property
    def place(self) -> tuple[int, int]:
        """This process' rank among those that read other rows, and how many there are."""
        return place(self.trainer) if self.trainer else (0, 1)

    def _position(self) -> int:
        return batches_done(self.trainer) if self.trainer else 0

    def _limit(self, batches: int) -> int | None:
        limit = self.trainer.limit_train_batches if self.trainer else 1.0
        return limit if isinstance(limit, int) else max(1, int(batches * (limit or 1.0)))

    def _expect(self, split: str) -> None:
        if not self.has(split):
            hint = f"; name one with --data.{split}" if split in ("train", "validation", "test") else ""
            raise UserError(f"{self.source_name} has no {split} split; it has: {', '.join(self.splits())}{hint}.")

    def teardown(self, stage: str) -> None:
        if self.skipped.value:
            rank_zero_warn(f"{self.source_name}: {self.skipped.value} unreadable samples were skipped.")


def below(cls: type[Any]) -> list[type[Any]]:
    """All classes below a class that are imported."""
    return [found for child in cls.__subclasses__() for found in (child, *below(child))]


def _identity(batch: Any) -> Any:
    return batch
