"""The fourth way of using BERT, from the command line: train, test and predict answers in the official format."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from ssl_suite.cli import main
from ssl_suite.encoders.tokenizer import SPECIAL

PEOPLE = ["Ada", "Bob", "Cleo", "Dora", "Emil", "Fay"]
PLACES = ["Rome", "Oslo", "Lima", "Cairo"]
SIZE = "{vocab_size: 200, dim: 48, layers: 2, heads: 4, max_length: 40, dropout: 0.0}"
ENCODER = f"{{class_path: TextEncoder, init_args: {SIZE}}}"


def squad(path: Path, n: int, seed: int) -> str:
    """Who lives where, in SQuAD 2.0's layout: every fifth question is about someone the context does not know."""
    paragraphs = []
    for i in range(n):
        at = (i * 7 + seed) % 24
        first, second, stranger = (PEOPLE[(at + k) % 6] for k in (0, 1, 3))
        here, there = PLACES[at % 4], PLACES[(at + 1 + at // 12) % 4]
        context = f"{first} lives in {here} . {second} lives in {there} . nobody else came to live with them ."
        asked, answer = [(first, here), (second, there)][i % 2]
        answers = [{"text": answer, "answer_start": context.index(answer)}]
        if none := i % 5 == 4:
            asked, answers = stranger, []
        qas = [{"id": f"q{i}", "question": f"where is {asked} ?", "answers": answers, "is_impossible": none}]
        paragraphs.append({"context": context, "qas": qas})
    path.write_text(json.dumps({"version": "v2.0", "data": [{"title": "homes", "paragraphs": paragraphs}]}))
    return str(path)


def words() -> Tokenizer:
    """A word a token, the same ids in every run; training breaks ties by chance."""
    sentence = "lives in . nobody else came to live with them where is ?"
    known = [*SPECIAL, *PEOPLE, *PLACES, *sentence.split()]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("squad")
    for split in ("train", "dev", "test"):
        squad(place / f"{split}-v2.0.json", 40, 0)
    words().save(str(place / "words.tokenizer"))
    return place


def fit(folder: Path, out: Path, *options: str) -> list[str]:
    return [
        "fit", "-c", "configs/text/squad.yaml", f"--model.encoder={ENCODER}", f"--data.source={folder}",
        f"--data.tokenizer={folder}/words.tokenizer",
        "--data.max_length=32", "--data.stride=6", "--data.max_question_length=8",
        "--data.batch_size=10", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false", "--trainer.num_sanity_val_steps=0", f"--out={out}", *options,
    ]  # fmt: skip


def last(out: Path, name: str) -> float:
    rows = list(csv.DictReader((out / "metrics.csv").open()))
    return float([row[name] for row in rows if row.get(name)][-1])


def test_a_small_encoder_learns_its_training_questions_and_writes_their_answers(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    options = ["--model.optim.lr=3e-3", "--trainer.max_epochs=60", "--trainer.check_val_every_n_epoch=20"]
    assert main([*fit(folder, out, *options), "--test_after=true"]) == 0
    assert last(out, "test/exact_match") > 0.9  # the same questions: it can learn them
    assert last(out, "test/no_answer_exact_match") > 0.5
    assert last(out, "val/best_f1") >= last(out, "val/f1")
    assert (out / "results.sqlite").exists()

    predict = ["predict", "-c", str(out / "config.yaml"), f"--data.source={folder / 'dev-v2.0.json'}"]
    said = tmp_path / "said"
    assert main([*predict, f"--ckpt_path={out / 'checkpoints/best.ckpt'}", f"--out={said}"]) == 0
    assert "40 predictions" in capsys.readouterr().out
    answers, odds = (json.loads((said / name).read_text()) for name in ("predictions.json", "null_odds.json"))
    gold = json.loads((folder / "dev-v2.0.json").read_text())["data"][0]["paragraphs"]
    right = {p["qas"][0]["id"]: [a["text"] for a in p["qas"][0]["answers"]] or [""] for p in gold}
    assert answers.keys() == odds.keys() == right.keys()
    assert sum(answers[k] in v for k, v in right.items()) / 40 == pytest.approx(last(out, "test/exact_match"))
    assert not (said / "predictions.jsonl").exists()


def test_a_probe_reads_cached_features_of_windows(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "probe"
    options = ["--model.mode=probe", "--model.readout=weighted_sum", "--trainer.max_epochs=2"]
    assert main([*fit(folder, out, *options), "--test_after=true"]) == 0
    assert 0 <= last(out, "test/f1") <= 1
