"""Watching a method learn: an online linear probe and a kNN classifier, as callbacks. Neither touches its gradients.

Their figures are logged under `online/` and `knn/`, never beside those of a probe on a finished encoder.
"""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.utilities.distributed import gather_all_tensors

from ssl_suite.core.batch import IGNORE, Batch
from ssl_suite.core.check import within
from ssl_suite.core.encoder import Encoder
from ssl_suite.core.errors import UserError


class Watcher(pl.Callback):
    """Asks for the data's labels while a method pretrains."""

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        if not hasattr(pl_module, "watch"):
            raise UserError(f"{type(self).__name__} watches pretraining methods, not {type(pl_module).__name__}.")
        pl_module.watch = "class"


class OnlineProbe(Watcher):
    """A linear classifier on the features of each step, detached, with an optimizer of its own.

    Args:
        lr: of its Adam.
    """

    def __init__(self, lr: float = 1e-3) -> None:
        within("OnlineProbe.lr", lr, above=0)
        self.lr = lr
        self.head: nn.Linear | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self._saved: dict[str, Any] | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        classes, device = len(pl_module.data.labels), pl_module.device
        with torch.random.fork_rng():  # its initial weights take no number from the run
            self.head = nn.Linear(pl_module.watched.dim, classes).to(device)
        self.optimizer = torch.optim.Adam(self.head.parameters(), self.lr)
        if self._saved is not None:
            self.head.load_state_dict(self._saved["head"])
            self.optimizer.load_state_dict(self._saved["optimizer"])
        self.head.load_state_dict(trainer.strategy.broadcast(self.head.state_dict()))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        assert self.head is not None
        assert self.optimizer is not None
        features, target = outputs["features"], batch.target
        if features is None or not isinstance(target, Tensor):
            raise UserError(f"OnlineProbe: {type(pl_module).__name__} gives no features, or the data has no labels.")
        with torch.enable_grad():
            logits = self.head(features.detach().float())
            loss = F.cross_entropy(logits, target, ignore_index=IGNORE)
            self.optimizer.zero_grad()
            loss.backward()
        for parameter in self.head.parameters():  # the same head on every rank
            parameter.grad = trainer.strategy.reduce(parameter.grad, reduce_op="mean")
        self.optimizer.step()
        pl_module.log("online/train_loss", loss.detach(), batch_size=len(batch))
        pl_module.log("online/train_accuracy", accuracy(logits, target), batch_size=len(batch))

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self.head is None or not isinstance(batch.target, Tensor):
            return
        logits = self.head(pl_module.embeddings(batch).float())
        pl_module.log("online/val_accuracy", accuracy(logits, batch.target), batch_size=len(batch), sync_dist=True)

    def state_dict(self) -> dict[str, Any]:
        if self.head is None or self.optimizer is None:
            return {}
        return {"head": self.head.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._saved = state_dict or None


class KNN(Watcher):
    """Weighted k-nearest-neighbour accuracy on the validation split (Wu et al. 2018, arXiv:1805.01978, section 3.4).

    The bank holds the un-augmented training split, seen by the encoder in eval mode; each rank embeds its share.

    Args:
        k: neighbours; at most the size of the bank.
        temperature: a neighbour of cosine s votes with exp(s / temperature).
        every: epochs between two measurements.
    """

    def __init__(self, k: int = 200, temperature: float = 0.1, every: int = 1) -> None:
        within("KNN.k", k, low=1, whole=True)
        within("KNN.temperature", temperature, above=0)
        within("KNN.every", every, low=1, whole=True)
        self.k, self.temperature, self.every = k, temperature, every

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.sanity_checking or (trainer.current_epoch + 1) % self.every:
            return
        encoder, data = pl_module.watched, pl_module.data
        training = encoder.training
        encoder.eval()
        bank, labels = (_of_all_ranks(part) for part in self._embed(encoder, data, "train", pl_module.device))
        queries, truth = self._embed(encoder, data, "validation", pl_module.device)
        encoder.train(training)
        guess = knn_predict(queries, bank, labels, len(data.labels), self.k, self.temperature)
        hits = _of_all_ranks((guess == truth).float())
        pl_module.log("knn/val_accuracy", hits.mean(), sync_dist=True)

    @staticmethod
    def _embed(encoder: Encoder, data: Any, split: str, device: torch.device) -> tuple[Tensor, Tensor]:
        """This rank's share of a split: (N, D) and (N,) classes."""
        vectors = [torch.empty(0, encoder.dim, device=device)]
        targets = [torch.empty(0, dtype=torch.long, device=device)]
        for batch in data.eval_dataloader(split):
            ready = data.finish(batch.to(device))
            vectors.append(encoder(ready).pooled.float())
            targets.append(ready.target)
        return torch.cat(vectors), torch.cat(targets)


def _of_all_ranks(rows: Tensor) -> Tensor:
    """The rows of every rank, which may have unequally many, one rank after the other."""
    return torch.cat(gather_all_tensors(rows)) if torch.distributed.is_initialized() else rows


def knn_predict(
    queries: Tensor, bank: Tensor, labels: Tensor, classes: int, k: int = 200, temperature: float = 0.1
) -> Tensor:
    """Returns (Q,) classes.

    Args:
        queries: (Q, D).
        bank: (N, D); rows of both are normalised here.
        labels: (N,) classes of the bank.
        classes: how many there are.
        k: neighbours, clamped to N.
        temperature: of the votes.
    """
    bank = F.normalize(bank, dim=1)
    guesses = []
    for part in F.normalize(queries, dim=1).split(1024):
        similarity, nearest = (part @ bank.T).topk(min(k, len(bank)), dim=1)  # (q, k)
        votes = torch.zeros(len(part), classes, device=part.device)
        votes.scatter_add_(1, labels[nearest], (similarity / temperature).exp())
        guesses.append(votes.argmax(1))
    return torch.cat(guesses)


def accuracy(logits: Tensor, target: Tensor) -> Tensor:
    """Share of the targets that count; NaN where none does."""
    return (logits.argmax(-1) == target).sum() / (target != IGNORE).sum()  # no class is `IGNORE`
