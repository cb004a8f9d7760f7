"""Words a masked language model gets right, masked and in place, by their part of speech (arXiv:2010.02480)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ssl_suite.analysis.words import BATCH, Reader, Sentences
from ssl_suite.encoders.tokenizer import token_id
from ssl_suite.methods.text.masked_lm import MaskedLM

Word = tuple[list[int], list[int]]
"""Ids of a sentence, and the places of the pieces of one of its words."""


def masked_words(method: MaskedLM, reader: Reader, sentences: Sentences, wanted: int) -> Iterator[dict[str, Any]]:
    """Share of words whose every piece is the likeliest: with all of them masked, and with the word in place.

    Args:
        method: with the head of the encoder.
        reader: of the encoder.
        sentences: tagged.
        wanted: words, evenly over all of them; each in a copy of its sentence of its own.

    Yields:
        `measure` (prediction, reconstruction), `label` (a tag, or all), `value`, `words`.
    """
    ids, owners = reader.encode(sentences.words)
    every = [(i, w) for i, row in enumerate(sentences.words) for w in range(len(row))]
    chosen = [every[k] for k in np.unique(np.linspace(0, len(every) - 1, min(wanted, len(every))).astype(int))]
    chosen.sort(key=lambda place: len(ids[place[0]]))
    tags = np.array([str(sentences.labels[i][w]) for i, w in chosen])
    words = [(ids[i], [t for t, owner in enumerate(owners[i]) if owner == w]) for i, w in chosen]
    method.to(reader.device).eval()
    for measure, hide in (("prediction", token_id(reader.tokenizer, "mask")), ("reconstruction", None)):
        parts = (words[k : k + BATCH] for k in range(0, len(words), BATCH))
        right = np.concatenate([are_right(method, reader, part, hide) for part in parts])
        yield {"measure": measure, "label": "all", "value": float(right.mean()), "words": len(right)}
        for tag in np.unique(tags):
            own = right[tags == tag]
            yield {"measure": measure, "label": str(tag), "value": float(own.mean()), "words": len(own)}


@torch.no_grad()
def are_right(method: MaskedLM, reader: Reader, words: Sequence[Word], hide: int | None) -> NDArray[Any]:
    """(B,) whether the likeliest tokens at a word's places are its own, with `hide` there if it is given."""
    shown = [[hide if hide is not None and t in at else token for t, token in enumerate(ids)] for ids, at in words]
    rows = torch.tensor([b for b, (_, at) in enumerate(words) for _ in at], device=reader.device)
    places = torch.tensor([t for _, at in words for t in at], device=reader.device)
    truth = torch.tensor([ids[t] for ids, at in words for t in at], device=reader.device)
    output = method.encoder.output_at(reader.batch(shown), (rows, places))
    missed = rows[method.head(output).argmax(1) != truth]
    right = torch.ones(len(words), dtype=torch.bool)
    right[missed.cpu()] = False
    return right.numpy()
