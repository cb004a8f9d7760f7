"""An encoder in two halves: `embed` gives tokens their positions, `contextualise` reads those it is given."""

import torch
from torch import nn

from ssl_suite.core.batch import ImageBatch
from ssl_suite.core.encoder import Encoded, Encoder, Tokens, masked_mean


class Patches(Encoder):
    """Patches of an image, each mixed with the mean of those that are seen.

    Args:
        dim: width.
        patch: side of a patch in pixels.
    """

    modality = "image"

    def __init__(self, dim: int = 16, patch: int = 4) -> None:
        super().__init__()
        self.dim, self.num_states, self.stride = dim, 2, patch
        self.cut, self.place = nn.Conv2d(3, dim, patch, patch), nn.Linear(2, dim)
        self.mix = nn.Sequential(nn.Linear(2 * dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def embed(self, batch: ImageBatch) -> Tokens:
        patches = self.cut(batch.images)  # (B, D, H, W)
        height, width = patches.shape[2:]
        places = torch.cartesian_prod(torch.arange(height) / height, torch.arange(width) / width)
        values = patches.flatten(2).mT + self.place(places.to(patches))  # (B, T, D)
        return Tokens(values, torch.ones_like(values[..., 0], dtype=torch.bool), grid=(height, width), dense=True)

    def contextualise(self, tokens: Tokens) -> Encoded:
        x = tokens.values
        mean = masked_mean(x, tokens.mask)[:, None].expand_as(x)
        output = x + self.mix(torch.cat([x, mean], 2))
        return Encoded((x, output), tokens.mask, masked_mean(output, tokens.mask))
