"""InContext: a causal language model answers by likelihood, from a prompt alone; nothing is trained."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import MeanMetric

from ssl_suite.core.choices import ChoiceBatch
from ssl_suite.core.encoder import Encoder
from ssl_suite.core.errors import UserError
from ssl_suite.core.outcomes import Outcome
from ssl_suite.tasks.likelihood import Scorer


class InContext(Scorer):
    """Zero-, one- and few-shot answers (Brown et al. 2020, arXiv:2005.14165, section 2.4); data: `Prompts`.

    The likeliest answer wins: by Σ log p of its tokens (`accuracy`), and by the same divided by its characters
    (`accuracy_norm`), which does not favour short answers and is comparable between tokenizers.

    Args:
        encoder: folder or URI of a causal text encoder with its tokenizer.
    """

    mode = "in-context"
    main = "accuracy"

    def __init__(self, encoder: Encoder | str) -> None:
        super().__init__(encoder)
        self.accuracy, self.accuracy_norm = MeanMetric(), MeanMetric()

    @property
    def protocol(self) -> str:
        return f"{getattr(self.data, 'shots', 0)}-shot"

    def scores(self, batch: ChoiceBatch) -> tuple[Tensor, Tensor]:
        """(B, C) log-likelihood of each answer, and the same a character; −∞ where an item has fewer answers."""
        total = self.log_likelihoods(batch)
        table = total.new_full((len(batch), int(batch.choice.max()) + 1), -torch.inf)
        by_character = table.clone()
        table[batch.owner, batch.choice] = total
        by_character[batch.owner, batch.choice] = total / batch.size
        return table, by_character

    def _judge(self, batch: ChoiceBatch, prefix: str) -> list[Outcome]:
        """Adds a batch; returns whether each item was answered right."""
        if not isinstance(batch.target, Tensor):
            raise UserError("This split has no targets; use `predict`.")
        total, by_character = self.scores(batch)
        right = (total.argmax(1) == batch.target).float()
        self.accuracy.update(right)
        self.accuracy_norm.update((by_character.argmax(1) == batch.target).float())
        self.log(f"{prefix}/accuracy", self.accuracy, batch_size=len(batch), prog_bar=True)
        self.log(f"{prefix}/accuracy_norm", self.accuracy_norm, batch_size=len(batch))
        return [(value, 1.0) for value in right.tolist()]

    def validation_step(self, batch: ChoiceBatch, batch_idx: int) -> None:
        self._judge(batch, "val")

    def test_step(self, batch: ChoiceBatch, batch_idx: int) -> None:
        self.keep("test", batch, self._judge(batch, "test"))

    def predict_step(self, batch: ChoiceBatch, batch_idx: int) -> list[str]:
        best = self.scores(batch)[0].argmax(1).tolist()
        return [answers[i] for answers, i in zip(batch.answers, best, strict=True)]
