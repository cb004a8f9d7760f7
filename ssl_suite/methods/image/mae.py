"""MAE: encode a quarter of an image's patches, and paint the others from them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_suite.core.batch import ImageBatch
from ssl_suite.core.check import within
from ssl_suite.core.encoder import Encoder, expect
from ssl_suite.core.errors import UserError
from ssl_suite.core.method import Method, StepOutput
from ssl_suite.core.optim import Optim
from ssl_suite.core.term import Term
from ssl_suite.encoders.image import ImageEncoder
from ssl_suite.encoders.transformer import Transformer
from ssl_suite.encoders.trunk import TrunkConfig
from ssl_suite.methods.any.holes import Holes


class MAE(Method):
    """Masked autoencoder (He et al. 2021, arXiv:2111.06377).

    The decoder's positions are the paper's sines; the encoder's are timm's, which learn.

    Args:
        encoder: a vision transformer.
        rate: share of patches to paint (section 3).
        dim: width of the decoder; 512 in the paper, as are the next two (section 4.1).
        layers: its blocks.
        heads: its attention heads.
        normalize: paint patches of mean 0 and variance 1 (section 3, "reconstruction target").
        optim: how weights are updated.
    """

    encoder: ImageEncoder
    views = "mae"

    def __init__(
        self,
        encoder: Encoder | str,
        rate: float = 0.75,
        dim: int = 512,
        layers: int = 8,
        heads: int = 16,
        normalize: bool = True,
        optim: Optim = Optim("adamw", 1.5e-4, "linear", 0.05, betas=(0.9, 0.95), warmup_epochs=40),
    ) -> None:
        super().__init__(encoder, optim)
        expect(self.encoder, "image", "MAE")
        if not self.encoder.blocks():
            raise UserError("MAE needs a vision transformer of timm, which can encode a part of the patches.")
        within("dim", dim, low=4, whole=True)
        if dim % 4:
            raise UserError(f"dim ({dim}) must be divisible by 4: a sine and a cosine for rows and for columns.")
        self.holes, self.normalize = Holes(rate, block=1, adjust=0.0), normalize
        self.enter, self.hole = nn.Linear(self.encoder.dim, dim), nn.Parameter(torch.zeros(dim).normal_(std=0.02))
        self.decoder = Transformer(TrunkConfig(dim, layers, heads, positions="none", dropout=0.0, eps=1e-6))
        self.paint = nn.Linear(dim, 3 * self.encoder.stride**2)

    def step(self, batch: ImageBatch) -> StepOutput:
        batch = batch.view(0) if batch.views else batch
        tokens = self.encoder.embed(batch)
        assert tokens.grid is not None
        chosen = self.holes.draw(tokens, batch.seed)
        encoded = self.encoder.contextualise(tokens.keep(chosen.places))
        x = chosen.spread(self.enter(encoded.states[-1]), self.hole)
        x = x + sines(tokens.grid, x.shape[2], x.device)
        if encoded.prefix is not None:
            x = torch.cat([self.enter(encoded.prefix), x], 1)
        painted = self.paint(self.decoder(x)[-1][:, -tokens.length :])  # (B, T, 3·p²)
        error = (painted - self.patches(batch.images)).square().mean(-1)
        return StepOutput(Term((error * chosen.hidden).sum(), chosen.hidden.sum()), features=encoded.pooled)

    def patches(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, T, p²·3), normalised by colour and then, if wanted, each by itself."""
        p = self.encoder.stride
        x = (images - self.encoder.mean) / self.encoder.std
        x = x.unflatten(3, (-1, p)).unflatten(2, (-1, p)).permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        if not self.normalize:
            return x
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-6).sqrt()


def sines(grid: tuple[int, int], dim: int, device: torch.device) -> Tensor:
    """(T, dim) sines and cosines of a patch's column, then of its row, at dim / 4 frequencies each."""
    frequency = 10000.0 ** (-torch.arange(dim // 4, device=device) / (dim // 4))
    row, column = (torch.arange(n, device=device)[:, None] * frequency for n in grid)
    row, column = (torch.cat([angle.sin(), angle.cos()], 1) for angle in (row, column))
    return torch.cat([column.repeat(grid[0], 1), row.repeat_interleave(grid[1], 0)], 1)
