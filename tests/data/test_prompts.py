"""Prompts: templates, seams between context and answer, shots, windows that overflow, and what is refused."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError
from ssl_suite.data.text.prompts.documents import Documents, rolling_windows
from ssl_suite.data.text.prompts.prompts import Prompts, encode_pairs
from ssl_suite.data.text.prompts.template import Template, split_spaces
from ssl_suite.encoders.tokenizer import train_tokenizer

TEXTS = [
    f"the {word} film was {how} in part {i}" for i in range(10) for word in ("old", "new") for how in ("fun", "dull")
]
TEMPLATE = "{text} It was {label}."


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([*TEXTS, "It was great. It was terrible.\n\n", "a choice of answers"] * 3, "bpe", 400)


def write(folder: Path, rows: dict[str, list[dict[str, Any]]]) -> str:
    for split, items in rows.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in items))
    return str(folder)


@pytest.fixture
def films(tmp_path: Path) -> str:
    rows = [{"text": text, "label": "pos" if "fun" in text else "neg"} for text in TEXTS]
    return write(tmp_path, {"train": sorted(rows[:30], key=str), "validation": rows[30:34], "test": rows[34:]})


def served(source: str, tokenizer: Tokenizer, template: str = TEMPLATE, **options: Any) -> Prompts:
    data = Prompts(source, template, **options)
    data.serve(Request(tokenizer=tokenizer))
    return data


def texts_of(data: Prompts, tokenizer: Tokenizer, index: int = 0) -> list[tuple[str, str]]:
    """(context, what is scored) of each answer, as text again."""
    item = data.read("test", index, 0)
    return [
        (tokenizer.decode(ids[1:first]), tokenizer.decode(ids[first:]))
        for ids, first in zip(item.ids, item.first, strict=True)
    ]


def test_a_template_is_cut_where_the_answer_begins() -> None:
    assert Template("{a} and {{b}} is {y}, {a}!", "y").fill({"a": 3}, "so") == ("3 and {b} is ", "so, 3!")
    assert Template("{y}: {a}", "y").fill({"a": "x"}, "so") == ("", "so: x")
    assert split_spaces("It was  \n", "fine") == ("It was", "  \nfine")


@pytest.mark.parametrize(
    ("template", "said"), [("{text} It was", "label"), ("{text {label}", "broken"), ("{label}{label}", "once")]
)
def test_a_bad_template_is_refused(template: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Prompts("samples:sentences", template)


def test_each_label_is_an_answer_in_its_words(films: str, tokenizer: Tokenizer) -> None:
    data = served(films, tokenizer, words={"pos": "great", "neg": "terrible"})
    text = data.rows["test"].column("text")[0]
    assert texts_of(data, tokenizer) == [(f"{text} It was", " terrible."), (f"{text} It was", " great.")]
    item = data.read("test", 0, 0)
    assert item.size == [len("terrible."), len("great.")]
    assert [data.labels[data.read("test", i, 0).target or 0] for i in range(data.size("test"))] == [
        "pos" if "fun" in t else "neg" for t in data.rows["test"].column("text")
    ]


@pytest.mark.parametrize(
    ("words", "said"), [({"pos": "great"}, "'neg' .* has no word"), ({"pos": "a", "neg": "b", "nog": "c"}, "mean neg")]
)
def test_words_must_say_every_label(films: str, tokenizer: Tokenizer, words: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        served(films, tokenizer, words=words)


@pytest.mark.parametrize("words", [None, {0: "bad", 1: "good"}, {"0": "bad", "1": "good"}])
@pytest.mark.parametrize("labels", [(0, 1), ("0", "1.0")])
def test_labels_may_be_numbers(
    tmp_path: Path, tokenizer: Tokenizer, labels: tuple[object, object], words: dict[Any, str] | None
) -> None:
    rows = [{"text": f"film {i}", "label": labels[i % 2]} for i in range(4)]
    data = served(write(tmp_path, {"train": rows, "test": rows}), tokenizer, words=words, shots=2)
    assert [data.labels[data.read("test", i, 0).target or 0] for i in range(4)] == ["0", "1", "0", "1"]
    assert data.prompt("test", 0, data._answers["test"][0][1])[1] == ("1." if words is None else "good.")


def test_an_answer_that_the_solved_rows_lack_can_be_given(tmp_path: Path, tokenizer: Tokenizer) -> None:
    train = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
    source = write(tmp_path, {"train": train, "test": [{"text": "c", "label": "z"}]})
    data = served(source, tokenizer, words={"x": "1", "y": "2", "z": "3"})
    assert [a for _, a in texts_of(data, tokenizer)] == [" 1.", " 2.", " 3."]
    assert data.read("test", 0, 0).target == 2


def test_documents_without_splits_are_all_scored(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "mine.txt").write_text("\n\n".join(f"document number {i} here" for i in range(30)))
    data = Documents(str(tmp_path / "mine.txt"), max_length=10)
    data.serve(Request(tokenizer=tokenizer))
    assert list(data.splits()) == ["test"]
    assert sum(data.read("test", i, 0).size[0] > 0 for i in range(data.size("test"))) == 30


@pytest.mark.parametrize("answer", [1, "1", "B", "second"])
def test_choices_come_with_their_row(tmp_path: Path, tokenizer: Tokenizer, answer: object) -> None:
    row = {"question": "a?", "options": ["first", "second", "third"], "answer": answer}
    other = {"question": "b?", "options": ["x", "second"], "answer": "x" if isinstance(answer, str) else 0}
    source = write(tmp_path, {"train": [row], "test": [row, other]})
    data = served(source, tokenizer, "Q: {question} A: {answer}", target="answer", choices="options")
    assert data.read("test", 0, 0).target == 1
    assert [a for _, a in texts_of(data, tokenizer)] == [" first", " second", " third"]
    assert [a for _, a in texts_of(data, tokenizer, 1)] == [" x", " second"]
    batch = data.collate([data.read("test", 0, 0), data.read("test", 1, 0)])
    assert (batch.owner.tolist(), batch.choice.tolist()) == ([0, 0, 0, 1, 1], [0, 1, 2, 0, 1])
    assert len(batch) == 2


def test_choices_may_be_columns_of_their_own(tmp_path: Path, tokenizer: Tokenizer) -> None:
    rows = [{"goal": "g", "sol1": "do this", "sol2": "do that", "label": i % 2} for i in range(3)]
    data = served(write(tmp_path, {"test": rows}), tokenizer, "{goal}: {label}", choices=["sol1", "sol2"])
    assert texts_of(data, tokenizer)[1] == ("g:", " do that")
    assert data.read("test", 1, 0).target == 1


def test_a_wrong_answer_names_its_row(tmp_path: Path, tokenizer: Tokenizer) -> None:
    rows = [{"q": "a", "options": ["x", "y"], "answer": n} for n in (0, 2)]
    with pytest.raises(UserError, match=r"test.jsonl, row 2: '2' is none of the 2 answers"):
        served(write(tmp_path, {"test": rows}), tokenizer, "{q} {answer}", target="answer", choices="options")


def test_seam_is_where_the_context_ends_though_both_are_read_as_one(tokenizer: Tokenizer) -> None:
    pairs = [("the old film was ", "fun in part"), ("the old film was", " fun"), ("", "fun"), ("  ", "fun")]
    for (context, continuation), (ids, first) in zip(pairs, encode_pairs(tokenizer, pairs), strict=True):
        whole = tokenizer.encode(context + continuation, add_special_tokens=False).ids
        kept = tokenizer.encode(context.rstrip(), add_special_tokens=False).ids
        assert ids == [tokenizer.token_to_id("[CLS]"), *whole]
        assert first == 1 + len(kept)  # where no token reaches over the seam, as lm-evaluation-harness has it
    (ids, first) = encode_pairs(tokenizer, [("the ol", "d film")])[0]
    assert first == 2
    assert tokenizer.decode(ids[first:]) == " old film"


# Shots ----------------------------------------------------------------------------------------------------------------


def test_shots_are_balanced_seeded_and_the_same_before_every_row(films: str, tokenizer: Tokenizer) -> None:
    data = served(films, tokenizer, shots=4)
    rows = data.shot_rows("test", 0)
    assert len(set(rows)) == 4
    assert Counter(data._right["train"][r] for r in rows) == {0: 2, 1: 2}
    train = data.rows["train"]
    solved = "".join(f"{train[r]['text']} It was {train[r]['label']}.\n\n" for r in rows)
    for i in range(3):
        context = texts_of(data, tokenizer, i)[0][0]
        assert context == f"{solved}{data.rows['test'].column('text')[i]} It was"
    drawn = []
    for seed in ("0", "1", "2", "1"):
        os.environ["PL_GLOBAL_SEED"] = seed
        drawn.append(served(films, tokenizer, shots=4).shot_rows("test", 0))
    assert drawn[1] == drawn[3]
    assert drawn[0] != drawn[1] != drawn[2]


def test_shots_may_differ_from_row_to_row_and_never_hold_the_row_itself(films: str, tokenizer: Tokenizer) -> None:
    data = served(films, tokenizer, shots=4, draw="row")
    assert len({tuple(data.shot_rows("test", i)) for i in range(data.size("test"))}) > 3
    everything = served(films, tokenizer, shots=30)
    assert sorted(everything.shot_rows("test", 0)) == list(range(30))
    assert sorted(everything.shot_rows("train", 5)) == [i for i in range(30) if i != 5]
    assert len(everything._encode("train")) == 30


def test_too_many_shots_are_refused(films: str, tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match="31 shots asked, the training split has 30"):
        served(films, tokenizer, shots=31)


def test_overflow_leaves_out_the_first_shots_then_cuts_the_text_and_says_so(films: str, tokenizer: Tokenizer) -> None:
    full = served(films, tokenizer, shots=4)
    item = full.read("test", 0, 0)
    limit = max(map(len, item.ids)) - 3
    data = served(films, tokenizer, shots=4, max_length=limit)
    with pytest.warns(UserWarning, match=r"of 24 shots were left out and 0 of 6 texts"):
        kept = texts_of(data, tokenizer)[0][0]
    whole = texts_of(full, tokenizer)[0][0]
    assert whole.endswith(kept)
    assert kept.count("\n\n") == 3
    assert all(len(ids) <= limit for i in range(6) for ids in data.read("test", i, 0).ids)
    tiny = served(films, tokenizer, shots=2, max_length=6)
    with pytest.warns(UserWarning, match=r"12 of 12 shots were left out and 6 of 6 texts"):
        short = tiny.read("test", 0, 0)
    for ids, first, (_, answer) in zip(short.ids, short.first, texts_of(full, tokenizer), strict=True):
        assert len(ids) <= 6
        assert ids[0] == tokenizer.token_to_id("[CLS]")
        assert tokenizer.decode(ids[first:]) == answer
    with pytest.raises(UserError, match="does not fit max_length 2"):
        served(films, tokenizer, max_length=2).read("test", 0, 0)


# Documents ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "stride"), [(8, 4), (8, 7), (8, 1), (5, 2)])
def test_rolling_windows_score_each_token_once_with_context(length: int, stride: int) -> None:
    for n in range(1, 40):
        windows = rolling_windows(n, length, stride)
        scored = [t for _, first, end in windows for t in range(first, end)]
        assert scored == list(range(1, n))
        assert all(end - begin <= length and first > begin for begin, first, end in windows)
        assert all(first - begin >= length - stride for begin, first, _ in windows[1:])


def test_documents_count_every_token_and_byte_once(tmp_path: Path, tokenizer: Tokenizer) -> None:
    texts = ["the old film " * 9, "é", "new " * 30, ""]
    data = Documents(write(tmp_path, {"test": [{"text": t} for t in texts]}), max_length=10, stride=3)
    data.serve(Request(tokenizer=tokenizer))
    batch = data.collate([data.read("test", i, 0) for i in range(data.size("test"))])
    assert int(batch.scored.sum()) == sum(len(tokenizer.encode(t, add_special_tokens=False).ids) for t in texts)
    assert int(batch.size.sum()) == sum(len(t.encode()) for t in texts)
    wanted = Counter(i for t in texts for i in tokenizer.encode(t, add_special_tokens=False).ids)
    assert Counter(batch.ids[batch.scored].tolist()) == wanted
    assert torch.equal(batch.scored & ~batch.mask, torch.zeros_like(batch.mask))
