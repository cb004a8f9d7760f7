"""Similarity: verification without training, by the cosine of what an encoder makes of two inputs."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from ssl_suite.core.batch import Batch
from ssl_suite.core.encoder import Encoder
from ssl_suite.core.errors import UserError
from ssl_suite.core.module import Evaluation
from ssl_suite.core.optim import Optim
from ssl_suite.core.outcomes import Example
from ssl_suite.core.readout import Readout
from ssl_suite.core.request import Request
from ssl_suite.tasks.verify import Vectors, Verify


class Similarity(Evaluation):
    """How well the cosine of two inputs' vectors tells whether they are of one identity: `Verify` without a head.

    Args:
        encoder: folder or URI of any encoder.
        readout: what stands for an input: mean, cls, last (the encoder's own summary) or layer:K.
        trials: a list of test trials, see `Verify`; None: all pairs.
        p_target: prior probability of one identity in `min_dcf`.
    """

    mode = "training-free"
    main = "eer"
    less_is_better = Verify.less_is_better

    def __init__(
        self, encoder: Encoder | str, readout: str = "mean", trials: str | None = None, p_target: float = 0.01
    ) -> None:
        super().__init__(encoder, Optim())
        self.encoder.freeze()
        self.readout = Readout(readout, self.encoder, sequence=False)
        self.task = Verify("linear", trials=trials, p_target=p_target)
        self.scores = nn.ModuleDict({split: self.task.metrics() for split in ("validation", "test")})

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            raise UserError("Similarity trains nothing; use test or validate.")
        self.data.serve(Request.of(self.encoder, target=self.task.target))
        self.task.meet(self.data)

    @torch.no_grad()
    def _vectors(self, batch: Batch) -> Vectors:
        features, _ = self.readout(self.readout.select(self.encoder(batch)))
        return Vectors(features[:, 0], features[:, 0, :0], batch.index)

    def _evaluate(self, batch: Batch, split: str) -> None:
        if not isinstance(batch.target, Tensor):
            raise UserError(f"The {split} split of {self.data.source_name} has no identities; look at --data.target.")
        output, mask = self._vectors(batch), batch.index
        self.task.update(cast(MetricCollection, self.scores[split]), output, mask, batch.target)
        if split == "test":
            self.keep(split, batch, self.task.outcomes(output, mask, batch.target))

    def _report(self, split: str, prefix: str) -> None:
        scores = cast(MetricCollection, self.scores[split])
        for name, value in self.task.compute(scores, self.data, split).items():
            self.log(f"{prefix}/{name}", value, prog_bar=name == self.main)
        scores.reset()

    def named(self, rows: list[tuple[int, Any]], split: str) -> list[Example]:
        return self.task.examples(rows, self.data, split)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "validation")

    def on_validation_epoch_end(self) -> None:
        self._report("validation", "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "test")

    def on_test_epoch_end(self) -> None:
        self._report("test", "test")
