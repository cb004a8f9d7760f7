"""One word in many sentences: do its contextual embeddings tell senses apart, layer by layer?

As in the lecture, after Ethayarajh 2019 (arXiv:1909.00512): cosine similarities of its occurrences, beside the
static embedding, which has one vector for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from ssl_suite.analysis.figures import Curve, heatmap, lines
from ssl_suite.analysis.findings import Exhibit, Findings, Row
from ssl_suite.analysis.states import described, named_encoders
from ssl_suite.analysis.tables import read_pairs
from ssl_suite.analysis.words import Reader, Sentences, read_sentences
from ssl_suite.core.check import within
from ssl_suite.core.errors import UserError

PUNCTUATION = ".,;:!?\"'()[]“”‘’"
NEIGHBOURS = 5


@dataclass(frozen=True)
class Occurrences:
    """Where a word stands.

    Attributes:
        sentences: each with the word.
        places: of the word, one a sentence.
        senses: of each.
    """

    sentences: list[list[str]]
    places: list[int]
    senses: list[str]


def occurrences(word: str, sentences: Sentences, most: int) -> Occurrences:
    """The first time a word stands in each sentence that has it, sorted by sense, at most `most` of each sense.

    The sense is the sentence's label; where each word has a label (a part of speech), it is the word's.

    Raises:
        UserError: fewer than two senses have two sentences or more.
    """
    found: dict[str, list[tuple[list[str], int]]] = {}
    for row, label in zip(sentences.words, sentences.labels, strict=True):
        bare = [w.strip(PUNCTUATION).lower() for w in row]
        if word.lower() in bare:
            place = bare.index(word.lower())
            own = found.setdefault(str(label[place] if isinstance(label, list) else label), [])
            if len(own) < most:
                own.append((row, place))
    kept = {sense: own for sense, own in sorted(found.items()) if len(own) > 1}
    if len(kept) < 2:
        there = ", ".join(f"{sense} {len(own)}" for sense, own in found.items()) or "none"
        raise UserError(f"{word!r} needs two senses with two sentences each; there is: {there}. Give more sentences.")
    flat = [(row, place, sense) for sense, own in kept.items() for row, place in own]
    return Occurrences([r for r, _, _ in flat], [p for _, p, _ in flat], [s for _, _, s in flat])


def read_senses(source: str) -> Sentences:
    """A TSV with a sense and a sentence a line, or tagged sentences (`samples:brown`)."""
    if Path(source).suffix == ".tsv":
        senses, texts = zip(*read_pairs(source, ("a sense", "a sentence")), strict=True)
        return Sentences([text.split() for text in texts], list(senses))
    return read_sentences(source, "tokens", "tags", "train", 10**9)


def told_apart(cosines: NDArray[Any], senses: Sequence[str]) -> dict[str, float]:
    """How well similarity tells senses apart.

    Args:
        cosines: (N, N).
        senses: (N,).

    Returns:
        `within` and `between`: mean cosine of two occurrences of one sense, and of two; `auc`: how often the former is
        the greater of the two, over all such pairs of pairs, ties counting half.
    """
    from sklearn.metrics import roc_auc_score

    one, other = np.triu_indices(len(senses), 1)
    same = np.array(senses)[one] == np.array(senses)[other]
    values = cosines[one, other]
    return {
        "within": float(values[same].mean()),
        "between": float(values[~same].mean()),
        "auc": float(roc_auc_score(same, values.round(6))),  # equal vectors differ by rounding alone
    }


def cosines(vectors: Tensor) -> NDArray[Any]:
    """(N, N) of the rows of (N, D)."""
    rows = normalize(vectors.double(), dim=1)
    return (rows @ rows.T).numpy()


def static_vectors(reader: Reader, words: Sequence[str]) -> Tensor | None:
    """(N, D) of the word embedding alone, without position or context; None where the encoder has none."""
    table = getattr(reader.encoder, "tokens", None)
    if not isinstance(table, torch.nn.Embedding):
        return None
    ids = [reader.tokenizer.encode(word, add_special_tokens=False).ids for word in words]
    return torch.stack([table.weight[i].detach().float().cpu().mean(0) for i in ids])


def senses(source: str, word: str, data: str, most: int = 8, corpus: str = "samples:brown") -> Findings:
    """Looks at a word of several senses.

    Args:
        source: text encoder.
        word: that is looked at.
        data: TSV of sense and sentence; or tagged sentences, whose parts of speech are the senses.
        most: sentences a sense.
        corpus: sentences whose words are the possible neighbours.

    Raises:
        UserError: the encoder reads no text, or there are too few sentences.
    """
    within("--most", most, low=2, whole=True)
    ((name, encoder),) = named_encoders([source]).items()
    reader = Reader(encoder)
    found = occurrences(word, reader.fitting(read_senses(data)), most)
    starts = np.cumsum([0, *map(len, found.sentences)])
    at = [int(start) + place for start, place in zip(starts, found.places, strict=False)]
    layers = [state[at] for state in reader.words(found.sentences)]
    spoken = [row[p].strip(PUNCTUATION) for row, p in zip(found.sentences, found.places, strict=True)]
    maps = {f"state {k}": cosines(layer) for k, layer in enumerate(layers)}
    if (static := static_vectors(reader, spoken)) is not None:
        maps = {"word embedding": cosines(static), **maps}
    rows: list[Row] = []
    for layer, matrix in maps.items():
        rows += [{"layer": layer, "measure": m, "value": v} for m, v in told_apart(matrix, found.senses).items()]
        rows += [
            {"layer": layer, "measure": "cosine", "first": i, "second": j, "value": float(matrix[i, j])}
            for i in range(len(at))
            for j in range(i)
        ]
    figures = {r["layer"]: r["value"] for r in rows if r["measure"] == "auc"}
    best = max(figures, key=lambda layer: figures[layer])
    return Findings(
        "senses",
        f"Does {name} tell the senses of “{word}” apart?",
        f"Best at {best}: occurrences of one sense are the more alike in {100 * figures[best]:.0f} % of comparisons "
        f"(chance 50 %; {next(iter(figures))} {100 * next(iter(figures.values())):.0f} %).",
        rows,
        [_curves(rows, list(maps)), *_maps(maps, found, best), _neighbours(reader, found, layers, corpus)],
        {
            **described({name: encoder}),
            "sentences": f"{data}: {len(at)}",
            "senses": ", ".join(dict.fromkeys(found.senses)),
        },
        [
            "A word is the mean of its pieces. Word embedding: the input table alone, the same for every occurrence; "
            "state 0 has what the encoder adds to it before its first block.",
            "AUC: of a pair of occurrences of one sense and a pair of two, how often the former’s cosine is greater.",
            f"Neighbours: of the occurrences of all words in sentences of {corpus}, by the cosine of the last state.",
        ],
    )


def _curves(rows: Sequence[Row], layers: Sequence[str]) -> Exhibit:
    def curve(measure: str, role: str) -> Curve:
        values = [r["value"] for r in rows if r["measure"] == measure]
        return Curve(list(range(len(layers))), values, role=role)

    curves = {
        "one sense": curve("within", "ssl"),
        "two senses": curve("between", "random"),
        "AUC": curve("auc", "supervised"),
    }
    figure, legend = lines(curves, "senses", "Mean cosine", f"{layers[0]}, then state by state", "mean cosine, AUC")
    return Exhibit("Layer by layer", figure, "Mean cosine of two occurrences of one sense, and of two senses.", legend)


def _maps(maps: Mapping[str, NDArray[Any]], found: Occurrences, best: str) -> list[Exhibit]:
    """The first layer, the best and the last."""
    labels = [f"{s} · {_around(r, p)}" for s, r, p in zip(found.senses, found.sentences, found.places, strict=True)]
    exhibits = []
    for layer in dict.fromkeys([next(iter(maps)), best, list(maps)[-1]]):
        off = maps[layer][~np.eye(len(labels), dtype=bool)]
        bounds = (float(off.min()) - 0.02, max(1.0, float(off.max())))
        numbers = [str(i + 1) for i in range(len(labels))]
        ids = f"cosine-{layer.replace(' ', '-')}"
        marked = [f"{n} {label}" for n, label in zip(numbers, labels, strict=True)]
        figure = heatmap(
            maps[layer], marked, numbers, ids, f"Cosines at {layer}", bounds, cell=30 if off.std() > 1e-4 else 18
        )
        exhibits.append(Exhibit(f"Cosines at {layer}", figure, "Darker is more alike; senses stand together."))
    return exhibits


def _around(row: Sequence[str], place: int, width: int = 2) -> str:
    return " ".join(row[max(0, place - width) : place + width + 1])


def _neighbours(reader: Reader, found: Occurrences, layers: Sequence[Tensor], corpus: str) -> Exhibit:
    """Of one occurrence of each sense the nearest other words, by the last state and by the word embedding."""
    others = reader.fitting(read_sentences(corpus, "tokens", None, "test", 500))
    words = [(row, p) for row in others.words for p in range(len(row))]
    keys = normalize(reader.words(others.words)[-1], dim=1)
    own = found.sentences[0][found.places[0]].strip(PUNCTUATION).lower()
    others_at = [i for i, (row, p) in enumerate(words) if row[p].isalpha() and row[p].lower() != own]
    body = []
    for sense in dict.fromkeys(found.senses):
        i = found.senses.index(sense)
        nearest = (keys[others_at] @ normalize(layers[-1][i], dim=0)).argsort(descending=True)
        seen = dict.fromkeys(_around(*words[others_at[int(k)]], width=1) for k in nearest[: 4 * NEIGHBOURS])
        body.append([f"{sense}: {_around(found.sentences[i], found.places[i])}", "; ".join(list(seen)[:NEIGHBOURS])])
    vocabulary = sorted({words[i][0][words[i][1]].lower() for i in others_at})
    table, query = static_vectors(reader, vocabulary), static_vectors(reader, [own])
    if table is not None and query is not None:
        nearest = (normalize(table, dim=1) @ normalize(query, dim=1)[0]).argsort(descending=True)
        body.append([f"word embedding: {own}", "; ".join(vocabulary[int(k)] for k in nearest[:NEIGHBOURS])])
    head = ["an occurrence", "nearest words, with what stands around them"]
    return Exhibit("Nearest neighbours", head=head, body=body, prose=True)
