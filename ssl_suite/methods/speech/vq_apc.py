"""VQ-APC: APC whose prediction passes through a codebook."""

from __future__ import annotations

from torch import Tensor, nn

from ssl_suite.core.check import within
from ssl_suite.core.encoder import Encoder
from ssl_suite.core.optim import Optim
from ssl_suite.core.random import uniform
from ssl_suite.methods.speech.apc import APC
from ssl_suite.methods.speech.codes import one_hot, perplexity


class VQAPC(APC):
    """Vector-quantised autoregressive predictive coding (Chung et al. 2020, arXiv:2005.08392).

    Each output of the encoder chooses one code by a Gumbel softmax, hard and straight-through (section 2), and the
    frame ahead is predicted from that code alone; validation takes the likeliest. The codebook is not exported.

    Args:
        encoder: a speech encoder that sees the past only, on log-mel frames.
        steps: how many frames ahead.
        codes: of the codebook.
        temperature: of the Gumbel softmax.
        optim: how weights are updated.
    """

    def __init__(
        self,
        encoder: Encoder | str,
        steps: int = 5,
        codes: int = 512,
        temperature: float = 0.5,
        optim: Optim = Optim("adam", 1e-4),
    ) -> None:
        super().__init__(encoder, steps, optim)
        within("codes", codes, low=2, whole=True)
        within("temperature", temperature, above=0)
        self.temperature = temperature
        self.choose = nn.Linear(self.encoder.dim, codes)
        self.codebook = nn.Linear(codes, self.encoder.dim, bias=False)

    def bottleneck(self, output: Tensor, mask: Tensor, seeds: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.choose(output).float()  # (B, T, C)
        if self.training:
            draws = uniform(seeds, logits[0].numel(), stream=620).view_as(logits).clamp(min=2.0**-25)
            logits = logits - (-draws.log()).log()
        soft = (logits / self.temperature).softmax(-1)
        code = soft.argmax(-1)
        chosen = self.codebook(one_hot(code, soft.shape[-1]) + soft - soft.detach())
        return chosen, {"code_perplexity": perplexity(code.view(-1, 1), soft.shape[-1], mask.flatten())}
