"""Accumulated micro-batches learn what one large batch learns, though each has another number of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tiny import QUIET, tiny_text_encoder
from torch import Tensor

from ssl_suite.core.batch import TextBatch
from ssl_suite.core.loader import Loader
from ssl_suite.core.method import Method, StepOutput
from ssl_suite.core.optim import Optim
from ssl_suite.core.term import Term
from ssl_suite.data.text.text import Text
from ssl_suite.methods.text.causal_lm import CausalLM
from ssl_suite.methods.text.masked_lm import MaskedLM


class Gradients(pl.Callback):
    """The gradient of the only optimizer step, as it was clipped and used, and the size of its micro-batches."""

    gradient: Tensor

    def __init__(self) -> None:
        self.weights: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.weights.append(float(batch.mask.sum()))

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.gradient = torch.cat([p.grad.flatten() for p in pl_module.parameters() if p.grad is not None]).clone()


class TwoTerms(CausalLM):
    """A loss of two terms, each a mean over something else; what they count is told by the step alone."""

    def step(self, batch: TextBatch) -> StepOutput:
        out = super().step(batch)
        states = self.encoder(batch).states[-1]
        long = batch.mask.sum(1) > 20
        penalty = (states.square().mean(-1) * batch.mask).sum(1)[long]
        return StepOutput({"tokens": out.terms["loss"], "penalty": Term(penalty.sum(), long.sum(), 0.3)})

    def counts(self, batch: TextBatch) -> Mapping[str, Tensor | float]:
        return Method.counts(self, batch)


@pytest.mark.parametrize("method", [MaskedLM, CausalLM, TwoTerms])
def test_gradient_over_micro_batches_of_unequal_size_is_that_of_the_whole(
    method: type[Method], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["word " * n for n in (1, 2, 3, 30, 1, 40, 2, 5)]
    (tmp_path / "train.txt").write_text("\n\n".join(line.strip() for line in lines))

    def run(batch_size: int, accumulate: int) -> Gradients:
        torch.manual_seed(0)
        model = method(
            tiny_text_encoder(causal=issubclass(method, CausalLM), dropout=0.0, max_length=256),
            optim=Optim(lr=0.0, weight_decay=0.0),
        )
        data = Text(str(tmp_path / "train.txt"), tokenizer="byte", pack=False, max_length=256, batch_size=batch_size)
        seen = Gradients()
        trainer = pl.Trainer(
            accelerator="cpu", max_epochs=1, accumulate_grad_batches=accumulate, callbacks=[seen],
            enable_checkpointing=False, default_root_dir=tmp_path, limit_val_batches=0, **QUIET,
        )  # fmt: skip
        trainer.fit(model, data)
        return seen

    whole, parts = run(8, 1), run(2, 4)
    assert len(set(parts.weights)) > 1
    torch.testing.assert_close(parts.gradient, whole.gradient, atol=1e-6, rtol=1e-4)


def test_what_shares_a_step_is_read_ahead_only_when_asked_and_given_in_its_turn() -> None:
    read: list[int] = []

    def batches() -> Iterator[int]:
        for i in range(1, 9):
            read.append(i)
            yield i

    loader = Loader(batches(), together=3)  # type: ignore[arg-type]
    given, ahead = [], []
    for batch in loader:
        given.append(batch)
        if batch == 1:
            assert read == [1]
        if batch in (1, 2, 6, 7):
            ahead.append(loader.following())
    assert given == list(range(1, 9))
    assert ahead == [[2, 3], [3], [], [8]]  # the last step of an epoch has what is left
