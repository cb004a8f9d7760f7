"""The batches: of each modality, and of several. `target` is there only where a task asked for one.

They are plain, not frozen, dataclasses: Lightning's FSDP precision plug-in rebuilds a batch field by field.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

IGNORE = -100
"""A target that no loss and no metric counts."""

Target = Tensor | dict[str, Tensor]
"""What a task learns, of an item or of a batch; of a task with several slots, by their names."""


@dataclass(eq=False)
class Batch:
    """What every batch carries.

    Attributes:
        index: (B,) position of each item in its split.
        seed: (B,) seed of each item in this epoch, see `core.random`.
        target: what a task learns of each item, a row each, see `stacked`: (B,) classes or values, (B, L) tags, ...; of
            a task with several slots, one for each.
    """

    index: Tensor
    seed: Tensor
    target: Target | None

    def __len__(self) -> int:
        return len(self.index)

    def to(self, device: torch.device | str) -> Self:
        """Copies to a device; from pinned memory without waiting for the copy."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=tensor.is_pinned()))

    def pin_memory(self) -> Self:
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The batch with each tensor changed, those in a tuple, a dict or a part too."""

        def changed(value: Any) -> Any:
            if isinstance(value, Batch):
                return value._each(change)
            if isinstance(value, tuple):
                return tuple(map(changed, value))
            if isinstance(value, dict):
                return {name: changed(part) for name, part in value.items()}
            return change(value) if isinstance(value, Tensor) else value

        return replace(self, **{f.name: changed(getattr(self, f.name)) for f in fields(self)})


@dataclass(eq=False)
class TextBatch(Batch):
    """Token sequences.

    Attributes:
        ids: (B, T) token ids.
        mask: (B, T) True = a real token.
        segments: (B, T) 0 for the first sequence, 1 for the second.
        documents: (B, T) which document of the row each token belongs to, counted from 0 within the row; attention
            stays inside a document and positions restart in each. None = one document a row.
        dense: no padding anywhere in `mask`; known on the host, so that attention needs no mask.
        pair: (B,) 0 = the second segment follows the first as in the source, 1 = it does not.
        phrases: (B, L, T) True where a given phrase begins, at each of L levels (phrases, entities).
    """

    ids: Tensor
    mask: Tensor
    segments: Tensor | None = None
    documents: Tensor | None = None
    dense: bool = False
    pair: Tensor | None = None
    phrases: Tensor | None = None


@dataclass(eq=False)
class ImageBatch(Batch):
    """Images in [0, 1], before the encoder's own normalisation.

    Attributes:
        images: (B, 3, H, W); bytes until `DataModule.finish` makes them floats.
        views: V augmented versions, each (B, 3, H, W), of one size or of several; empty when no method asked for views.
        cut: (B,) while `views` are only cut, in bytes, and yet to be augmented: False where even that is to be done.
    """

    images: Tensor
    views: tuple[Tensor, ...] = ()
    cut: Tensor | None = None

    def view(self, *which: int) -> ImageBatch:
        """Returns a batch whose images are the named views, stacked: (len(which)·B, 3, H, W)."""
        n = len(which)
        return ImageBatch(self.index.repeat(n), self.seed.repeat(n), None, torch.cat([self.views[v] for v in which]))


@dataclass(eq=False)
class SpeechBatch(Batch):
    """Waveforms at 16 kHz.

    Attributes:
        wave: (B, N) float in [-1, 1], zero after each item's end.
        lengths: (B,) samples of each item.
        rate: samples a second.
        added: what `DataModule.finish` has yet to mix in where it augments, (B, ·) each: noise, responses of rooms.
    """

    wave: Tensor
    lengths: Tensor
    rate: int = 16000
    added: dict[str, Tensor] | None = None


@dataclass(eq=False)
class JointBatch(Batch):
    """Several batches item by item: a picture, and what is said about it.

    Attributes:
        parts: of B items each, by the names of their encoders.
    """

    parts: dict[str, Batch]


def lengths_to_mask(lengths: Tensor, size: int) -> Tensor:
    """Returns (B, size) bool, True before each length."""
    return torch.arange(size, device=lengths.device)[None] < lengths[:, None]


def tensors_of(target: Target) -> list[Tensor]:
    """The one tensor, or that of each slot."""
    return list(target.values()) if isinstance(target, dict) else [target]


def stacked(targets: Sequence[Target]) -> Target | None:
    """The targets of items as that of a batch: whole numbers are padded with `IGNORE`, others with 0; None: none."""
    if not targets:
        return None
    if isinstance(targets[0], dict):
        rows = cast(Sequence[dict[str, Tensor]], targets)
        return {slot: cast(Tensor, stacked([row[slot] for row in rows])) for slot in rows[0]}
    tensors = cast(list[Tensor], targets)
    if tensors[0].ndim == 0:
        return torch.stack(tensors)
    numbers = not tensors[0].is_floating_point() and tensors[0].dtype != torch.bool
    return pad_sequence(tensors, batch_first=True, padding_value=IGNORE if numbers else 0)


def padded(rows: Sequence[NDArray[Any]], size: int, filling: int) -> Tensor:
    """Rows of unequal length → (B, size) int64."""
    out = np.full((len(rows), size), filling, np.int64)
    for row, values in zip(out, rows, strict=True):
        row[: len(values)] = values
    return torch.from_numpy(out)
