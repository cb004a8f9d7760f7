"""A plug-in: a method, an encoder and a task of one's own, in one file."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_suite.core.batch import ImageBatch
from ssl_suite.core.encoder import Encoded, Encoder, Tokens
from ssl_suite.core.method import Method, StepOutput
from ssl_suite.core.optim import Optim
from ssl_suite.encoders.image import pixel_tokens, pixels_of
from ssl_suite.tasks.classify import Classify


class TinyConv(Encoder):
    """Two strided convolutions.

    Args:
        dim: channels.
    """

    modality = "image"

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.dim, self.num_states, self.stride = dim, 1, 4
        self.net = nn.Sequential(nn.Conv2d(3, dim, 3, 2, 1), nn.ReLU(), nn.Conv2d(dim, dim, 3, 2, 1))

    def embed(self, batch: ImageBatch) -> Tokens:
        return pixel_tokens(batch.images)

    def contextualise(self, tokens: Tokens) -> Encoded:
        states = self.net(pixels_of(tokens.whole("TinyConv"))).flatten(2).transpose(1, 2)  # (B, T, D)
        mask = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        return Encoded((states,), mask, states.mean(1))


class Agree(Method):
    """Pull two views of an image together, and nothing apart: it collapses, and the log shows it.

    Args:
        encoder: any image encoder.
        optim: how weights are updated.
    """

    views = "simclr"

    def __init__(self, encoder: Encoder | str, optim: Optim = Optim()) -> None:
        super().__init__(encoder, optim)

    def step(self, batch: ImageBatch) -> StepOutput:
        a, b = self.encoder(batch.view(0, 1)).pooled.chunk(2)
        return StepOutput(1 - F.cosine_similarity(a, b).mean(), features=a)


class SmoothClassify(Classify):
    """Cross-entropy with label smoothing."""

    def loss(self, output: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output.float(), target, label_smoothing=0.1)
