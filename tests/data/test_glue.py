"""GLUE and CLUE in their official layouts: headers or none, quotes, defects, two dev splits, leaderboard files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytorch_lightning as pl
import torch
from tiny import QUIET, all_targets, tiny_text_encoder

from ssl_suite.cli import main
from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError
from ssl_suite.core.finetune import Finetune
from ssl_suite.data.text.sequences.glue import CLUE, CLUE_TASKS, GLUE, GLUE_TASKS
from ssl_suite.tasks.classify import Classify
from ssl_suite.tasks.regress import Regress

N = {"train": 24, "validation": 12, "validation_mismatched": 13, "test": 7, "test_mismatched": 5}
HEADERS = {  # as in the official files of train and dev; the label of test is left out
    "cola": "source label mark sentence",
    "sst2": "sentence label",
    "mrpc": "Quality,#1 ID,#2 ID,#1 String,#2 String",
    "qqp": "id qid1 qid2 question1 question2 is_duplicate",
    "stsb": "index genre filename year old_index source1 source2 sentence1 sentence2 score",
    "mnli": "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse "
    "sentence1 sentence2 label1 gold_label",
    "qnli": "index question sentence label",
    "rte": "index sentence1 sentence2 label",
    "wnli": "index sentence1 sentence2 label",
}
TEST = {"cola": "index sentence", "sst2": "index sentence", "mrpc": "index,#1 ID,#2 ID,#1 String,#2 String"}


def cell(task: str, column: str, i: int) -> str:
    entry = GLUE_TASKS[task]
    if column in entry.texts:
        return f'He said "no, {column} {i} is not' if i % 3 == 0 else f"a {column} of number {i}"  # an odd quote
    if column == entry.label:
        return entry.labels[i % len(entry.labels)] if entry.labels else f"{i % 6 * 0.9:.3f}"
    return str(i)


def official(folder: Path, task: str) -> Path:
    """Writes the task's folder as GLUE's download has it."""
    entry = GLUE_TASKS[task]
    place = folder / entry.folder
    place.mkdir()
    columns = HEADERS[task].split("," if "," in HEADERS[task] else " ")
    for split, names in entry.splits.items():
        wanted = columns
        if split.startswith("test"):
            given = TEST.get(task)
            wanted = given.split("," if "," in given else " ") if given else [c for c in columns if c != entry.label]
            wanted = [c for c in wanted if c != "label1"]
        lines = ["\t".join(cell(task, c, i) for c in wanted) for i in range(N[split])]
        if task != "cola" or split == "test":
            lines.insert(0, "\t".join(wanted))
        mark = "\ufeff" if task == "mrpc" else ""  # MRPC's files begin with one
        (place / f"{names[0]}.tsv").write_text(mark + "\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    return folder


def served(cls: type[GLUE], task: str, source: Path | str, **options: Any) -> GLUE:
    data = cls(task, str(source), **{"vocab_size": 200, "max_length": 32, **options})
    data.serve(Request(target=cls.table[task].target))
    return data


# Reading --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [task for task in GLUE_TASKS if task != "ax"])
def test_every_task_is_read_from_its_official_folder(task: str, tmp_path: Path) -> None:
    data, entry = served(GLUE, task, official(tmp_path, task)), GLUE_TASKS[task]
    assert {split: data.size(split) for split in data.splits()} == {split: N[split] for split in entry.splits}
    assert data.labels == list(entry.labels)
    for split in ("train", "validation"):
        row = data.rows[split][9]
        assert [row["text"], row.get("pair")] == [cell(task, c, 9) for c in (*entry.texts, None)[:2] if c] + (
            [None] if len(entry.texts) == 1 else []
        )
        wanted = entry.labels.index(cell(task, entry.label, 9)) if entry.labels else float(cell(task, entry.label, 9))
        assert data.target(split, 9) == pytest.approx(wanted)
    assert not data.has_targets("test")
    batch = next(iter(data.eval_dataloader("test")))
    assert batch.target is None
    assert (batch.segments is None) == (len(entry.texts) == 1)
    assert next(iter(data.eval_dataloader("validation"))).target.shape == (12,)


@pytest.mark.parametrize("task", ["cola", "mnli", "stsb"])
def test_parquet_as_the_hub_has_it_is_the_same_data(task: str, tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, Value

    entry = GLUE_TASKS[task]
    tsv = served(GLUE, task, official(tmp_path, task))
    folder = tmp_path / "hub" / task
    folder.mkdir(parents=True)
    texts = entry.hub or entry.texts
    for split, names in entry.splits.items():
        rows: dict[str, list[Any]] = {
            t: [cell(task, o, i) for i in range(N[split])] for t, o in zip(texts, entry.texts, strict=True)
        }
        test = split.startswith("test")
        if entry.labels:
            rows["label"] = [-1 if test else i % len(entry.labels) for i in range(N[split])]
        else:
            rows["label"] = [-1.0 if test else float(cell(task, "score", i)) for i in range(N[split])]
        rows["idx"] = list(range(N[split]))
        label = ClassLabel(names=[f"name {i}" for i in range(len(entry.labels))]) if entry.labels else Value("float32")
        features = Features({**{t: Value("string") for t in texts}, "label": label, "idx": Value("int32")})
        name = names[-1] if split.startswith("validation") else names[0]
        Dataset.from_dict(rows, features).to_parquet(str(folder / f"{name}-00000-of-00001.parquet"))
    hub = served(GLUE, task, tmp_path / "hub")
    assert hub.splits() == tsv.splits()
    for split in hub.splits():
        assert hub.rows[split].column("text") == tsv.rows[split].column("text")
        assert hub.has_targets(split) == tsv.has_targets(split)
        if hub.has_targets(split):
            torch.testing.assert_close(all_targets(hub, split), all_targets(tsv, split), atol=1e-6, rtol=0)
    assert hub.labels == tsv.labels


def test_the_official_files_own_defects_are_counted_and_left_out(tmp_path: Path) -> None:
    path = official(tmp_path, "qqp") / "QQP/train.tsv"
    lines = path.read_text().splitlines()
    lines[5] = "4\t4\t4\tonly one question"
    path.write_text("\n".join(lines))
    with pytest.warns(UserWarning, match=r"train.tsv: 1 of 24 rows lack a text or a label of QQP .*left out.* row 5"):
        data = served(GLUE, "qqp", tmp_path)
    assert data.size("train") == 23
    assert data.rows["train"].where(4).endswith("row 6")  # rows keep the file's numbers
    path = official(tmp_path, "mnli") / "MNLI/dev_matched.tsv"
    path.write_text(path.read_text().replace("contradiction", "-", 1))
    with pytest.warns(UserWarning, match="dev_matched.tsv: 1 of 12 rows"):
        assert served(GLUE, "mnli", tmp_path).size("validation") == 11


def test_no_row_of_the_test_split_is_left_out(tmp_path: Path) -> None:
    path = official(tmp_path, "qqp") / "QQP/test.tsv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines * 3, "99"]).replace("\n" + lines[0], ""))
    with pytest.warns(UserWarning, match=r"1 of 22 rows .* answered as they are"):
        data = served(GLUE, "qqp", tmp_path)
    assert data.size("test") == 22
    assert data.ids("test")[-1] == "99"


def test_another_tasks_files_are_refused(tmp_path: Path) -> None:
    official(tmp_path, "rte")
    (tmp_path / "RTE").rename(tmp_path / "WNLI")
    with pytest.raises(UserError, match=r"train.tsv, row 1 and others: 24 of 24 rows lack .* WNLI \(0, 1\); is this"):
        served(GLUE, "wnli", tmp_path)
    with pytest.raises(UserError, match="is no file of QQP: it has no columns 'question1' and 'question2'"):
        served(GLUE, "qqp", tmp_path / "WNLI")
    with pytest.raises(UserError, match=r"has no files of CoLA \(train, dev, test; \.tsv"):
        served(GLUE, "cola", tmp_path)
    with pytest.raises(UserError, match=r"GLUE has no task 'colla'\. Did you mean cola"):
        GLUE("colla", "x")


def test_a_task_of_the_wrong_kind_is_named(tmp_path: Path) -> None:
    data = GLUE("stsb", str(official(tmp_path, "stsb")))
    with pytest.raises(UserError, match="STS-B is a task for Regress"):
        data.serve(Request(target="class"))
    assert GLUE.proposed_task({"task": "stsb"}) == ("value", ["pearson", "spearman"])
    assert GLUE.proposed_task({"task": "mrpc"}) == ("class", ["f1", "accuracy"])


def test_labels_a_checkpoint_does_not_know_are_one_sentence(tmp_path: Path) -> None:
    data = GLUE("rte", str(official(tmp_path, "rte")), vocab_size=100)
    with pytest.raises(UserError, match=r"train.tsv, row 1: label 'entailment' never occurs in training"):
        data.serve(Request(target="class", labels=["0", "1"]))


def test_dev_as_test_selects_on_held_out_training_rows(tmp_path: Path) -> None:
    data = served(GLUE, "mnli", official(tmp_path, "mnli"), dev_is_test=True)
    assert data.size("test") == 12
    assert data.size("test_mismatched") == 13
    assert data.size("train") + data.size("validation") == 24
    assert data.has_targets("test")
    assert not set(data.rows["train"].column("text")) & set(data.rows["validation"].column("text"))
    assert data.submission("test", ["neutral"] * 12) is None


# CLUE -----------------------------------------------------------------------------------------------------------------

NOUN = {"span1_index": 0, "span1_text": "小明", "span2_index": 7, "span2_text": "他"}
CHINESE: dict[str, Callable[[int], dict[str, Any]]] = {
    "tnews": lambda i: {"label": CLUE_TASKS["tnews"].labels[i % 15], "label_desc": "x", "sentence": f"新闻{i}"},
    "afqmc": lambda i: {"sentence1": f"怎么还款{i}", "sentence2": "如何还款", "label": str(i % 2)},
    "ocnli": lambda i: {"sentence1": "我去", "sentence2": f"他去{i}", "label": ["neutral", "entailment"][i % 2]},
    "cmnli": lambda i: {"sentence1": "我去", "sentence2": f"他去{i}", "label": "-" if i == 7 else "contradiction"},
    "cluewsc2020": lambda i: {
        "target": NOUN,
        "idx": i,
        "label": ["true", "false"][i % 2],
        "text": "小明说昨天见到他了",
    },
    "csl": lambda i: {"id": i, "abst": f"摘要{i}", "keyword": ["水体", "污染"], "label": str(i % 2)},
}


def official_clue(folder: Path, task: str) -> Path:
    place = folder / f"{task}_public"
    place.mkdir()
    train = ("train.50k", "train.3k") if task == "ocnli" else ("train",)
    for name, n in [*((t, 24) for t in train), ("dev", 12), ("test", 7)]:
        rows = [CHINESE[task](i) for i in range(n)]
        if name == "test":
            rows = [{k: v for k, v in row.items() if k != "label"} | {"id": 100 + i} for i, row in enumerate(rows)]
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (place / f"{name}.json").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.mark.filterwarnings("ignore:.*rows lack a text or a label")
@pytest.mark.parametrize("task", CLUE_TASKS)
def test_every_clue_task_is_read_and_answered_in_its_official_format(task: str, tmp_path: Path) -> None:
    data = served(CLUE, task, official_clue(tmp_path, task), tokenizer="char")
    sizes = {"train": 24, "validation": 12, "test": 7}
    if task == "cmnli":  # one row of each is undecided
        sizes |= {"train": 23, "validation": 11}
    assert {split: data.size(split) for split in data.splits()} == sizes
    assert data.labels == list(CLUE_TASKS[task].labels)
    name, text = data.submission("test", [data.labels[1]] * 7)
    assert name.endswith("_predict.json")
    rows = [json.loads(line) for line in text.splitlines()]
    assert rows == [{"id": 100 + i, "label": data.labels[1]} for i in range(7)]


def test_the_rows_that_are_not_simply_their_columns(tmp_path: Path) -> None:
    winograd = served(CLUE, "cluewsc2020", official_clue(tmp_path, "cluewsc2020"), tokenizer="char")
    assert winograd.rows["train"][0]["text"] == "_小明_说昨天见到[他]了"
    assert "pair" not in winograd.rows["train"].columns
    csl = served(CLUE, "csl", official_clue(tmp_path, "csl"), tokenizer="char")
    assert (csl.rows["train"][3]["text"], csl.rows["train"][3]["pair"]) == ("水体 污染", "摘要3")


# Training and predicting ----------------------------------------------------------------------------------------------


def test_both_parts_of_mnli_are_scored(tmp_path: Path) -> None:
    data = GLUE("mnli", str(official(tmp_path, "mnli")), dev_is_test=True, vocab_size=200, batch_size=8)
    model = Finetune(tiny_text_encoder(), Classify(metrics=["accuracy"]), mode="finetune", readout="cls")
    trainer = pl.Trainer(
        max_epochs=1, default_root_dir=tmp_path, accelerator="cpu", enable_checkpointing=False, **QUIET
    )
    trainer.fit(model, datamodule=data)
    assert "val/accuracy" in trainer.callback_metrics
    matched, mismatched = trainer.test(model, datamodule=data, verbose=False)
    found = matched | mismatched
    assert set(found) == {f"{s}/{name}" for s in ("test", "test_mismatched") for name in ("loss", "accuracy")}
    model.eval()
    for split in ("test", "test_mismatched"):
        right = total = 0
        for batch in data.eval_dataloader(split):
            right += int((model(batch)[0].argmax(-1) == batch.target).sum())
            total += len(batch)
        assert total == data.size(split)
        assert found[f"{split}/accuracy"] == pytest.approx(right / total)


SMALL = "{class_path: TextEncoder, init_args: {vocab_size: 200, dim: 16, layers: 1, heads: 2, max_length: 64}}"
QUICK = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


@pytest.mark.parametrize("task", ["cola", "stsb", "mnli"])
def test_the_recipe_fits_selects_by_the_tasks_metric_and_writes_the_leaderboards_file(
    task: str, tmp_path: Path
) -> None:
    entry = GLUE_TASKS[task]
    recipe = str(Path(__file__).parents[2] / "configs/text/glue.yaml")
    given = [f"--model.encoder={SMALL}", f"--data.source={official(tmp_path, task)}", f"--data.task={task}", *QUICK]
    given += ["--data.vocab_size=200", "--trainer.max_epochs=1"]
    assert main(["fit", "-c", recipe, *given, f"--out={tmp_path / 'run'}"]) == 0
    config = (tmp_path / "run/config.yaml").read_text()
    assert ("tasks.classify.Classify" if entry.labels else "tasks.regress.Regress") in config
    header = (tmp_path / "run/metrics.csv").read_text().splitlines()[0]
    assert f"val/{entry.metrics[0]}" in header
    assert ("val_mismatched/accuracy" in header) == (task == "mnli")
    best = str(tmp_path / "run/checkpoints/best.ckpt")
    assert main(["predict", "-c", recipe, *given, f"--ckpt_path={best}", f"--out={tmp_path / 'out'}"]) == 0
    names = {"cola": ["CoLA.tsv"], "stsb": ["STS-B.tsv"], "mnli": ["MNLI-m.tsv", "MNLI-mm.tsv"]}[task]
    for name, split in zip(names, ("test", "test_mismatched"), strict=False):
        head, *lines = (tmp_path / "out" / name).read_text().splitlines()
        assert head == "index\tprediction"
        indices, answers = zip(*(line.split("\t") for line in lines), strict=True)
        assert list(indices) == [str(i) for i in range(N[split])]
        if entry.labels:
            assert set(answers) <= set(entry.labels)
        else:
            assert all(0 <= float(a) <= 5 and len(a) == 5 for a in answers)
    assert len((tmp_path / "out/predictions.jsonl").read_text().splitlines()) == N["test"]
    if task == "mnli":
        (tmp_path / "diagnostic").mkdir()
        lines = ["index\tsentence1\tsentence2", *(f"{i}\tThe cat {i} sat.\tIt did not." for i in range(4))]
        (tmp_path / "diagnostic/diagnostic.tsv").write_text("\n".join(lines))
        ax = ["--data.task=ax", f"--data.source={tmp_path / 'diagnostic'}", f"--ckpt_path={best}"]
        assert main(["predict", "-c", recipe, *given, *ax, f"--out={tmp_path / 'ax'}"]) == 0
        head, *lines = (tmp_path / "ax/AX.tsv").read_text().splitlines()
        assert (head, len(lines)) == ("index\tprediction", 4)
        assert {line.split("\t")[1] for line in lines} <= set(entry.labels)


def test_two_processes_say_and_score_what_one_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A probe on frozen features, with odd numbers of rows."""
    recipe, source = str(Path(__file__).parents[2] / "configs/text/glue.yaml"), official(tmp_path, "mnli")
    given = ["-c", recipe, f"--data.source={source}", "--data.task=mnli", "--data.vocab_size=200", *QUICK]
    given += [f"--model.encoder={SMALL}", "--model.mode=probe", "--data.eval_batch_size=3"]
    assert main(["fit", *given, f"--out={tmp_path / 'run'}"]) == 0
    given += [f"--ckpt_path={tmp_path / 'run/checkpoints/best.ckpt'}"]
    two = ["--trainer.devices=2", "--trainer.strategy=ddp"]
    said = {}
    for command in ("validate", "predict"):
        alone, both = tmp_path / f"{command}1", tmp_path / f"{command}2"
        assert main([command, *given, f"--out={alone}"]) == 0
        done = subprocess.run(
            [sys.executable, "-m", "ssl_suite", command, *given, *two, f"--out={both}"],
            capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said[command] = capsys.readouterr().out, done.stdout
    for name in ("MNLI-m.tsv", "MNLI-mm.tsv", "predictions.jsonl", "predictions-mismatched.jsonl"):
        assert (tmp_path / "predict2" / name).read_text() == (tmp_path / "predict1" / name).read_text()
    figures = [dict(re.findall(r"(val\S*) +\W* +([-\d.]+)", text)) for text in said["validate"]]
    assert {"val/loss", "val_mismatched/loss", "val/accuracy"} <= figures[0].keys()
    for name, value in figures[0].items():
        assert float(figures[1][name]) == pytest.approx(float(value), abs=1e-5), name


def test_scoring_a_test_split_without_labels_is_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = str(Path(__file__).parents[2] / "configs/text/glue.yaml")
    given = [f"--model.encoder={SMALL}", f"--data.source={official(tmp_path, 'rte')}", "--data.task=rte", *QUICK]
    given += ["--data.vocab_size=200", f"--out={tmp_path / 'run'}"]
    assert main(["fit", "-c", recipe, *given, "--test_after=true"]) == 2
    assert "has no targets in its test split for --test_after" in capsys.readouterr().err
    assert main(["fit", "-c", recipe, *given, "--model.task=Regress"]) == 2
    assert "RTE is a task for Classify" in capsys.readouterr().err


def test_a_task_must_be_named_where_the_data_names_none() -> None:
    with pytest.raises(UserError, match="Finetune needs a task"):
        Finetune(tiny_text_encoder())
    assert Regress().main == "pearson"


REAL = Path(os.environ.get("SSL_SUITE_DATA", "")) / "glue"


@pytest.mark.skipif(not (REAL / "CoLA").is_dir(), reason="SSL_SUITE_DATA names no folder with glue/CoLA")
def test_the_real_cola() -> None:
    data = served(GLUE, "cola", REAL)
    assert (data.size("train"), data.size("validation")) == (8551, 1043)
    assert data.rows["train"][0]["text"].startswith("Our friends won't buy this analysis")
    assert all_targets(data, "validation").sum() == 721


def test_a_table_of_parquet_with_names_for_labels_will_do(tmp_path: Path) -> None:
    for split in ("train", "dev"):
        rows = {"sentence1": ["a"] * 12, "sentence2": ["b"] * 12, "label": ["entailment", "not_entailment"] * 6}
        pq.write_table(pa.table(rows), tmp_path / f"{split}.parquet")
    assert all_targets(served(GLUE, "rte", tmp_path), "train").tolist() == [0, 1] * 6
