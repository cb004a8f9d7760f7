"""Request: what a model asks of its data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ssl_suite.core.seq2seq import Corruption
from ssl_suite.core.task import Labels

if TYPE_CHECKING:
    from ssl_suite.core.encoder import Encoder


@dataclass(frozen=True)
class Request:
    """What a model asks of its data, once, before the first batch.

    Attributes:
        pretrains: whether a method learns from the inputs, which may then be cropped; it may ask for a target as well.
        target: kind of target that is learned, or of each slot of a task; None: none.
        labels: the labels a task already knows (from a checkpoint); None to take them from the training split.
        views: name of the augmentation whose views a method contrasts.
        tokenizer: of the encoder, where it brings one.
        vocab_size: rows of a text encoder's embedding.
        longest: most tokens a text encoder reads; None for any number.
        stride: input units per state, for targets along time.
        watch: kind of target a callback looks at while a method pretrains.
        pairs: how two text segments are paired for a second objective: `nsp` or `sop`.
        phrases: whether a method masks given phrases and entities of a text.
        corruption: how a text is made what an encoder–decoder reads and what it says, see `core.seq2seq`.
        start_id: what the decoder of such an encoder begins with.
        aligned: whether an item has to be a row of the source, as in a part of a joint batch; no text is packed then.
        parts: of a joint method: what each of its encoders asks for.
        preprocess: of the encoder: options of the data it learned from, which are kept unless others are given.
    """

    pretrains: bool = False
    target: str | dict[str, str] | None = None
    labels: Labels | None = None
    views: str | None = None
    tokenizer: Any = None
    vocab_size: int | None = None
    longest: int | None = None
    stride: int = 1
    watch: str | None = None
    pairs: str | None = None
    phrases: bool = False
    corruption: Corruption | None = None
    start_id: int | None = None
    aligned: bool = False
    parts: dict[str, Request] = field(default_factory=dict)
    preprocess: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, encoder: Encoder, **more: Any) -> Request:
        """What any model on this encoder asks: inputs as it learned from; and more."""
        return cls(
            tokenizer=encoder.tokenizer,
            vocab_size=encoder.config.get("vocab_size"),
            longest=encoder.longest,
            start_id=encoder.config.get("start_id"),
            stride=encoder.stride,
            preprocess=encoder.preprocess,
            **more,
        )

    @property
    def kinds(self) -> list[str]:
        """Of every target that is wanted."""
        wanted = self.target or self.watch
        return [] if wanted is None else [wanted] if isinstance(wanted, str) else list(wanted.values())
