"""CoNLL-U and BIO files, and tags that stay with their words whatever the tokenizer and the window do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import pytorch_lightning as pl
from tiny import QUIET, tiny_text_encoder

from ssl_suite.core.batch import IGNORE
from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError
from ssl_suite.core.finetune import Finetune
from ssl_suite.core.optim import Optim
from ssl_suite.data.text.conll import read_conll, read_conllu
from ssl_suite.data.text.text import Text
from ssl_suite.encoders.tokenizer import train_tokenizer
from ssl_suite.tasks.tag import Tag

CONLLU = """\
# sent_id = a-1
# text = She didn't sleep.
1\tShe\tshe\tPRON\tPRP\tCase=Nom\t4\tnsubj\t_\t_
2-3\tdidn't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdid\tdo\tAUX\tVBD\tMood=Ind\t4\taux\t_\t_
3\tn't\tnot\tPART\tRB\t_\t4\tadvmod\t_\t_
4\tsleep\tsleep\tVERB\tVB\tVerbForm=Inf\t0\troot\t_\tSpaceAfter=No
4.1\tsleep\tsleep\tVERB\tVB\t_\t_\t_\t0:root\t_
5\t.\t.\tPUNCT\t.\t_\t4\tpunct\t_\t_

# sent_id = a-2
1\tGo\tgo\tVERB\tVB\t_\t0\troot\t_\t_
"""
CONLL = """\
-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O
German JJ B-NP B-MISC

Peter NNP B-NP B-PER
Blackburn NNP I-NP I-PER
"""


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_conllu_gives_its_syntactic_words(tmp_path: Path) -> None:
    columns = read_conllu(written(tmp_path / "a.conllu", CONLLU))
    assert columns["tokens"] == [["She", "did", "n't", "sleep", "."], ["Go"]]
    assert columns["upos"] == [["PRON", "AUX", "PART", "VERB", "PUNCT"], ["VERB"]]
    assert columns["xpos"][0] == ["PRP", "VBD", "RB", "VB", "."]
    assert columns["feats"][0][0] == "Case=Nom"
    assert columns["depth"] == [["1", "1", "1", "0", "1"], ["0"]]
    assert columns["id"] == ["a-1", "a-2"]


def test_depth_counts_arcs_to_the_root_and_ends_where_heads_go_in_a_circle(tmp_path: Path) -> None:
    heads = ["2", "3", "0", "3", "4", "7", "6", "_"]  # 6 and 7 hang on each other
    lines = [f"{i}\tw\tw\tX\tX\t_\t{head}\tdep\t_\t_" for i, head in enumerate(heads, 1)]
    (depth,) = read_conllu(written(tmp_path / "a.conllu", "\n".join(lines)))["depth"]
    assert depth == ["2", "1", "0", "1", "2", "_", "_", "_"]


def test_bio_gives_words_and_every_column(tmp_path: Path) -> None:
    columns = read_conll(written(tmp_path / "a.conll", CONLL))
    assert columns["tokens"] == [["EU", "rejects", "German"], ["Peter", "Blackburn"]]
    assert columns["tags"] == [["B-ORG", "O", "B-MISC"], ["B-PER", "I-PER"]]
    assert columns["column2"][0] == ["NNP", "VBZ", "JJ"]
    tabs = read_conll(written(tmp_path / "b.bio", "New York\tB-LOC\r\nis\tO\r\n"))
    assert tabs == {"tokens": [["New York", "is"]], "tags": [["B-LOC", "O"]]}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.conll", CONLL.replace("German JJ B-NP", "German JJ"), "line 5 has 3 columns, not 4"),
        ("a.bio", "word\n", "line 1 has 1 columns, not 2"),
        ("a.bio", "\n\n", "holds no sentence"),
        ("a.conllu", CONLLU.replace("1\tGo", "1 Go"), "line 12 has 9 columns, not 10"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(name: str, text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        Text(str(written(tmp_path / name, text)), column="tokens").serve(Request())


def test_a_treebanks_folder_has_its_splits(tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        written(tmp_path / f"en_x-ud-{split}.conllu", CONLLU)
    written(tmp_path / "README.md", "a treebank")
    data = Text(str(tmp_path), column="tokens", target="upos", vocab_size=100)
    data.serve(Request(target="tags"))
    assert {split: data.size(split) for split in data.splits()} == {"train": 2, "validation": 2, "test": 2}
    assert data.labels == ["AUX", "PART", "PRON", "PUNCT", "VERB"]
    assert data.ids("test") == ["a-1", "a-2"]


WORDS = ["alpha", "\u200b", "beta", "gamma", "\x07", "delta"]  # two that the normalizer leaves nothing of
TAGS = ["B-A", "O", "B-B", "I-B", "O", "B-C"]


def rows(tmp_path: Path, words: list[str], tags: list[str], repeat: int = 12) -> str:
    lines = "\n".join(f"{w}\t{t}" for w, t in zip(words, tags, strict=True))
    return str(written(tmp_path / "train.bio", (lines + "\n\n") * repeat))


def tagged(source: str, max_length: int, tmp_path: Path) -> Text:
    vocabulary = str(tmp_path / "tokenizer.json")
    train_tokenizer(["alpha beta gamma delta"] * 9, "wordpiece", 60).save(vocabulary)
    data = Text(source, column="tokens", target="tags", tokenizer=vocabulary, max_length=max_length, batch_size=4)
    data.serve(Request(target="tags"))
    return data


def test_a_word_without_pieces_does_not_shift_the_tags(tmp_path: Path) -> None:
    data = tagged(rows(tmp_path, WORDS, TAGS), 64, tmp_path)
    assert data.tokenizer.encode(["\u200b"], is_pretokenized=True, add_special_tokens=False).ids == []
    batch = next(iter(data.eval_dataloader("train")))
    at = batch.target[0] != IGNORE
    assert [data.labels[t] for t in batch.target[0][at].tolist()] == TAGS
    pieces = [data.tokenizer.id_to_token(t) for t in batch.ids[0, : len(at)][at].tolist()]
    assert (pieces[1], pieces[4]) == ("[UNK]", "[UNK]")
    assert [p[0] for p in (pieces[0], pieces[2], pieces[3], pieces[5])] == ["a", "b", "g", "d"]


@pytest.mark.parametrize("mode", ["finetune", "probe"])
def test_words_behind_the_window_are_counted_as_wrong(mode: str, tmp_path: Path) -> None:
    words, tags = ["alpha"] * 5 + ["beta"] * 15, ["NOUN", "VERB"] * 10
    data = tagged(rows(tmp_path, words, tags, 20), 8, tmp_path)
    with pytest.warns(
        UserWarning, match=r"cut\. The \d+ words cut off are not learned from and count as wrongly tagged"
    ):
        batch = next(iter(data.eval_dataloader("validation")))
    kept = int((batch.target[0, :8] != IGNORE).sum())
    assert 0 < kept < 8
    assert (batch.target[0] != IGNORE).sum() == 20
    model = Finetune(tiny_text_encoder(), Tag(), mode=mode, optim=Optim(lr=0.05))
    trainer = pl.Trainer(
        max_epochs=30, default_root_dir=tmp_path, accelerator="cpu", enable_checkpointing=False, **QUIET
    )
    trainer.fit(model, datamodule=data)
    assert float(trainer.callback_metrics["val/accuracy"]) == pytest.approx(kept / 20)  # all that was seen is right


def test_an_answer_is_a_tag_a_word(tmp_path: Path) -> None:
    data = tagged(rows(tmp_path, WORDS, TAGS), 8, tmp_path)
    pieces = [f"tag {t}" for t in range(8)]
    answer = data.answer("train", 0, pieces)
    assert len(answer) == len(WORDS)
    first = [t for t in (data.read("train", 0, 0).first or []) if t is not None]
    assert [a for a in answer if a is not None] == [pieces[t] for t in first]
    assert first == sorted(first)
    assert first[0] == 1


REAL = Path(os.environ.get("SSL_SUITE_DATA", "")) / "ud"


@pytest.mark.skipif(not REAL.is_dir() or not REAL.parts, reason="SSL_SUITE_DATA names no folder with ud/")
def test_the_real_english_treebank() -> None:
    columns = read_conllu(REAL / "en_ewt-ud-dev.conllu")
    assert len(columns["tokens"]) == 2001
    assert sum(map(len, columns["tokens"])) > 25_000
    assert len({tag for tags in columns["upos"] for tag in tags}) == 17  # of the universal tag set
