"""The states of an encoder, layer by layer, for some items of a source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_suite.core.check import within
from ssl_suite.core.encoder import Encoder
from ssl_suite.core.errors import UserError
from ssl_suite.core.folder import ENCODER, fingerprint
from ssl_suite.core.load import load_encoder, located
from ssl_suite.core.readout import Readout
from ssl_suite.data.common.layout import SPLIT_OF
from ssl_suite.data.embeddings import data_for, fastest_device
from ssl_suite.plugins import load_all

FEWEST = 4
"""Items that tell how alike states are, and how many directions they use."""


def named_encoders(sources: Sequence[str]) -> dict[str, Encoder]:
    """Encoders by the shortest ends of their paths that tell them apart; on the fastest device, in eval mode.

    Args:
        sources: folders, runs, checkpoints or URIs, `random:` ones too.

    Raises:
        UserError: one is not there, or is named twice.
    """
    load_all()
    if len(set(map(_place, sources))) < len(sources):
        raise UserError(f"An encoder is named twice: {', '.join(sources)}.")
    return {
        name: load_encoder(s).to(fastest_device()).eval() for name, s in zip(short_names(sources), sources, strict=True)
    }


def _place(source: str) -> str:
    """The same for all spellings of a place: a run stands for its encoder."""
    random, path = ("random:", source.removeprefix("random:")) if source.startswith("random:") else ("", source)
    place = Path(located(path))
    return f"{random}{place.resolve() if place.exists() else path}"


def short_names(sources: Sequence[str]) -> list[str]:
    """The end of each path, as many parts of it as it takes; `random:` stays in front."""
    parts = []
    for source in sources:
        scheme, _, path = source.rpartition(":") if source.startswith("random:") else ("", "", source)
        own = [p for p in Path(path).parts if p not in ("/", ENCODER)] or [path]
        parts.append((f"{scheme} " if scheme else "", own))
    for n in count(1):
        names = [prefix + "/".join(own[-n:]).removesuffix(".ckpt") for prefix, own in parts]
        if len(set(names)) == len(names) or n > max(len(own) for _, own in parts):
            return names
    raise AssertionError


def described(encoders: dict[str, Encoder]) -> dict[str, str]:
    """What a page says of encoders: class, layers, width, a hash of the weights."""
    return {
        name: f"{type(e).__name__}, {e.num_states - 1} layers × {e.dim}, weights {fingerprint(e)[:12]}"
        for name, e in encoders.items()
    }


def spread(n: int, wanted: int) -> list[int]:
    """At most `wanted` row numbers, evenly over n rows."""
    return [int(i) for i in np.linspace(0, n - 1, min(n, wanted)).round()]


class Items:
    """Some items of a source, the same ones for every encoder.

    Args:
        source: as a data module's.
        split: of it.
        wanted: at most so many items, evenly over the split.
        column: of the input; None: the modality's own.
        image_size: side in pixels; None: as the encoder learned.
        batch_size: items an encoder sees together.
    """

    def __init__(
        self,
        source: str,
        split: str = "test",
        wanted: int = 1000,
        column: str | None = None,
        image_size: int | None = None,
        batch_size: int = 64,
    ) -> None:
        within("--count", wanted, low=FEWEST, whole=True)
        within("--batch_size", batch_size, low=1, whole=True)
        self.source, self.split, self.wanted = source, SPLIT_OF.get(split, split), wanted
        self.column, self.image_size, self.batch_size = column, image_size, batch_size

    def __str__(self) -> str:
        return f"{self.source}, {self.split}, at most {self.wanted} items"

    def states(self, encoder: Encoder, positions: bool = False) -> list[Tensor]:
        """What an encoder makes of them.

        Args:
            encoder: of the source's modality.
            positions: every real position (token, patch, frame) by itself instead of each item's mean.

        Returns:
            For each state of the encoder (N, D) on the host; N items or positions.
        """
        readouts = [Readout(f"layer:{k}", encoder, sequence=positions) for k in range(encoder.num_states)]
        made: list[list[Tensor]] = [[] for _ in readouts]
        for encoded in self._encoded(encoder):
            for k, readout in enumerate(readouts):
                selected = readout.select(encoded)
                made[k].append(selected.states[0][selected.mask].float().cpu())
        return [torch.cat(parts) for parts in made]

    @torch.no_grad()
    def _encoded(self, encoder: Encoder) -> Iterator[Any]:
        options = {"column": self.column} | ({"image_size": self.image_size} if encoder.modality == "image" else {})
        data = data_for(encoder, self.source, batch_size=self.batch_size, **options)
        if not data.has(self.split):
            raise UserError(
                f"{self.source} has no {self.split} split; it has: {', '.join(data.splits())}. Name one: --split."
            )
        if (size := data.size(self.split)) < FEWEST:
            raise UserError(f"{self.source}: the {self.split} split has {size} items, but {FEWEST} or more are needed.")
        device = next(encoder.parameters(), torch.empty(0)).device
        chosen = spread(size, self.wanted)
        for start in range(0, len(chosen), self.batch_size):
            some = chosen[start : start + self.batch_size]
            batch = data.collate([data.read(self.split, i, seed=0) for i in some])
            yield encoder(data.finish(batch.to(device)))
