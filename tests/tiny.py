"""Tiny encoders and batches, and the comparison of two states; tests import it as `tiny`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_suite.core.batch import ImageBatch, SpeechBatch, TextBatch, lengths_to_mask
from ssl_suite.core.features import Features
from ssl_suite.encoders.image import ImageEncoder
from ssl_suite.encoders.speech import SpeechEncoder
from ssl_suite.encoders.text import TextEncoder
from ssl_suite.methods.text.corrupt import choose_positions, maskable, replace_tokens

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "use_distributed_sampler": False}
"""Trainer options of a run that prints and logs nothing."""


def tiny_image_encoder(**options: Any) -> ImageEncoder:
    return ImageEncoder(**{"name": "resnet18", "small_images": True, "width": 4, **options})


def tiny_text_encoder(**options: Any) -> TextEncoder:
    return TextEncoder(**{"vocab_size": 270, "dim": 16, "layers": 2, "heads": 2, "max_length": 64, **options})


def tiny_speech_encoder(**options: Any) -> SpeechEncoder:
    return SpeechEncoder(**{"mels": 12, "channels": 8, "dim": 16, "layers": 2, "heads": 2, "dropout": 0.1, **options})


def image_batch(n: int = 4, size: int = 16, views: int = 2) -> ImageBatch:
    made = tuple(torch.rand(n, 3, size, size) for _ in range(views))
    return ImageBatch(torch.arange(n), torch.arange(n), None, torch.rand(n, 3, size, size), made)


def text_batch(lengths: list[int], vocab: int = 261, seeds: list[int] | None = None, pad: int = 0) -> TextBatch:
    """Rows of ordinary ids (5 and above) of these lengths, then padding."""
    mask = lengths_to_mask(torch.tensor(lengths), max(lengths))
    ids = torch.randint(5, vocab, mask.shape).masked_fill(~mask, pad)
    seed = torch.tensor(seeds if seeds is not None else list(range(len(lengths))))
    return TextBatch(torch.arange(len(lengths)), seed, None, ids, mask)


def bert_mask(batch: TextBatch, special: Tensor, mask_id: int, vocab_size: int, rate: float) -> tuple[Tensor, Tensor]:
    """BERT's corruption of single tokens, as MaskedLM puts it together: ids and chosen positions."""
    chosen = choose_positions(maskable(batch, special), batch.seed, rate)
    return replace_tokens(batch.ids, chosen, batch.seed, special, mask_id, vocab_size), chosen


def speech_batch(lengths: list[int]) -> SpeechBatch:
    size = torch.tensor(lengths)
    wave = torch.randn(len(lengths), max(lengths)) * 0.1 * lengths_to_mask(size, max(lengths))
    return SpeechBatch(torch.arange(len(lengths)), torch.arange(len(lengths)), None, wave, size)


def values(features: Features | None) -> Tensor:
    """All frozen features of a split, (ΣT, S, D)."""
    assert features is not None
    return torch.cat([shard.values for shard in features.shards])


def all_targets(data: Any, split: str) -> Tensor:
    """(N,) the targets of a split."""
    return torch.stack([data.target(split, i) for i in range(data.size(split))])


def flat(state: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries and lists → path → leaf, to compare two states leaf by leaf."""
    if isinstance(state, dict):
        return {k: v for key, value in state.items() for k, v in flat(value, f"{prefix}/{key}").items()}
    if isinstance(state, (list, tuple)):
        return {k: v for i, value in enumerate(state) for k, v in flat(value, f"{prefix}/{i}").items()}
    return {prefix: state}


def differing(a: Any, b: Any) -> list[str]:
    """Paths whose leaves are not bit for bit the same."""
    left, right = flat(a), flat(b)
    same = {
        k
        for k in left.keys() & right.keys()
        if (torch.equal(left[k], right[k]) if isinstance(left[k], torch.Tensor) else left[k] == right[k])
    }
    return sorted((left.keys() | right.keys()) - same)


def files_below(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
