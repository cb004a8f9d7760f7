"""Questions: every answer is found again in its window, in two languages; what is wrong is said before training."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError
from ssl_suite.data.common.source import SAMPLES
from ssl_suite.data.text.questions.cloze import cloze
from ssl_suite.data.text.questions.question_files import Gold, read_questions
from ssl_suite.data.text.questions.questions import Questions
from ssl_suite.data.text.questions.windows import QuestionWindows, SpecialTokens
from ssl_suite.encoders.tokenizer import Kind, train_tokenizer

PARIS = "Paris is the capital of France. The Seine, 777 km long, flows through it; in 1889 the Eiffel Tower was built."
KOEI = "《战国无双3》是由光荣和ω-force开发的战国无双系列的正统第三续作。本作以三大故事为主轴。"
XQUAD = Path(os.environ.get("SSL_SUITE_DATA", "nowhere")) / "squad"


def qa(name: str, question: str, context: str, *answers: str, **more: Any) -> dict[str, Any]:
    found = [{"text": a, "answer_start": context.index(a)} for a in answers]
    return {"id": name, "question": question, "answers": found, **more}


ENGLISH = [
    qa("e1", "What is the capital of France?", PARIS, "Paris"),
    qa("e2", "How long is the Seine?", PARIS, "777 km", "777"),
    qa("e3", "What was built in 1889?", PARIS, "the Eiffel Tower", "Eiffel Tower"),
]
CHINESE = [
    qa("c1", "《战国无双3》是由哪两个公司合作开发的?", KOEI, "光荣和ω-force"),
    qa("c2", "本作以什么为主轴?", KOEI, "三大故事"),
]
NONE = qa("e4", "Who built the Louvre?", PARIS, is_impossible=True)


def written(path: Path, *parts: tuple[str, list[dict[str, Any]]]) -> str:
    paragraphs = [{"context": context, "qas": qas} for context, qas in parts]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"version": "x", "data": [{"title": "t", "paragraphs": paragraphs}]}, indent=1))
    return str(path)


def served(source: str, labels: list[str] | None = None, **options: Any) -> Questions:
    data = Questions(
        source, **{"tokenizer": "char", "max_length": 64, "stride": 16, "max_question_length": 24, **options}
    )
    trained = labels and options.get("tokenizer", "char") == "char"  # a task that knows its labels knows its tokenizer
    tokenizer = train_tokenizer([PARIS, KOEI], "char", 330) if trained else None
    data.serve(Request(target="span", labels=labels, tokenizer=tokenizer))
    return data


@pytest.fixture
def folder(tmp_path: Path) -> str:
    for name in ("train-v1.1.json", "dev-v1.1.json"):
        written(tmp_path / name, (PARIS, ENGLISH), (KOEI, CHINESE))
    return str(tmp_path)


# CMRC 2018's older layout ---------------------------------------------------------------------------------------------


def old_cmrc(path: Path, **more: Any) -> str:
    asked = [
        {"query_id": "DEV_0_QUERY_0", "query_text": "本作以什么为主轴?", "answers": ["三大故事", "故事"]},
        {"query_id": "DEV_0_QUERY_1", "query_text": "由哪两个公司开发?", "answers": ["光荣和ω-force"]} | more,
    ]
    path.write_text(json.dumps([{"context_id": "DEV_0", "title": "t", "context_text": KOEI, "qas": asked}]), "utf-8")
    return str(path)


def test_cmrcs_older_layout_is_read(tmp_path: Path) -> None:
    rows = read_questions(Path(old_cmrc(tmp_path / "cmrc2018_dev.json")))
    assert rows["id"] == ["DEV_0_QUERY_0", "DEV_0_QUERY_1"]
    assert rows["question"][0] == "本作以什么为主轴?"
    assert rows["context"] == [KOEI, KOEI]
    starts = [KOEI.index("三大故事"), KOEI.index("故事")]
    assert rows["answers"][0] == {"text": ["三大故事", "故事"], "answer_start": starts}
    data = served(str(tmp_path / "cmrc2018_dev.json"), ["answer"])
    assert data.splits() == ["validation"]
    assert all(gold and KOEI.startswith(gold.text, gold.start) for gold in data.windows("validation").answers)


def test_what_cmrcs_older_layout_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dev\.json, \[0\]\.qas\[1\] has no 'query_text'"):
        read_questions(Path(old_cmrc(tmp_path / "dev.json", query_text=None)))
    with pytest.raises(UserError, match=r"\[0\]\.qas\[1\]: 'answers' must be a list of texts"):
        read_questions(Path(old_cmrc(tmp_path / "dev.json", answers=[{"text": "光荣"}])))


# Windows --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", ["char", "wordpiece", "bpe", "byte"])
def test_windows_give_back_every_answer_exactly(folder: str, tokenizer: str) -> None:
    data = served(folder, tokenizer=tokenizer, vocab_size=330)
    windows, found = data.windows("train"), set()
    for i, window in enumerate(windows.windows):
        start, end, first, last, number = windows.target(i).tolist()
        assert number == i
        assert windows.length(i) == len(windows.tokens(i)[0]) <= 64
        if start:
            assert first <= start <= end <= last
            assert windows.read(i, start, end) == windows.answers[window.question].text  # type: ignore[union-attr]
            found.add(window.question)
        else:
            assert end == 0
    assert found == set(range(5))


def test_windows_are_those_of_the_tokenizer_itself() -> None:
    """Its own truncation is told the overlap, ours the step, as BERT's script."""
    tokenizer = train_tokenizer([PARIS], "wordpiece", 100)
    for step in (3, 7, 40):
        windows = QuestionWindows(["who is it?"], [PARIS], [None], True, tokenizer, 30, step, 20)
        room = 30 - 3 - len(tokenizer.encode("who is it?", add_special_tokens=False))
        tokenizer.enable_truncation(30, stride=room - min(step, room), strategy="only_second")
        whole = tokenizer.encode("who is it?", PARIS)
        tokenizer.no_truncation()
        pieces = [whole, *whole.overflowing]
        assert [w.tolist() for w in (windows.tokens(i)[0] for i in range(len(windows)))] == [p.ids for p in pieces]
        assert windows.tokens(0)[1].tolist() == whole.type_ids


def test_a_window_without_the_whole_answer_points_at_the_first_position() -> None:
    tokenizer = train_tokenizer([PARIS], "char", 100)
    gold = Gold("777 km", PARIS.index("777 km"))
    windows = QuestionWindows(["?"], [PARIS], [gold], True, tokenizer, 24, 4, 4)
    begins = [windows.windows[i].begin for i in range(len(windows)) if windows.place(i)]
    room = 24 - 4
    assert begins == [b for b in range(0, len(PARIS), 4) if b <= gold.start and gold.start + 6 <= b + room]
    assert windows.target(0)[:2].tolist() == [0, 0]


def test_long_questions_are_cut_and_reported(folder: str) -> None:
    with pytest.warns(UserWarning, match=r"questions are longer than 8 tokens: cut"):
        windows = served(folder, max_question_length=8).windows("train")
    assert {len(q) for q in windows.questions} == {8}
    with pytest.raises(UserError, match="no room for a context"):
        served(folder, max_length=20).windows("train")


def test_special_tokens_of_other_tokenizers() -> None:
    from tokenizers.processors import RobertaProcessing, TemplateProcessing

    tokenizer = train_tokenizer([PARIS], "bpe", 300)
    cls, sep = ("[CLS]", 2), ("[SEP]", 3)
    tokenizer.post_processor = RobertaProcessing(sep, cls)
    assert SpecialTokens.of(tokenizer) == SpecialTokens([2], [3, 3], [3], (0, 0))
    tokenizer.post_processor = TemplateProcessing(pair="$A $B", single="$A", special_tokens=[])
    assert SpecialTokens.of(tokenizer) == SpecialTokens([2], [3], [3], (0, 0))


def test_a_batch_carries_the_windows_of_its_questions(folder: str) -> None:
    data = served(folder, batch_size=3)
    batches = list(data.eval_dataloader("validation"))
    assert sorted(i for b in batches for i in b.index.tolist()) == list(range(data.size("validation")))
    names = data.ids("validation")
    for batch in batches:
        assert batch.target.shape == (len(batch), 5)
        for row, (_, _, first, last, window) in enumerate(batch.target.tolist()):
            assert window == batch.index[row]
            assert batch.segments[row, first : last + 1].unique().tolist() == [1]
            assert batch.segments[row, :first].unique().tolist() == [0]
            assert names[window] in {"e1", "e2", "e3", "c1", "c2"}
    asked = data.asked("validation")
    assert asked.answers is not None
    assert asked.answers[1] == ["777 km", "777"]


# Layouts --------------------------------------------------------------------------------------------------------------


def test_squad_2_and_tables_with_its_columns_are_read_alike(tmp_path: Path) -> None:
    source = written(tmp_path / "train-v2.0.json", (PARIS, [*ENGLISH, NONE]))
    data = served(source, ["answer", "no answer"])
    rows = [data.rows["train"][i] for i in range(4)]
    assert rows[3]["answers"]["text"] == []
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    (tmp_path / "train.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
    listed = [{**r, "answers": [{"text": t, "start": PARIS.index(t)} for t in r["answers"]["text"]]} for r in rows]
    (tmp_path / "listed.jsonl").write_text("\n".join(json.dumps(r) for r in listed))
    for name in ("train.parquet", "train.jsonl", "listed.jsonl"):
        other = served(str(tmp_path / name), ["answer", "no answer"])
        assert other._golds == data._golds
        assert other.ids("train") == data.ids("train")
    written(tmp_path / "both/DRCD_training.json", (PARIS, [*ENGLISH, NONE]))
    written(tmp_path / "both/DRCD_dev.json", (PARIS, [NONE]))
    both = served(str(tmp_path / "both"))
    assert both.labels == ["answer", "no answer"]
    assert both.predicted == ["validation"]


def test_one_file_is_the_split_it_is_named_after_and_a_trained_task_answers_all_of_it(tmp_path: Path) -> None:
    dev = served(written(tmp_path / "dev-v1.1.json", (PARIS, ENGLISH)), ["answer"])
    assert list(dev.splits()) == ["validation"]
    many = [({"context": f"{PARIS} {i}", "qas": [qa(f"{i}", "Capital?", PARIS, "Paris")]}) for i in range(30)]
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"data": [{"paragraphs": many}]}))
    assert len(served(str(path), ["answer"]).rows["train"]) == 30
    held = served(str(path)).rows
    assert len(held["train"]) + len(held["validation"]) == 30
    assert not set(held["train"].column("context")) & set(held["validation"].column("context"))


def test_questions_alone_are_answered_but_not_trained_on(tmp_path: Path) -> None:
    bare = [{"id": "q", "question": "Capital?"}]
    source = written(tmp_path / "test.json", (PARIS, bare))
    data = served(source, ["answer"])
    assert data.asked("test").answers is None
    assert data.windows("test").target(0)[:2].tolist() == [-100, -100]
    with pytest.raises(UserError, match=r"train.json, row 1 has no answers; training needs them"):
        served(written(tmp_path / "train.json", (PARIS, bare)))


# Bad input ------------------------------------------------------------------------------------------------------------


def test_an_answer_that_is_elsewhere_is_moved_to_the_nearest_place(tmp_path: Path) -> None:
    context = "a cat, a dog and a cat"
    qas = [{"id": "1", "question": "who?", "answers": [{"text": "cat ", "answer_start": 18}]}]
    with pytest.warns(UserWarning, match=r"1 of 1 answers were not where the file says .* 0 are not in"):
        data = served(written(tmp_path / "train.json", (context, qas)))
    assert data._golds["train"] == [[("cat", 19)]]


def test_an_answer_that_is_nowhere_is_an_error_or_counted(tmp_path: Path) -> None:
    bad = {"id": "bad7", "question": "who?", "answers": [{"text": "Lyon", "answer_start": 3}]}
    for name in ("train.json", "dev.json"):
        written(tmp_path / name, (PARIS, [*ENGLISH, bad]))
    with pytest.raises(UserError, match=r"train.json, row 4, id bad7: the answer 'Lyon' is not in its context"):
        served(str(tmp_path))
    with pytest.warns(UserWarning, match=r"dev.json: 0 of 4 .* 1 are not in their context"):
        data = served(str(tmp_path), on_error="skip")
    assert len(data.rows["train"]) == 3
    assert data.asked("validation").answers[3] == ["Lyon"]  # type: ignore[index]  # it counts, as a wrong one
    assert data.labels == ["answer"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"data": [\n{"paragraphs": 3}]}', r"data\[0\] has no 'paragraphs'"),
        ('{"data": [{"paragraphs": [{"context": "x", "qas": [{"id": 1}]}]}]}', r"qas\[0\] has no 'question'"),
        ('{"data": [', r"is not JSON"),
        ('[{"question": "x?", "context": "x", "answers": ["x"]}]', r"row 1: 'answers' must be"),
        ('[{"question": "x?", "context": " ", "answers": []}]', r"row 1: 'context' holds ' ', not a text"),
        ('[{"question": "x?", "contxt": "y", "answers": []}]', r"no column 'context'"),
    ],
)
def test_a_broken_file_is_named_in_one_sentence(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text(text)
    with pytest.raises(UserError, match=message):
        served(str(tmp_path / "train.json"))


def test_ids_must_differ_and_only_spans_are_served(folder: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"row 2: id 'e1' is also that of .*train.json, row 1"):
        served(written(tmp_path / "twice/train.json", (PARIS, [ENGLISH[0], ENGLISH[0]])))
    with pytest.raises(UserError, match="Questions gives no target of the kind 'class'; it gives span"):
        Questions(folder).serve(Request(target="class"))
    with pytest.raises(UserError, match="for the task Span; to pretrain"):
        Questions(folder).serve(Request(pretrains=True))


# Cloze, and real files ------------------------------------------------------------------------------------------------


def test_cloze_questions_are_answered_by_the_lines_before(tmp_path: Path) -> None:
    made = cloze(["Then came Ada in.\nShe saw Bob.\nThe man Bob met Ada there.\nNow Zoe left."], ["doc"], 2)
    assert made["question"] == ["The man XXXXX met Ada there."]
    assert made["answers"] == [{"text": ["Bob"], "answer_start": [made["context"][0].index("Bob")]}]
    for split in ("train", "validation"):  # the smaller splits of the pack
        file = f"{'test' if split == 'train' else split}.parquet"
        shutil.copy(SAMPLES / "corpus" / file, tmp_path / f"{split}.parquet")
    data = served(f"cloze:{tmp_path}", max_length=384, max_question_length=64, tokenizer="wordpiece", vocab_size=500)
    assert list(data.splits()) == ["train", "validation"]
    for split in data.splits():
        for i, given in enumerate(data._golds[split]):
            context = data.rows[split].column("context")[i]
            assert all(context[g.start :].startswith(g.text) for g in given or [])
    assert len(data.rows["validation"]) > 100


@pytest.mark.skipif(not XQUAD.is_dir(), reason="SSL_SUITE_DATA names no folder with squad/")
@pytest.mark.parametrize("language", ["en", "zh"])
def test_xquad_answers_are_found_in_its_windows(language: str, tmp_path: Path) -> None:
    data = served(
        str(XQUAD / f"xquad.{language}.json"), ["answer"], tokenizer=trained_on(language, tmp_path), max_length=384
    )
    windows = data.windows("train")
    right = {
        w.question
        for i, w in enumerate(windows.windows)
        if (place := windows.place(i)) and windows.read(i, *place) == windows.answers[w.question].text  # type: ignore[union-attr]
    }
    assert len(right) / len(windows.answers) > 0.99


def trained_on(language: str, folder: Path) -> str:
    text = json.loads((XQUAD / f"xquad.{language}.json").read_text())
    contexts = [p["context"] for a in text["data"] for p in a["paragraphs"]]
    train_tokenizer(contexts, "wordpiece", 8000).save(str(folder / "tokenizer.json"))
    return str(folder)


def test_few_training_questions(folder: str) -> None:
    data = Questions(folder, labels=2, tokenizer="char")
    data.serve(Request(target="span"))
    assert len(data.rows["train"]) == len(data._golds["train"]) == 2
    assert torch.equal(data.target("train", 0), data.windows("train").target(0))
    with pytest.raises(UserError, match="labels: 9 asked"):
        Questions(folder, labels=9).serve(Request(target="span"))


@pytest.mark.parametrize("content", ["", '{"version": "1.1", "data": []}'])
def test_a_file_without_questions_is_refused(content: str, tmp_path: Path) -> None:
    written(tmp_path / "dev-v1.1.json", (PARIS, ENGLISH))
    (tmp_path / "train-v1.1.json").write_text(content)
    with pytest.raises(UserError, match=r"train-v1\.1\.json.*(is empty|no questions)"):
        served(str(tmp_path))


MARKED = {
    "hi": ("वह दिल्ली में रहते हैं।", ("दिल्ली में", "रहते हैं", "दिल्ली")),
    "th": ("กรุงเทพมหานคร เป็นเมืองหลวงที่ใหญ่ที่สุด", ("กรุงเทพมหานคร", "เป็นเมืองหลวงที่", "เป็น")),
    "ar": ("وُلِدَ مُحَمَّدٌ في مَكَّةَ عامَ ٥٧٠", ("مُحَمَّدٌ", "مَكَّةَ", "في مَكَّةَ عامَ")),
    "bn": ("তিনি কলকাতায় থাকেন এবং বাংলায় লেখেন", ("কলকাতায়", "বাংলায় লেখেন")),
    "fa": ("او می\u200cخواهد به کتاب\u200cها برسد", ("می\u200cخواهد", "کتاب\u200cها")),
    "fr": ("Il vit a\u0300 Saint-E\u0301tienne, pre\u0300s d'ici.", ("Saint-E\u0301tienne", "a\u0300", "pre\u0300s")),
}


@pytest.mark.parametrize("cased", [True, False])
@pytest.mark.parametrize(("kind", "size"), [("wordpiece", 6), ("unigram", 300), ("bpe", 261), ("char", 300)])
@pytest.mark.parametrize("language", MARKED)
def test_perfect_spans_give_back_answers_with_their_marks(
    language: str, kind: Kind, size: int, cased: bool, tmp_path: Path
) -> None:
    """A tokenizer that drops accents leaves vowel signs at a word's end to no token; the answer needs them."""
    context, answers = MARKED[language]
    asked = [qa(str(i), context.split()[0], context, answer) for i, answer in enumerate(answers)]
    source = written(tmp_path / "train.json", (context, asked))
    learned = train_tokenizer([context], kind, size, cased=cased)  # so small that no piece is longer than an answer
    data = Questions(source, max_length=384, stride=64, max_question_length=24)
    data.serve(Request(target="span", tokenizer=learned))
    windows = data.windows("train")
    assert [windows.read(i, *windows.place(i)) for i in range(len(windows))] == list(answers)
