"""Data2Vec: from what is left of an input, predict what a teacher that sees all of it makes of the rest."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_suite.core.batch import Batch, ImageBatch
from ssl_suite.core.check import within
from ssl_suite.core.data import Request
from ssl_suite.core.ema import Ramp, share_input, teacher_of
from ssl_suite.core.encoder import Encoder, over_time
from ssl_suite.core.errors import UserError
from ssl_suite.core.method import Method, StepOutput
from ssl_suite.core.optim import Optim
from ssl_suite.core.outputs import outputs_of
from ssl_suite.core.term import Term
from ssl_suite.methods.any.holes import Holes


@dataclass(frozen=True)
class Decoder:
    """The convolutions that fill the holes, in two dimensions for images, else in one.

    Args:
        layers: number of convolutions.
        width: of their channels.
        kernel: of each, odd.
        groups: of each.
        residual: add a layer's input to its output where their widths agree.
        dropout: of the states that go in.
        projections: linear layers after the convolutions, with a GELU between, the inner ones twice as wide.
    """

    layers: int = 6
    width: int = 768
    kernel: int = 3
    groups: int = 16
    residual: bool = True
    dropout: float = 0.0
    projections: int = 1

    def __post_init__(self) -> None:
        for name in ("layers", "width", "kernel", "groups", "projections"):
            within(f"decoder.{name}", getattr(self, name), low=1, whole=True)
        within("decoder.dropout", self.dropout, low=0, below=1)
        if self.kernel % 2 == 0 or self.width % self.groups:
            raise UserError("decoder.kernel must be odd, and decoder.groups must divide decoder.width.")


class Data2Vec(Method):
    """Masked prediction of contextual targets, in any modality (Baevski et al. 2022, arXiv:2212.07525).

    The teacher, a moving average of the encoder, is what is written at the end. The defaults are those of images; the
    recipes `image/data2vec`, `speech/data2vec` and `text/data2vec` hold the values of the authors' code.

    Args:
        encoder: a transformer: a vision transformer, a `TextEncoder` or a `SpeechEncoder`.
        top: K, how many of the teacher's last blocks make the target.
        masks: M, selections of each input that share one pass of the teacher.
        holes: what the student does not see.
        decoder: what fills the holes.
        normalize: layer-normalise the target.
        scale: of the squared error, summed over D; None for 1/√D.
        class_loss: weight of the class token's own error against the target's mean over positions.
        noise: deviation of what the decoder reads in the holes.
        momentum: of the teacher.
        shared: the teacher's first layer (embeddings, front end) is the student's own, not its average: text, speech.
        optim: how weights are updated.
    """

    exported = "teacher"

    def __init__(
        self,
        encoder: Encoder | str,
        top: int = 10,
        masks: int = 16,
        holes: Holes = Holes(),
        decoder: Decoder = Decoder(),
        normalize: bool = True,
        scale: float | None = None,
        class_loss: float = 0.01,
        noise: float = 0.01,
        momentum: Ramp = Ramp(0.9998, 0.99999, 100_000, "linear"),
        shared: bool = False,
        optim: Optim = Optim(lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05, warmup_steps=50_000),
    ) -> None:
        super().__init__(encoder, optim)
        blocks = len(self.encoder.feed_forwards())
        if not blocks:
            raise UserError("Data2Vec needs a transformer: a vision transformer of timm, trunk: transformer, or text.")
        within("top", top, low=1, high=blocks, whole=True)
        within("masks", masks, low=1, whole=True)
        for name, value in (("class_loss", class_loss), ("noise", noise)):
            within(name, value, low=0)
        if self.encoder.dim % decoder.groups:
            raise UserError(f"decoder.groups ({decoder.groups}) must divide the encoder's dim ({self.encoder.dim}).")
        self.top, self.masks, self.holes, self.momentum = top, masks, holes, momentum
        self.normalize, self.class_loss, self.noise, self.shared = normalize, class_loss, noise, shared
        self.scale = self.encoder.dim**-0.5 if scale is None else scale
        self.teacher = teacher_of(self.encoder)
        self.decoder = HoleDecoder(self.encoder.dim, decoder, flat=self.encoder.modality == "image")

    def request(self) -> Request:
        return replace(super().request(), views="mae" if self.encoder.modality == "image" else None)

    def teacher_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        return [(self.encoder, self.teacher)]

    def after_step(self) -> None:
        if self.shared:
            share_input(self.encoder, self.teacher)

    def train(self, mode: bool = True) -> Data2Vec:
        super().train(mode)
        self.teacher.eval()
        return self

    def step(self, batch: Any) -> StepOutput:
        batch = batch.view(0) if isinstance(batch, ImageBatch) and batch.views else batch
        target, summary = self.target(batch)  # (B, T, D), (B, D)
        tokens = self.encoder.embed(batch)
        chosen = self.holes.draw(tokens, batch.seed, self.masks)
        encoded = self.encoder.contextualise(tokens.keep(chosen.places, chosen.real))
        output = encoded.states[-1]  # (M·B, K, D)
        fill = self.noise * torch.randn(*chosen.hidden.shape, output.shape[2], device=output.device)
        fill = fill * chosen.hidden[..., None]  # padding is silence
        real = None if tokens.dense else tokens.mask.repeat_interleave(self.masks, 0)
        predicted = self.decoder(chosen.spread(self.decoder.dropout(output), fill), tokens.grid, real)
        wanted = target.repeat_interleave(self.masks, 0)
        error = (predicted.float() - wanted).square().sum(-1) * self.scale  # (M·B, T)
        terms = {"regression": Term((error * chosen.hidden).sum(), chosen.hidden.sum())}
        if self.class_loss and self.encoder.class_token and encoded.prefix is not None:  # registers stand for nothing
            error = (encoded.prefix[:, 0].float() - wanted.mean(1)).square().sum(-1) * self.scale
            terms["class"] = Term(error.sum(), 1, self.class_loss)  # as published: a sum over the batch of a step
        return StepOutput(terms | encoded.losses, {"target_deviation": target.flatten(0, 1).std(0).mean()}, summary)

    @torch.no_grad()
    def target(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B, T, D) the mean of what the teacher's last blocks add, each normalised over time; and its summary."""
        with outputs_of(self.teacher.feed_forwards()) as added:
            encoded = self.teacher(batch)
        if len(added) < self.top:
            raise UserError("The teacher's blocks give no outputs; do not compile the teacher.")
        first = 0 if encoded.prefix is None else encoded.prefix.shape[1]
        layers = [over_time(layer[:, first:].float(), encoded.mask) for layer in added[-self.top :]]
        mean = torch.stack(layers).mean(0)
        return F.layer_norm(mean, mean.shape[-1:]) if self.normalize else mean, encoded.pooled


class HoleDecoder(nn.Module):
    """Convolutions over the whole input, each with a layer norm and a GELU, and projections to the targets."""

    def __init__(self, dim: int, c: Decoder, flat: bool) -> None:
        super().__init__()
        make = nn.Conv2d if flat else nn.Conv1d
        widths = [dim] + [c.width] * c.layers
        self.convolutions = nn.ModuleList(
            make(i, o, c.kernel, padding=c.kernel // 2, groups=c.groups) for i, o in itertools.pairwise(widths)
        )
        self.residual, self.dropout = c.residual, nn.Dropout(c.dropout)
        widths = [c.width] + [2 * c.width] * (c.projections - 1) + [dim]
        linear = [nn.Linear(i, o) for i, o in itertools.pairwise(widths)]
        self.out = nn.Sequential(linear[0], *(part for layer in linear[1:] for part in (nn.GELU(), layer)))

    def forward(self, x: Tensor, grid: tuple[int, int] | None, real: Tensor | None = None) -> Tensor:
        """(N, T, D) → (N, T, D).

        Args:
            x: inputs with their holes filled, 0 in the padding.
            grid: how T lies in two dimensions.
            real: (N, T) False in the padding, which stays silent, so that an input is as it is alone; None: all are.
        """
        x = x.transpose(1, 2)
        x = x if grid is None else x.unflatten(2, grid)
        kept = None if real is None else real.to(x).view(len(x), 1, *x.shape[2:])
        for convolve in self.convolutions:
            y = convolve(x).movedim(1, -1)
            y = F.gelu(F.layer_norm(y, y.shape[-1:])).movedim(-1, 1)
            x = x + y if self.residual and x.shape == y.shape else y
            x = x if kept is None else x * kept
        return self.out(x.flatten(2).transpose(1, 2))
