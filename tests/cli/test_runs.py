"""fit, test, validate, predict and embed, from the command line, in three modalities."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from cli_recipes import DATA, ENCODERS, METHODS, QUICK

from ssl_suite.bench.outcome_files import read_outcomes
from ssl_suite.bench.store import Result, Store
from ssl_suite.cli import main
from ssl_suite.core.load import load_encoder
from ssl_suite.data.embeddings import data_for

TASKS = {
    "classify text": ("text", "sentences", "Classify", ["--data.target=label"]),
    "classify images": ("image", "digits", "Classify", []),
    "classify speech": ("speech", "prompts", "Classify", ["--data.target=speaker"]),
    "rate sentences": ("text", "sentences", "Regress", ["--data.target=rating"]),
    "tag words": (
        "text",
        "brown",
        "Tag",
        ["--data.column=tokens", "--data.target=tags", "--model.readout=weighted_sum"],
    ),
    "transcribe": ("speech", "prompts", "CTC", ["--data.target=text"]),
}


def probe(name: str, out: Path, encoder: str, source: str) -> list[str]:
    modality, _, task, extra = TASKS[name]
    base = ["--model=Finetune", f"--model.encoder={encoder}", f"--model.task={task}", *DATA[modality], *QUICK]
    return [*base, *extra, f"--data.source={source}", "--data.batch_size=16", f"--out={out}"]


# Pretraining ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", METHODS)
def test_fit_leaves_an_encoder_its_provenance_its_config_and_its_log(
    modality: str, pretrained: dict[str, Path]
) -> None:
    run = pretrained[modality]
    left = {path.name for path in run.iterdir()}
    assert {"encoder", "checkpoints", "config.yaml", "metrics.csv"} <= left
    assert not [name for name in left if name.startswith(".")]
    encoder = load_encoder(run / "encoder")
    assert encoder.modality == modality
    assert (encoder.tokenizer is not None) == (modality == "text")
    provenance = json.loads((run / "encoder/provenance.json").read_text())
    assert provenance["method"] == METHODS[modality]
    assert provenance["steps"] > 0
    assert provenance["command"].startswith("ssl-suite fit --model=")
    assert provenance["seed"] == 0
    assert len(provenance["config_hash"]) == 12
    assert provenance["versions"]["torch"]
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert any(row["train/loss"] for row in rows)
    assert any(row["val/loss"] for row in rows)
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["class_path"].endswith(METHODS[modality])


# Tasks ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_every_task_works_on_its_modalities(
    name: str, tmp_path: Path, pretrained: dict[str, Path], small: Callable[[str], str]
) -> None:
    modality, pack, task, _ = TASKS[name]
    arguments = probe(name, tmp_path / "probe", str(pretrained[modality] / "encoder"), small(pack))
    assert main(["fit", *arguments, "--test_after=true", "--seed_everything=3"]) == 0
    rows = Store(tmp_path / "probe/results.sqlite").rows()
    assert {row.metric for row in rows} == {
        "Classify": {"accuracy", "macro_f1"}, "Regress": {"pearson", "spearman", "mse"},
        "Tag": {"accuracy", "macro_f1"}, "CTC": {"cer", "wer", "unsayable", "unfit"},
    }[task]  # fmt: skip
    for row in rows:
        assert_complete(row)
        assert (row.modality, row.method, row.role, row.split) == (modality, METHODS[modality], "ssl", "test")
        assert row.seed == 3
        assert row.labels == 64
        assert row.direction == ("min" if row.metric in ("cer", "wer", "unsayable", "unfit", "mse") else "max")
        assert row.protocol.endswith("@1")
    (main_row,) = (row for row in rows if row.main)
    kept = read_outcomes(tmp_path / "probe", main_row)
    assert kept is not None, "the outcomes of single rows make up the number"
    assert len(kept.ids) == 24


def assert_complete(row: Result) -> None:
    for field in dataclasses.fields(row):
        value = getattr(row, field.name)
        assert value is not None, field.name
        assert (value == "") == (field.name in ("checkpoint", "error")), field.name
    assert isinstance(row.value, float)
    assert math.isfinite(row.validation)
    assert row.seconds > 0
    assert len(row.recipe) == 12


@pytest.mark.parametrize(("encoder", "mode", "role"), [
    (ENCODERS["image"], "finetune", "supervised"), (ENCODERS["image"], "probe", "random"),
    ("{class_path: RawPixels, init_args: {size: 8}}", "probe", "simple"), ("random:", "probe", "random"),
])  # fmt: skip
def test_the_role_of_a_result(
    encoder: str, mode: str, role: str, tmp_path: Path, pretrained: dict[str, Path], sources: dict[str, str]
) -> None:
    encoder = f"random:{pretrained['image']}/encoder" if encoder == "random:" else encoder
    arguments = probe("classify images", tmp_path / "run", encoder, sources["image"])
    results = tmp_path / "all/results.sqlite"
    options = [f"--model.mode={mode}", "--test_after=true", f"--results={results}", "--task_name=ten digits"]
    assert main(["fit", *arguments, *options]) == 0
    rows = Store(results).rows()
    assert {(row.role, row.task) for row in rows} == {(role, "ten digits")}
    assert (results.parent / rows[0].run).resolve() == (tmp_path / "run").resolve()


def test_validate_and_test_give_the_recorded_numbers_again(
    tmp_path: Path, pretrained: dict[str, Path], sources: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = probe("classify images", tmp_path / "probe", str(pretrained["image"] / "encoder"), sources["image"])
    assert main(["fit", *arguments, "--test_after=true"]) == 0
    best = tmp_path / "probe/checkpoints/best.ckpt"
    again = [a for a in arguments if not a.startswith("--out")]
    assert main(["test", *again, f"--ckpt_path={best}", f"--out={tmp_path / 'again'}"]) == 0
    first, second = (Store(tmp_path / name / "results.sqlite").rows() for name in ("probe", "again"))
    assert {r.metric: r.value for r in first} == {r.metric: r.value for r in second}
    capsys.readouterr()
    assert main(["validate", *again, f"--ckpt_path={best}", f"--out={tmp_path / 'third'}"]) == 0
    assert "val/accuracy" in capsys.readouterr().out
    assert not (tmp_path / "third/results.sqlite").exists()


def test_predict_writes_an_answer_a_row_for_data_without_targets(
    tmp_path: Path, pretrained: dict[str, Path], sources: dict[str, str]
) -> None:
    arguments = probe("classify text", tmp_path / "probe", str(pretrained["text"] / "encoder"), sources["text"])
    assert main(["fit", *arguments]) == 0
    best = tmp_path / "probe/checkpoints/best.ckpt"
    predict = ["predict", *arguments, f"--ckpt_path={best}"]
    assert main([*predict, f"--out={tmp_path / 'labelled'}"]) == 0
    labelled = read_jsonl(tmp_path / "labelled/predictions.jsonl")
    table = pq.read_table(Path(sources["text"]) / "test.parquet")
    assert [row["id"] for row in labelled] == table["id"].to_pylist()
    assert {row["prediction"] for row in labelled} <= {"negative", "positive"}
    (tmp_path / "new").mkdir()
    pq.write_table(table.select(["id", "text"]), tmp_path / "new/test.parquet")
    assert main([*predict, f"--data.source={tmp_path / 'new'}", f"--out={tmp_path / 'unlabelled'}"]) == 0
    assert read_jsonl(tmp_path / "unlabelled/predictions.jsonl") == labelled


def test_predict_answers_the_split_that_is_named_and_never_another(
    tmp_path: Path, pretrained: dict[str, Path], sources: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = probe("classify text", tmp_path / "probe", str(pretrained["text"] / "encoder"), sources["text"])
    assert main(["fit", *arguments]) == 0
    predict = ["predict", *arguments, f"--ckpt_path={tmp_path / 'probe/checkpoints/best.ckpt'}"]
    table = pq.read_table(Path(sources["text"]) / "test.parquet")
    (tmp_path / "new").mkdir()
    for split in ("train", "validation"):
        pq.write_table(table.slice(0, {"train": 7, "validation": 3}[split]), tmp_path / f"new/{split}.parquet")
    predict += [f"--data.source={tmp_path / 'new'}", f"--out={tmp_path / 'out'}"]
    assert main(predict) == 2
    assert "has no test split to answer; it has: train, validation. Name one with --split" in capsys.readouterr().err
    for name in ("train", "val"):
        assert main([*predict, f"--split={name}"]) == 0
    for name, n in (("train", 7), ("validation", 3)):  # neither file takes the other's place
        answered = read_jsonl(tmp_path / f"out/predictions-{name}.jsonl")
        assert [row["id"] for row in answered] == table["id"].to_pylist()[:n]
    assert not (tmp_path / "out/predictions.jsonl").exists()
    (tmp_path / "one.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in table["text"].to_pylist()))
    alone = [f"--data.source={tmp_path / 'one.jsonl'}", "--split=train"]  # from which fit would hold some out
    assert main([*predict, *alone]) == 0
    assert [row["id"] for row in read_jsonl(tmp_path / "out/predictions-train.jsonl")] == [str(i) for i in range(24)]


def test_predict_with_a_method_writes_embeddings(
    tmp_path: Path, pretrained: dict[str, Path], sources: dict[str, str]
) -> None:
    model = ["--model=SimCLR", f"--model.encoder={pretrained['image']}/encoder"]
    data = [*DATA["image"], f"--data.source={sources['image']}"]
    assert main(["predict", *model, *data, *QUICK, f"--out={tmp_path / 'out'}"]) == 0
    rows = read_jsonl(tmp_path / "out/predictions.jsonl")
    assert len(rows) == 24
    assert len(rows[0]["prediction"]) == load_encoder(pretrained["image"] / "encoder").dim


def read_jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


# Embeddings -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", METHODS)
def test_embeddings_are_the_encoders_in_the_order_of_the_rows(
    modality: str, tmp_path: Path, pretrained: dict[str, Path], sources: dict[str, str]
) -> None:
    out, folder = tmp_path / "e.parquet", str(pretrained[modality] / "encoder")
    size = ["--image_size=16"] if modality == "image" else []
    assert main(["embed", folder, sources[modality], f"--out={out}", "--split=test", "--batch_size=7", *size]) == 0
    table = pq.read_table(out)
    assert table["id"].to_pylist() == pq.read_table(Path(sources[modality]) / "test.parquet")["id"].to_pylist()
    assert table["embedding"].type.list_size == load_encoder(folder).dim
    found = torch.tensor(table["embedding"].to_pylist())
    encoder = load_encoder(folder).eval()
    data = data_for(encoder, sources[modality], batch_size=1, **({"image_size": 16} if modality == "image" else {}))
    with torch.no_grad():
        for batch in data.eval_dataloader("test"):
            wanted = encoder(data.finish(batch)).pooled[0]
            torch.testing.assert_close(found[batch.index.item()], wanted, atol=1e-4, rtol=1e-3)


def test_embedding_a_folder_leaves_nothing_out(tmp_path: Path, pretrained: dict[str, Path]) -> None:
    lines = [f"sentence {i} is about a film" for i in range(40)]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    assert (
        main(["embed", str(pretrained["text"] / "encoder"), str(tmp_path / "a.txt"), f"--out={tmp_path / 'e.parquet'}"])
        == 0
    )
    assert pq.read_table(tmp_path / "e.parquet").num_rows == 40


# Configurations -------------------------------------------------------------------------------------------------------


def test_configs_compose_and_what_is_printed_can_be_given_back(
    tmp_path: Path, sources: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.yaml").write_text(
        f"model: {{class_path: SimCLR, init_args: {{encoder: {ENCODERS['image']}, temperature: 0.2}}}}\n"
        f"data: {{class_path: Images, init_args: {{source: {sources['image']}, image_size: 16}}}}\n"
        "trainer: {max_epochs: 7}\n"
    )
    (tmp_path / "b.yaml").write_text("trainer: {max_epochs: 2, accelerator: cpu}\n")

    def printed(*arguments: str) -> dict:
        capsys.readouterr()
        with pytest.raises(SystemExit) as done:
            main(["fit", *arguments, "--print_config"])
        assert done.value.code in (0, None)
        text = capsys.readouterr().out
        (tmp_path / "printed.yaml").write_text(text)
        return yaml.safe_load(text)

    first = printed("-c", str(tmp_path / "a.yaml"), "-c", str(tmp_path / "b.yaml"), "--model.optim.lr=0.5")
    assert first["trainer"]["max_epochs"] == 2
    assert first["model"]["init_args"]["temperature"] == 0.2
    assert first["model"]["init_args"]["optim"]["lr"] == 0.5
    assert printed("-c", str(tmp_path / "printed.yaml")) == first


def test_the_saved_config_makes_the_same_run_again(tmp_path: Path, pretrained: dict[str, Path]) -> None:
    run = pretrained["text"]
    assert main(["fit", "-c", str(run / "config.yaml"), f"--out={tmp_path / 'again'}"]) == 0
    first, second = (load_encoder(folder / "encoder").state_dict() for folder in (run, tmp_path / "again"))
    for name, weights in first.items():
        torch.testing.assert_close(weights, second[name], atol=0, rtol=0)
    hashes = [json.loads((f / "encoder/provenance.json").read_text())["config_hash"] for f in (run, tmp_path / "again")]
    assert hashes[0] == hashes[1]
    losses = [
        json.loads((f / "encoder/provenance.json").read_text())["metrics"]["train/loss"]
        for f in (run, tmp_path / "again")
    ]
    assert math.isfinite(losses[0])
    assert losses[0] == losses[1]
