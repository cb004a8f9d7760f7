"""DinoSR: of masked speech, predict the codes of what a teacher makes of all of it; the codes follow the teacher."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_suite.core.batch import SpeechBatch
from ssl_suite.core.check import within
from ssl_suite.core.ema import Ramp, share_input, teacher_of
from ssl_suite.core.encoder import Encoded, Encoder, Tokens, expect, over_time
from ssl_suite.core.errors import UserError
from ssl_suite.core.method import Method, StepOutput
from ssl_suite.core.optim import Optim
from ssl_suite.core.outputs import outputs_of
from ssl_suite.core.term import Term
from ssl_suite.encoders.speech import SpeechEncoder
from ssl_suite.methods.speech.codes import one_hot, perplexity
from ssl_suite.methods.speech.front_end import real_frames
from ssl_suite.methods.speech.spans import Spans


class DinoSR(Method):
    """Self-distillation and online clustering for speech representations (Liu et al. 2023, arXiv:2305.10005).

    The teacher is a moving average of the blocks, and shares the front end; the student is what is written at the end.

    Args:
        encoder: a transformer over speech.
        top: N, how many of the teacher's last blocks have a codebook.
        codes: V, of each codebook.
        decay: τ, what is left of a code's sum and count after a step in which frames chose it (section 3.2).
        spans: what is masked.
        momentum: of the teacher.
        freeze_step: optimizer steps after which the front end and the teacher stay; None: never.
        optim: how weights are updated.
    """

    encoder: SpeechEncoder

    def __init__(
        self,
        encoder: Encoder | str,
        top: int = 8,
        codes: int = 256,
        decay: float = 0.9,
        spans: Spans = Spans(0.8, 10),
        momentum: Ramp = Ramp(0.999, 0.9999, 30_000, "linear"),
        freeze_step: int | None = 200_000,
        optim: Optim = Optim(lr=5e-4, betas=(0.9, 0.98), eps=1e-6, warmup_ratio=0.03),
    ) -> None:
        super().__init__(encoder, optim)
        expect(self.encoder, "speech", type(self).__name__)
        if not (blocks := len(self.encoder.feed_forwards())):
            raise UserError(f"{type(self).__name__} needs a transformer: trunk: transformer.")
        within("top", top, low=1, high=blocks, whole=True)
        within("codes", codes, low=2, whole=True)
        within("decay", decay, low=0, below=1)
        if freeze_step is not None:
            within("freeze_step", freeze_step, low=0, whole=True)
        self.top, self.codes, self.spans, self.momentum, self.freeze_step = top, codes, spans, momentum, freeze_step
        self.hole = nn.Parameter(torch.rand(self.encoder.dim))
        self.predict = nn.ModuleList(nn.Linear(self.encoder.dim, codes) for _ in range(top))
        self.codebooks = MovingCodebooks(top, codes, self.encoder.dim, decay)
        self.teacher = self.new_teacher()
        self.frozen = False

    def new_teacher(self) -> SpeechEncoder:
        """What the teacher is before the first step: the student."""
        return teacher_of(self.encoder)

    def teacher_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        return [] if self.frozen else [(self.encoder, self.teacher)]

    def after_step(self) -> None:
        if not self.frozen:
            share_input(self.encoder, self.teacher)
        self.codebooks.move()

    def train(self, mode: bool = True) -> DinoSR:
        super().train(mode)
        self.teacher.eval()
        return self

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_start(batch, batch_idx)
        self.frozen = self.freeze_step is not None and self.trainer.global_step >= self.freeze_step
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            self.codebooks.chosen = None  # by a step that was taken to count its FLOPs

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        if self.frozen:
            for parameter in self.encoder.frontend.parameters():
                parameter.grad = None

    def step(self, batch: SpeechBatch) -> StepOutput:
        tokens = self.encoder.embed(batch)
        masked = self.spans.draw(tokens.mask, batch.seed)
        at = masked.nonzero(as_tuple=True)
        codes = self.codebooks(self.target(tokens, at), learn=self.training)  # (N, M)
        encoded, read = self.student(tokens.replace(masked, self.hole))
        logits = torch.stack([head(x[at]) for head, x in zip(self.predict, read, strict=True)]).float()
        loss = F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="sum") / self.top
        right = (logits.argmax(-1) == codes).float().mean(0).sum()
        logs: dict[str, Tensor | Term] = {
            "accuracy": Term(right, len(at[0])),
            "code_perplexity": perplexity(codes.T, self.codes),
        }
        return StepOutput(Term(loss, len(at[0])), logs, encoded.pooled)

    def student(self, tokens: Tokens) -> tuple[Encoded, list[Tensor]]:
        """What the student makes of masked speech, and the N (B, T, D) that its heads read: the last state, each."""
        encoded = self.encoder.contextualise(tokens)
        return encoded, [encoded.states[-1]] * self.top

    @torch.no_grad()
    def target(self, tokens: Tokens, at: tuple[Tensor, ...]) -> Tensor:
        """(N, M, D) what the teacher's last blocks add at M places, each normalised over time."""
        with outputs_of(self.teacher.feed_forwards()) as added:
            self.teacher.contextualise(tokens)
        return torch.stack([over_time(layer.float(), tokens.mask)[at] for layer in added[-self.top :]])

    def counts(self, batch: SpeechBatch) -> dict[str, Tensor]:
        return {"loss": self.spans.draw(real_frames(self.encoder, batch), batch.seed).sum()}


class SpidR(DinoSR):
    """DinoSR whose heads each read the student's own block (Poli et al. 2025, arXiv:2512.20308).

    The teacher begins as another network of the same shape, and closes in on the student ever more slowly.

    Args:
        encoder: a transformer over speech.
        momentum: of the teacher.
        optim: how weights are updated.
        options: the others of DinoSR.
    """

    def __init__(
        self,
        encoder: Encoder | str,
        momentum: Ramp = Ramp(0.999, 1.0, 20_000, "exponential"),
        optim: Optim = Optim(lr=5e-4, betas=(0.9, 0.95), eps=1e-6, warmup_ratio=0.03),
        **options: Any,
    ) -> None:
        super().__init__(encoder, momentum=momentum, optim=optim, **options)
        post = self.encoder.config["norm"] == "post"
        last = self.encoder.blocks()[-1].get_submodule("norm2") if post else self.encoder.trunk.norm
        last.requires_grad_(False)  # it stands above all that the heads read

    def new_teacher(self) -> SpeechEncoder:
        teacher = teacher_of(type(self.encoder)(**self.encoder.config))
        share_input(self.encoder, teacher)
        return teacher

    def student(self, tokens: Tokens) -> tuple[Encoded, list[Tensor]]:
        with outputs_of(self.encoder.feed_forwards()) as added:
            encoded = self.encoder.contextualise(tokens)
        return encoded, added[-self.top :]


class MovingCodebooks(nn.Module):
    """Codes that are moving averages of the frames that choose them (DinoSR, section 3.2; VQ-VAE's, arXiv:1711.00937).

    What frames of several batches and ranks chose is added up and moves the codes once, in `move`.

    Args:
        number: N of codebooks.
        codes: V in each.
        dim: D of a code.
        decay: of a code's sum and count in a step in which it was chosen; others stay.
    """

    sums: Tensor
    sizes: Tensor

    def __init__(self, number: int, codes: int, dim: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        drawn = torch.randn(number, codes, dim)
        self.register_buffer("sums", (drawn - drawn.mean(1, keepdim=True)) / drawn.std(1, correction=0, keepdim=True))
        self.register_buffer("sizes", torch.ones(number, codes))
        self.chosen: tuple[Tensor, Tensor] | None = None  # no buffers: DDP would overwrite them with the first rank's

    @torch.no_grad()
    def forward(self, frames: Tensor, learn: bool = False) -> Tensor:
        """(N, M, D) → (N, M) the nearest codes; with `learn` their frames are kept for `move`."""
        books = self.sums / self.sizes[..., None]
        with torch.autocast(frames.device.type, enabled=False):
            distance = books.square().sum(-1)[:, None] - 2 * frames @ books.mT  # (N, M, V), but for |frame|²
            codes = distance.argmin(-1)
            if learn:
                chosen = one_hot(codes, books.shape[1])
                added = chosen.mT @ frames, chosen.sum(1)
                self.chosen = added if self.chosen is None else (self.chosen[0] + added[0], self.chosen[1] + added[1])
        return codes

    @torch.no_grad()
    def move(self) -> None:
        """Moves each code towards the frames that chose it since the last time, on all ranks."""
        assert self.chosen is not None
        sums, sizes = self.chosen
        self.chosen = None
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(sums)
            dist.all_reduce(sizes)
        weight = torch.where(sizes > 0, 1 - self.decay, 0.0)
        self.sizes.lerp_(sizes, weight)
        self.sums.lerp_(sums, weight[..., None])
