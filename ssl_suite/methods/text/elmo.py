"""ELMo: two language models, one from each side, whose states serve downstream tasks."""

from __future__ import annotations

from torch import Tensor, nn

from ssl_suite.core.batch import TextBatch
from ssl_suite.core.encoder import Encoder, expect
from ssl_suite.core.errors import UserError
from ssl_suite.core.method import Method, StepOutput
from ssl_suite.core.optim import Optim
from ssl_suite.core.term import Term
from ssl_suite.encoders.lstm import LSTMEncoder
from ssl_suite.encoders.tokenizer import token_id
from ssl_suite.methods.text.vocabulary import vocabulary_loss


class ELMo(Method):
    """Predict each token from those before it, and from those after it (Peters et al. 2018, arXiv:1802.05365).

    Both directions share the token layer and the softmax (section 3.1); here the softmax is full and not sampled. The
    loss is the mean of both directions' negative log-likelihoods. Tasks read the states by `readout: weighted_sum`.

    Args:
        encoder: an `LSTMEncoder`.
        optim: how weights are updated.
    """

    encoder: LSTMEncoder
    perplexity = True

    def __init__(
        self,
        encoder: Encoder | str,
        optim: Optim = Optim(lr=1e-3, weight_decay=0.0, warmup_ratio=0.01, schedule="linear"),
    ) -> None:
        super().__init__(encoder, optim)
        expect(self.encoder, "text", "ELMo")
        if not isinstance(self.encoder, LSTMEncoder):
            raise UserError(f"ELMo needs an LSTMEncoder; a {type(self.encoder).__name__} sees the token it predicts.")
        self.softmax = nn.Linear(self.encoder.dim // 2, self.encoder.config["vocab_size"])
        nn.init.normal_(self.softmax.weight, std=0.02)
        nn.init.zeros_(self.softmax.bias)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        tokenizer = self.encoder.tokenizer
        self.start_id, self.end_id = token_id(tokenizer, "start"), token_id(tokenizer, "end")

    def step(self, batch: TextBatch) -> StepOutput:
        encoded = self.encoder(batch)
        ahead, back = encoded.states[-1].chunk(2, -1)  # (B, T, D/2)
        left, right = batch.ids[:, :-1], batch.ids[:, 1:]
        joined, spelled = self.predicted(batch)
        forward = self.likelihood_of(right, ahead[:, :-1], joined)
        backward = self.likelihood_of(left, back[:, 1:], spelled)
        loss = Term(forward.sum + backward.sum, forward.count + backward.count)
        features = encoded.states[-1][batch.mask] if self.training else None
        return StepOutput(loss, {"forward_loss": forward, "backward_loss": backward}, features)

    def predicted(self, batch: TextBatch) -> tuple[Tensor, Tensor]:
        """(B, T − 1) which tokens are predicted from the left, and which from the right."""
        left = batch.ids[:, :-1]
        joined = batch.mask[:, 1:] & (left != self.end_id)  # nothing is predicted across the end of a document
        return joined, joined & (left != self.start_id)

    def counts(self, batch: TextBatch) -> dict[str, Tensor]:
        joined, spelled = self.predicted(batch)
        return {"loss": joined.sum() + spelled.sum()}

    def likelihood_of(self, targets: Tensor, states: Tensor, counted: Tensor) -> Term:
        """Negative log-likelihood of the counted targets (B, T)."""
        at = counted.nonzero(as_tuple=True)
        chosen = targets[at]
        return Term(vocabulary_loss(states[at], self.softmax.weight, self.softmax.bias, chosen), len(chosen))
