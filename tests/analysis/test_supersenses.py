"""Supersenses of words from WordNet's files: classes, base forms, and halves of the lemmas, on a dictionary by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
NOUNS = {"dog": ["05"], "bank": ["14", "17"], "city": ["15"], "goose": ["05"], "run": ["04", "11"]}
VERBS = {"run": ["38"], "love": ["37"], "be": ["42"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As wndb(5WN) says, with the licence before it: an offset of its own for each sense."""
    for kind, words in (("noun", NOUNS), ("verb", VERBS)):
        letter, index, data = kind[0], ["  1 licence"], ["  1 licence"]
        for lemma, senses in words.items():
            offsets = [f"{len(data) + i:08}" for i in range(len(senses))]
            data += [f"{o} {file} {letter} 01 {lemma} 0 000 | gloss" for o, file in zip(offsets, senses, strict=True)]
            n = len(senses)
            index.append(f"{lemma} {letter} {n} 2 @ ~ {n} 1 {' '.join(offsets)}  ")
        (tmp_path / f"index.{kind}").write_text("\n".join(index))
        (tmp_path / f"data.{kind}").write_text("\n".join(data))
    (tmp_path / "noun.exc").write_text("geese goose\n")
    (tmp_path / "verb.exc").write_text("ran run\nwas be\n")
    return tmp_path


def test_a_word_has_the_class_that_all_its_senses_share(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from build_supersenses import CLASSES, Lexicon, rows

    assert (CLASSES["03"], CLASSES["28"], CLASSES["29"], CLASSES["43"]) == (
        "noun.Tops", "noun.time", "verb.body", "verb.weather",
    )  # fmt: skip
    nouns, verbs = Lexicon(folder, "noun"), Lexicon(folder, "verb")
    found = {word: nouns.label(word, None) for word in ("Dogs", "cities", "geese", "bank", "runs", "gnu")}
    assert found == {
        "Dogs": "noun.animal", "cities": "noun.location", "geese": "noun.animal", "bank": "_", "runs": "_", "gnu": "_",
    }  # fmt: skip
    assert [verbs.label(word, None) for word in ("ran", "loving", "loves", "was")] == [
        "verb.motion", "verb.emotion", "verb.emotion", "verb.stative",
    ]  # fmt: skip

    words, tags = ["dogs", "ran", "cities", "dog"], [0, 1, 0, 8]  # the last as a conjunction
    pq.write_table(pa.table({"id": ["a"], "tokens": [words], "tags": [tags]}), folder / "b.parquet")
    halves = [rows(folder / "b.parquet", {"NOUN": nouns, "VERB": verbs}, half) for half in (0, 1)]
    labels = [row["supersenses"] for part in halves for row in part]
    assert [{row[i] for row in labels} - {"_"} for i in range(3)] == [
        {"noun.animal"},
        {"verb.motion"},
        {"noun.location"},
    ]
    assert all(sum(row[i] != "_" for row in labels) == 1 for i in range(3)), "each lemma is of one half alone"
    assert all(row[3] == "_" for row in labels)
    sys.modules.pop("build_supersenses")
