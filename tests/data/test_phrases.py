"""Given phrases: noun phrases and names by rule, spans from columns, and where each begins in the batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError
from ssl_suite.data.text.sequences.phrases import Phrases, names, noun_phrases
from ssl_suite.data.text.text import Text

ROW = {
    "tokens": ["The", "old", "mayor", "visited", "New", "Orleans", "."],
    "tags": ["DET", "ADJ", "NOUN", "VERB", "ADJ", "NOUN", "."],
}


def write(path: Path, **changes: Any) -> str:
    rows = [{**ROW, **changes}, {"tokens": ["So"], "tags": ["ADV"], **({k: [] for k in changes})}]
    path.write_text("\n".join(json.dumps(row) for row in rows * 10))
    return str(path)


def test_noun_phrases_and_names_follow_their_rules() -> None:
    assert noun_phrases(ROW["tags"]) == [(0, 3), (4, 6)]
    assert noun_phrases(["DET", "VERB", "NOUN", "ADJ", "DET", "NUM", "NOUN", "NOUN"]) == [(4, 8)]
    assert names(ROW["tokens"], ROW["tags"]) == [(4, 6)]
    assert names(["Dogs", "bark", "at", "Ann"], ["NOUN", "VERB", "ADP", "NOUN"]) == [(3, 4)]
    assert names(["Ann", "Lee", "ran"], ["NOUN", "NOUN", "VERB"]) == [(0, 2)]


@pytest.mark.parametrize("given", [False, True])
def test_units_of_tokens_follow_the_spans_of_words(given: bool, tmp_path: Path) -> None:
    spans = {"phrases": [[0, 3]], "entities": [[2, 4], [5, 6]]} if given else {}
    data = Phrases(write(tmp_path / "a.jsonl", **spans), tokenizer="char", max_length=64, batch_size=20)
    data.serve(Request(phrases=True))
    batch = data.collate([data.read("train", i, 0) for i in range(2)])
    assert batch.phrases is not None
    assert batch.phrases.shape == (2, 2, batch.ids.shape[1])
    assert not batch.phrases[:, :, :].masked_fill(batch.mask[:, None], False).any()
    row = next(i for i in range(2) if batch.mask[i].sum() > 10)
    assert data.tokenizer is not None
    found = []
    for level in batch.phrases[row].tolist():
        units: list[str] = []
        for begins, token in zip(level, batch.ids[row].tolist(), strict=True):
            text = data.tokenizer.id_to_token(token)
            if len(text) > 1:  # special
                continue
            units = [*units, text] if begins else [*units[:-1], units[-1] + text]
        found.append(units)
    phrases = ["Theoldmayor", "visited", "NewOrleans", "."]
    entities = ["The", "old", "mayor", "visited", "NewOrleans", "."]
    if given:
        phrases = ["Theoldmayor", "visited", "New", "Orleans", "."]
        entities = ["The", "old", "mayorvisited", "New", "Orleans", "."]
    assert found == [phrases, entities]


def test_data_without_units_are_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl")
    text = Text(source, column="tokens", tokenizer="char", pack=False)
    with pytest.raises(UserError, match="data: Phrases"):
        text.serve(Request(phrases=True))
    bare = tmp_path / "b.jsonl"
    bare.write_text("\n".join(json.dumps({"tokens": ["a", "b"]}) for _ in range(20)))
    with pytest.raises(UserError, match="has no phrases and entities"):
        Phrases(str(bare), tokenizer="char").serve(Request(phrases=True))
    with pytest.raises(UserError, match=r"row 1: \[3, 9\] is no span of its 7 words"):
        Phrases(write(tmp_path / "c.jsonl", phrases=[[3, 9]], entities=[]), tokenizer="char").serve(
            Request(phrases=True)
        )
