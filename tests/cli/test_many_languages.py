"""Many languages from the command line: alignment against the amount of text, and a task learned in one of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ssl_suite.cli import main

SIZE = ["model.encoder.vocab_size=300", "model.encoder.dim=16", "model.encoder.layers=1", "model.encoder.heads=2"]
PEOPLE = {"en": ["Ada", "Bob", "Cleo", "Dora", "Emil", "Fay"], "zh": ["安", "柏", "克", "朵", "恩", "菲"]}
HOMES = {"en": ["Rome", "Oslo", "Lima", "Cairo"], "zh": ["罗", "奥", "利", "开"]}
SAID = {"en": ("{} lives in {} .", "where is {} ?"), "zh": ("{}住在{}。", "{}在哪里？")}


def verses(folder: Path) -> Path:
    """A corpus as scripts/build_verses.py makes it, of few words."""
    folder.mkdir(parents=True)
    rows = [
        {"id": f"{n}-{language}", "language": language, "text": SAID[language][0].format(who, where)}
        for language in SAID
        for n, (who, where) in enumerate((w, h) for w in PEOPLE[language] for h in HOMES[language])
    ]
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    (folder / "few.jsonl").write_text("\n".join(json.dumps(row) for row in rows[::3]), "utf-8")
    half = len(rows) // 2
    pairs = [f"{a['text']}\t{b['text']}\n" for a, b in zip(rows[:half], rows[half:], strict=True)]
    (folder.parent / "pairs.tsv").write_text("".join(pairs), "utf-8")
    return folder


def test_alignment_against_the_amount_of_text_makes_the_runs_and_keeps_them(
    tmp_path: Path, fails: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = verses(tmp_path / "verses"), tmp_path / "out"
    options = [*SIZE, "data.vocab_size=300", "data.batch_size=8", "trainer.max_steps=2", "trainer.val_check_interval=2"]
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"recipe: [text/multilingual, text/multilingual_small]\npairs: {tmp_path}/pairs.tsv\nseeds: [4]\n"
        f"set: {{data.source: {source}, {', '.join(option.replace('=', ': ') for option in options)}}}\n"
        f"amounts: {{8: {{data.train: {source}/few.jsonl}}, 24: {{}}}}\n",
    )
    analyze = ["analyze", "alignment", "-c", str(recipe), "--out", str(out)]
    assert main(analyze) == 0
    rows = json.loads((out / "rows.json").read_text())["rows"]
    assert {(r["amount"], r["state"], r["measure"]) for r in rows} == {
        (amount, state, measure) for amount in (0, 8, 24) for state in (0, 1) for measure in ("mrr", "mrr_centred")
    }
    assert len(rows) == 3 * 2 * 2
    said = capsys.readouterr().out
    assert said.count("ssl-suite fit") == 2
    assert "by the amount of pretraining data" in said
    assert main(analyze) == 0
    assert "ssl-suite fit" not in capsys.readouterr().out
    few, many = (str(out / f"amount-{n}/seed-4") for n in (8, 24))
    assert (
        main(["analyze", "alignment", few, many, "-c", str(recipe), "--out", str(out / "b"), "--amounts", "1", "2"])
        == 0
    )
    assert {r["amount"] for r in json.loads((out / "b/rows.json").read_text())["rows"]} == {1, 2}
    pairs = ["--pairs", str(tmp_path / "pairs.tsv")]
    assert "one for each of the 2 encoders, not 1" in fails("analyze", "alignment", few, many, *pairs, "--amounts", "1")
    assert "Name encoders, or a recipe and its amounts" in fails("analyze", "alignment", *pairs)


def squad(path: Path, language: str, n: int) -> str:
    """Who lives where, in SQuAD's layout."""
    statement, question = SAID[language]
    paragraphs = []
    for i in range(n):
        who = [PEOPLE[language][(i + k) % 6] for k in (0, 1)]
        where = [HOMES[language][(i + k * (1 + i // 12 % 3)) % 4] for k in (0, 1)]
        context = " ".join(statement.format(*pair) for pair in zip(who, where, strict=True))
        answers = [{"text": where[i % 2], "answer_start": context.index(where[i % 2])}]
        qas = [{"id": f"q{i}", "question": question.format(who[i % 2]), "answers": answers}]
        paragraphs.append({"context": context, "qas": qas})
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "homes", "paragraphs": paragraphs}]}), "utf-8")
    return str(path)


def test_a_task_learned_in_one_language_is_tested_in_all(
    tmp_path: Path, fails: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    source = verses(tmp_path / "verses")
    pretraining = [f"--{option}" for option in (*SIZE, "data.vocab_size=300", "trainer.max_steps=2")]
    recipes = ["-c", "text/multilingual", "-c", "text/multilingual_small", "--trainer.enable_progress_bar", "false"]
    run = str(tmp_path / "run")
    assert main(["fit", *recipes, *pretraining, "--data.source", str(source), "--out", run]) == 0
    homes = {language: squad(tmp_path / f"homes.{language}.json", language, 24) for language in SAID}
    options = ["data.max_length=48", "data.max_question_length=16", "model.optim.lr=0.01", "trainer.max_epochs=12"]
    out = tmp_path / "out"
    analyze = [
        "analyze", "zero-shot", run, "-c", "analysis/zero_shot", "--train", f"en={homes['en']}", "--seeds", "3",
        "--test", f"en={homes['en']}", f"zh={homes['zh']}", "--out", str(out),
    ]  # fmt: skip
    assert main([*analyze, "--set", "model.task.scoring=mlqa", "data.batch_size=8", *options]) == 0
    rows = json.loads((out / "rows.json").read_text())["rows"]
    assert {(r["encoder"], r["train"], r["test"]) for r in rows} == {
        (name, language, test)
        for name, language in (("run", "en"), ("run, random weights", "en"), ("chance", "no language"))
        for test in ("en", "zh")
    }
    assert {r["measure"] for r in rows} == {"f1", "exact_match"}
    english = {r["encoder"]: r["value"] for r in rows if (r["test"], r["measure"]) == ("en", "f1")}
    assert english["run"] > english["chance"] + 0.1  # it learns to name a town
    said = capsys.readouterr().out
    assert said.count("ssl-suite fit") == 3
    assert said.count("ssl-suite test") == 6
    assert "Trained in en, f1: run: " in said
    assert main([*analyze, "--set", "model.task.scoring=mlqa", "data.batch_size=8", *options]) == 0
    assert "ssl-suite test" not in capsys.readouterr().out
    assert "wants NAME=VALUE" in fails("analyze", "zero-shot", run, "--train", "en", "--test", "en=x")
