"""A method whose encoder sees a part of its tokens: the others are left out between `embed` and `contextualise`."""

import torch
from torch import nn
from torch.nn import functional as F

from ssl_suite.core.batch import ImageBatch
from ssl_suite.core.encoder import Encoder, expect
from ssl_suite.core.method import Method, StepOutput
from ssl_suite.core.optim import Optim
from ssl_suite.core.term import Term
from ssl_suite.methods.any.holes import Holes


class Inpaint(Method):
    """Guess the mean colour of hidden patches from the patches around them.

    Args:
        encoder: an image encoder whose patches may be left out.
        rate: share of patches to hide.
        optim: how weights are updated.
    """

    def __init__(self, encoder: Encoder | str, rate: float = 0.5, optim: Optim = Optim(lr=1e-3)) -> None:
        super().__init__(encoder, optim)
        expect(self.encoder, "image", "Inpaint")
        self.holes, self.hole = Holes(rate, block=1, adjust=0.0), nn.Parameter(torch.zeros(self.encoder.dim))
        self.guess = nn.Conv2d(self.encoder.dim, 3, 3, padding=1)

    def step(self, batch: ImageBatch) -> StepOutput:
        tokens = self.encoder.embed(batch)
        chosen = self.holes.draw(tokens, batch.seed)
        encoded = self.encoder.contextualise(tokens.keep(chosen.places))
        x = chosen.spread(encoded.states[-1], self.hole)  # (B, T, D)
        guess = self.guess(x.mT.unflatten(2, tokens.grid))  # (B, 3, H, W)
        error = (guess - F.avg_pool2d(batch.images, self.encoder.stride)).square().mean(1).flatten(1)  # (B, T)
        return StepOutput(Term((error * chosen.hidden).sum(), chosen.hidden.sum()), features=encoded.pooled)
