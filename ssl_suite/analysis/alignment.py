"""Are two languages aligned? Mean reciprocal rank of translations, of sentences and of words (arXiv:2010.10938)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ssl_suite.analysis.amounts import against
from ssl_suite.analysis.figures import Curve, lines
from ssl_suite.analysis.findings import Exhibit, Findings, Row
from ssl_suite.analysis.senses import PUNCTUATION
from ssl_suite.analysis.states import described, named_encoders
from ssl_suite.analysis.tables import read_pairs
from ssl_suite.analysis.words import Reader
from ssl_suite.core.check import within
from ssl_suite.core.encoder import Encoder
from ssl_suite.core.errors import UserError

Sides = tuple[list[list[str]], list[list[str]]]
"""The words of each text, in both languages."""


def reciprocal_ranks(queries: Tensor, keys: Tensor) -> Tensor:
    """1 / rank of each query's own key among all keys, by cosine; equal ones share the mean of their ranks.

    Args:
        queries: (N, D).
        keys: (N, D), each the translation of the query of its number.

    Returns:
        (N,) in double precision.
    """
    cosine = normalize(queries.double(), dim=1) @ normalize(keys.double(), dim=1).T  # (N, N)
    own = cosine.diagonal()[:, None]
    alike = (cosine - own).abs() < 1e-9
    return 1 / (1 + ((cosine > own) & ~alike).sum(1) + (alike.sum(1) - 1) / 2)


def mean_reciprocal_rank(one: Tensor, other: Tensor) -> float:
    """Mean of the reciprocal ranks in both directions."""
    return float((reciprocal_ranks(one, other).mean() + reciprocal_ranks(other, one).mean()) / 2)


def read_sides(pairs: str) -> Sides:
    """The texts of a parallel list as words.

    Raises:
        UserError: there are fewer than four different texts of a language.
    """
    columns = list(zip(*read_pairs(pairs), strict=True))
    for number, texts in enumerate(columns, 1):
        if (different := len(set(texts))) < 4:
            raise UserError(f"{pairs}: column {number} needs four different texts or more, but has {different}.")
    one, other = ([text.split() for text in texts] for texts in columns)
    return one, other


def expect_tokens(reader: Reader, sides: Sides, pairs: str) -> None:
    """Raises UserError where a text has no token, as one of marks that a tokenizer drops: it has no vector."""
    for column, texts in enumerate(sides, 1):
        for number, owners in enumerate(reader.encode(texts)[1], 1):
            if all(owner is None for owner in owners):
                raise UserError(
                    f"{pairs}: in column {column} of pair {number} the encoder's tokenizer finds no token; "
                    "take the pair out."
                )


def repeated(sides: Sides) -> int:
    """How many texts repeat another of their language, in that of the two where they are more."""
    return max(len(texts) - len(set(map(tuple, texts))) for texts in sides)


def word_vectors(
    words: Sequence[str], texts: Sequence[Sequence[str]], states: Sequence[Tensor]
) -> dict[str, list[Tensor]]:
    """Of each word that occurs its mean contextual vector in every state (arXiv:2010.10938, section 2).

    Args:
        words: that are wanted, in any case.
        texts: in which they stand.
        states: of all words of the texts, as `Reader.words` gives them.
    """
    places: dict[str, list[int]] = {}
    for at, word in enumerate(word for text in texts for word in text):
        places.setdefault(word.strip(PUNCTUATION).lower(), []).append(at)
    wanted = {word.lower() for word in words} & places.keys()
    return {word: [state[places[word]].mean(0) for state in states] for word in sorted(wanted)}


MEASURES = {"mrr": "as they are", "mrr_centred": "without language means"}


def alignment(
    sources: Sequence[str],
    pairs: str,
    languages: Sequence[str],
    dictionary: str | None = None,
    amounts: Sequence[float] = (),
) -> Findings:
    """Ranks translations by the states of encoders.

    Args:
        sources: text encoders.
        pairs: TSV of texts in two languages, each the other's translation.
        languages: their two names, for the page.
        dictionary: TSV of words in both; each is the mean of its contextual vectors in `pairs`; None: texts alone.
        amounts: how much each encoder was pretrained on, in any unit: what is found is shown against it, those of one
            amount together.

    Raises:
        UserError: a list has too little, a text no token, an encoder reads no text, or not each has its amount.
    """
    if len(languages) != 2:
        raise UserError(f"--languages are the two of the list, not {len(languages)}: --languages en es.")
    if amounts and len(amounts) != len(sources):
        raise UserError(f"--amounts are one for each of the {len(sources)} encoders, not {len(amounts)}.")
    for amount in amounts:
        within("--amounts", amount, low=0)
    sides = read_sides(pairs)
    entries = read_pairs(dictionary, ("a word", "its translation")) if dictionary else []
    encoders = named_encoders(sources)
    known = dict(zip(encoders, ({"amount": float(a)} for a in amounts), strict=True)) if amounts else {}
    rows: list[Row] = []
    for name, encoder in encoders.items():
        expect_tokens(Reader(encoder), sides, pairs)
        rows += [{"encoder": name, **known.get(name, {}), **row} for row in aligned(encoder, sides, entries)]
    exhibits, answer = _against_amounts(rows) if amounts else _state_by_state(rows)
    if count := repeated(sides):
        answer += f" Of the texts {count} repeat another and share its rank, which chance does not reckon with."
    return Findings(
        "alignment",
        f"Are {languages[0]} and {languages[1]} aligned?",
        answer,
        rows,
        exhibits,
        {**described(encoders), "pairs": f"{pairs}: {len(sides[0])}", "dictionary": dictionary or "none"},
        [
            "A text is the mean of its words, a word that of its pieces; a word of the dictionary the mean of its "
            "occurrences in the texts (arXiv:2010.10938). Rank by cosine, mean of both directions; ties share ranks.",
            "Without language means: of each language the mean over the same list is subtracted first.",
        ],
    )


def _chance(candidates: int) -> float:
    """The mean reciprocal rank of an order drawn at random."""
    return sum(1 / k for k in range(1, candidates + 1)) / candidates


def _state_by_state(rows: Sequence[Row]) -> tuple[list[Exhibit], str]:
    exhibits = []
    for unit in dict.fromkeys(row["unit"] for row in rows):
        curves = {}
        for name in dict.fromkeys(row["encoder"] for row in rows):
            for kind in MEASURES:
                own = [r for r in rows if (r["encoder"], r["unit"], r["measure"]) == (name, unit, kind)]
                label, centred = (name, False) if kind == "mrr" else (f"{name}, {MEASURES[kind]}", True)
                curves[label] = Curve([r["state"] for r in own], [r["value"] for r in own], dashed=centred)
        figure, legend = lines(curves, f"mrr-{unit}", f"MRR of {unit}", "state", "mean reciprocal rank")
        exhibits.append(Exhibit(f"Translations found: {unit}", figure, "1: each translation is the nearest.", legend))
    best = max(rows, key=lambda row: row["value"])
    mean = "" if best["measure"] == "mrr" else ", once the means of the languages are taken off"
    answer = (
        f"At best a mean reciprocal rank of {best['value']:.2f} ({best['unit']}, {best['encoder']}, state "
        f"{best['state']}{mean}); chance is {_chance(best['candidates']):.2f} among {best['candidates']}."
    )
    return exhibits, answer


def _against_amounts(rows: Sequence[Row]) -> tuple[list[Exhibit], str]:
    exhibits, answers = [], []
    for unit in dict.fromkeys(row["unit"] for row in rows):
        own = [row for row in rows if row["unit"] == unit]
        chance, title = _chance(own[0]["candidates"]), f"Translations found: {unit}"
        exhibit, answer = against(own, MEASURES, chance, title, "mean reciprocal rank", f"mrr-{unit}")
        exhibits.append(exhibit)
        answers.append(f"Mean reciprocal rank of {unit} by the amount of pretraining data: {answer}.")
    return exhibits, " ".join(answers)


def aligned(encoder: Encoder, sides: Sides, dictionary: Sequence[tuple[str, str]]) -> list[Row]:
    """The mean reciprocal ranks in every state, of texts and, with a dictionary, of words.

    Raises:
        UserError: fewer than four entries of the dictionary occur on both sides.
    """
    reader = Reader(encoder)
    rows: list[Row] = []
    units: dict[str, list[tuple[Tensor, Tensor]]] = {
        "texts": list(zip(*(reader.sentences(side) for side in sides), strict=True))
    }
    if dictionary:
        vectors = [
            word_vectors([entry[k] for entry in dictionary], side, reader.words(side)) for k, side in enumerate(sides)
        ]
        units["words"] = _paired(dictionary, vectors)
    for unit, states in units.items():
        for state, (one, other) in enumerate(states):
            shared: dict[str, Any] = {"unit": unit, "state": state, "candidates": len(one)}
            rows.append(shared | {"measure": "mrr", "value": mean_reciprocal_rank(one, other)})
            centred = mean_reciprocal_rank(one - one.mean(0), other - other.mean(0))
            rows.append(shared | {"measure": "mrr_centred", "value": centred})
    return rows


def _paired(
    dictionary: Sequence[tuple[str, str]], vectors: Sequence[Mapping[str, list[Tensor]]]
) -> list[tuple[Tensor, Tensor]]:
    """For each state both sides of the entries that occur; a word counts once, with its first translation."""
    known: dict[str, str] = {}
    for one, other in ((a.lower(), b.lower()) for a, b in dictionary):
        if one in vectors[0] and other in vectors[1] and one not in known and other not in known.values():
            known[one] = other
    if len(known) < 4:
        raise UserError(f"Of the dictionary only {len(known)} words occur on both sides; give more texts or words.")
    left = [torch.stack(state) for state in zip(*(vectors[0][a] for a in known), strict=True)]
    right = [torch.stack(state) for state in zip(*(vectors[1][b] for b in known.values()), strict=True)]
    return list(zip(left, right, strict=True))
