"""How methods on speech hold a front end that learns: a smaller gradient, and features that stay small."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ssl_suite.core.batch import SpeechBatch, lengths_to_mask
from ssl_suite.core.check import within
from ssl_suite.core.encoder import expect
from ssl_suite.core.errors import UserError
from ssl_suite.core.term import Term
from ssl_suite.encoders.frontend import Waveform
from ssl_suite.encoders.speech import SpeechEncoder


@dataclass(frozen=True)
class FrontEnd:
    """What wav2vec 2.0 (arXiv:2006.11477, sections 3.2 and 4.2) and HuBERT do to the convolutions over a waveform.

    Log-mel frames learn nothing: they are read as they are, and cost nothing.

    Args:
        gradient: factor of the gradient that reaches the convolutions.
        penalty: weight of the mean square of what they put out, before it is normalised.
    """

    gradient: float = 0.1
    penalty: float = 10.0

    def __post_init__(self) -> None:
        within("front_end.gradient", self.gradient, low=0, high=1)
        within("front_end.penalty", self.penalty, low=0)

    def read(self, encoder: SpeechEncoder, batch: SpeechBatch, wanted: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, T, F) features, and which are real; where (B, T) `wanted` are named, those alone need be right."""
        some = {} if wanted is None or not isinstance(encoder.frontend, Waveform) else {"wanted": wanted}
        frames, mask = encoder.frontend(batch, **some)
        if frames.requires_grad:
            frames.register_hook(lambda gradient: self.gradient * gradient)
        return frames, mask

    def terms(self, encoder: SpeechEncoder, frames: Tensor, mask: Tensor) -> dict[str, Term]:
        """The penalty, over real frames; none of a front end that learns nothing."""
        if not self.penalty or not learns(encoder):
            return {}
        squares = frames.float().square().mean(-1)  # (B, T)
        return {"penalty": Term((squares * mask).sum(), mask.sum(), self.penalty)}

    def counts(self, encoder: SpeechEncoder, mask: Tensor) -> dict[str, Tensor]:
        """What `terms` counts."""
        return {"penalty": mask.sum()} if self.penalty and learns(encoder) else {}


def learns(encoder: SpeechEncoder) -> bool:
    return any(p.requires_grad for p in encoder.frontend.parameters())


def real_frames(encoder: SpeechEncoder, batch: SpeechBatch) -> Tensor:
    """(B, T) the mask that the front end would give, without running it."""
    frames = encoder.frontend.frames
    return lengths_to_mask(frames(batch.lengths), frames(batch.wave.shape[1]))


def expect_both_sides(encoder: SpeechEncoder, asker: str) -> None:
    """Raises UserError unless it is a transformer over speech that sees what comes before a frame and after it."""
    expect(encoder, "speech", asker)
    if getattr(encoder, "causal", True):
        raise UserError(f"{asker} needs an encoder that sees both sides: a SpeechEncoder of trunk: transformer.")
