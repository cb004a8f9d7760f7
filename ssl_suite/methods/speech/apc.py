"""APC: predict a frame of speech some steps ahead from the past."""

from __future__ import annotations

from torch import Tensor, nn

from ssl_suite.core.batch import SpeechBatch
from ssl_suite.core.check import within
from ssl_suite.core.data import DataModule
from ssl_suite.core.encoder import Encoder, expect, masked_mean
from ssl_suite.core.errors import UserError
from ssl_suite.core.method import Method, StepOutput
from ssl_suite.core.optim import Optim
from ssl_suite.core.term import Term
from ssl_suite.encoders.frontend import RATE
from ssl_suite.encoders.speech import SpeechEncoder


class APC(Method):
    """Autoregressive predictive coding (Chung et al. 2019, arXiv:1904.03240).

    Args:
        encoder: a speech encoder that sees the past only, on log-mel frames.
        steps: how many frames ahead; 5 (50 ms) in SUPERB's upstream.
        optim: how weights are updated.
    """

    encoder: SpeechEncoder

    def __init__(self, encoder: Encoder | str, steps: int = 5, optim: Optim = Optim("adam", 1e-4)) -> None:
        super().__init__(encoder, optim)
        within("steps", steps, low=1, whole=True)
        expect(self.encoder, "speech", "APC")
        if not getattr(self.encoder, "causal", False):
            raise UserError(
                "APC needs an encoder that sees the past only: trunk: gru, or a transformer with causal: true."
            )
        if any(p.requires_grad for p in self.encoder.frontend.parameters()):
            raise UserError("APC predicts log-mel frames; learned ones would collapse: frontend: logmel.")
        self.steps = steps
        self.predict = nn.Linear(self.encoder.dim, self.encoder.frontend.dim)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            check_reach(self.data, self.encoder, self.steps)

    def step(self, batch: SpeechBatch) -> StepOutput:
        frames, mask = self.encoder.frontend(batch)
        states = self.encoder.contextualise(self.encoder.enter(frames, mask)).states
        output, logs = self.bottleneck(states[-1], mask, batch.seed)
        ahead = mask[:, self.steps :]  # the target is a real frame
        error = (self.predict(output[:, : -self.steps]) - frames[:, self.steps :]).abs().mean(-1)
        loss = Term((error * ahead).sum(), ahead.sum())
        return StepOutput(loss, logs, masked_mean(states[-1].detach(), mask))

    def bottleneck(self, output: Tensor, mask: Tensor, seeds: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What the prediction is made of, and what is logged of it; here the output (B, T, D) itself."""
        return output, {}

    def counts(self, batch: SpeechBatch) -> dict[str, Tensor]:
        return {"loss": (self.encoder.frontend.frames(batch.lengths) - self.steps).clamp(min=0).sum()}


def check_reach(data: DataModule, encoder: SpeechEncoder, steps: int) -> None:
    """Raises UserError where no utterance of the training data is long enough to predict `steps` ahead."""
    if not (seconds := data.lengths("train")):
        return
    states = encoder.frontend.frames(int(max(seconds) * RATE))
    if steps >= states:
        raise UserError(
            f"steps is {steps}, but the longest utterance of {data.source_name} has {states} states as it is read: "
            "nothing would be predicted; lower it."
        )
