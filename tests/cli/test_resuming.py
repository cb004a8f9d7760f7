"""Run folders: what a run leaves, what a resumed one must share with it, and what is never lost."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from cli_recipes import DATA, ENCODERS, METHODS, QUICK
from tiny import differing, files_below

import ssl_suite.core.files as files
import ssl_suite.data.text.learned as tokenizer_module
from ssl_suite.bench.store import Store
from ssl_suite.cli import main
from ssl_suite.core.errors import UserError
from ssl_suite.core.files import locked
from ssl_suite.core.folder import save_encoder
from ssl_suite.core.latest import queue_again
from ssl_suite.core.load import load_encoder
from ssl_suite.core.runs import checkpoint_path, default_out

Sources = dict[str, str]


def fit(modality: str, source: str, out: Path, *options: str) -> list[str]:
    """Arguments of a run of two epochs; later options win."""
    model = [f"--model={METHODS[modality]}", f"--model.encoder={ENCODERS[modality]}"]
    return ["fit", *model, *DATA[modality], f"--data.source={source}", "--data.batch_size=16", *QUICK,
            "--trainer.max_epochs=2", f"--out={out}", *options]  # fmt: skip


def probe(source: str, encoder: Path | str, out: Path, *options: str) -> list[str]:
    model = ["--model=Finetune", f"--model.encoder={encoder}", "--model.task=Classify"]
    data = [*DATA["text"], "--data.target=label", f"--data.source={source}", "--data.batch_size=16"]
    return ["fit", *model, *data, *QUICK, f"--out={out}", *options]


def last(out: Path) -> Path:
    return out / "checkpoints" / "last.ckpt"


def read(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run"
    assert main(fit("text", sources["text"], out)) == 0
    return out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def unfinished(run: Path) -> Path:
    """The same as it is while it goes on."""
    shutil.rmtree(run / "encoder")
    return run


# What must be the same ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("option", "told"), [
    ("--data.batch_size=8", "data.batch_size 16, not 8"),
    ("--model.optim.lr=0.5", "model.optim.lr 0.0001, not 0.5"),
    ("--model.optim.weight_decay=0.5", "model.optim.weight_decay 0.01, not 0.5"),
    ("--model.optim.schedule=constant", "model.optim.schedule linear, not constant"),
    ("--model.final_rate=0.5", "model.final_rate None, not 0.5"),
    ("--seed_everything=3", "seed_everything 0, not 3"),
    ("--data.max_length=16", "data.max_length 32, not 16"),
    ("--trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches 1, not 2"),
    ("--trainer.gradient_clip_val=1", "trainer.gradient_clip_val None, not 1"),
    ("--trainer.max_epochs=3", "trainer.max_epochs 2, not 3. The schedule depends on it; to train on, start a new run"),
    (
        f"--model.encoder={ENCODERS['text'].replace('heads: 2', 'heads: 4')}",
        "model.encoder.heads 2, not 4",
    ),
])  # fmt: skip
def test_a_resumed_run_with_another_option_is_told_which(
    option: str, told: str, sources: Sources, unfinished: Path, fails: Callable[..., str]
) -> None:
    config = (unfinished / "config.yaml").read_text()
    said = fails(*fit("text", sources["text"], unfinished, f"--ckpt_path={last(unfinished)}", option))
    assert f"{last(unfinished)} was trained with" in said
    assert told in said
    assert (unfinished / "config.yaml").read_text() == config


def test_other_data_is_refused_and_the_same_elsewhere_is_not(
    sources: Sources, unfinished: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(sources["text"], other)
    table = pq.read_table(other / "train.parquet")
    texts = ["another text", *table["text"].to_pylist()[1:]]
    pq.write_table(table.set_column(table.column_names.index("text"), "text", pa.array(texts)), other / "train.parquet")
    assert "trained on other data" in fails(*fit("text", str(other), unfinished, f"--ckpt_path={last(unfinished)}"))


def test_the_saved_config_resumes_and_workers_may_differ(unfinished: Path) -> None:
    config = ["-c", str(unfinished / "config.yaml"), f"--out={unfinished}", "--data.num_workers=1"]
    assert main(["fit", *config, f"--ckpt_path={last(unfinished)}"]) == 0
    assert (unfinished / "encoder").is_dir()


# What is left ---------------------------------------------------------------------------------------------------------


def test_a_run_resumed_at_its_last_step_leaves_its_encoder(sources: Sources, unfinished: Path, finished: Path) -> None:
    assert main(fit("text", sources["text"], unfinished, f"--ckpt_path={last(unfinished)}")) == 0
    found, wanted = (load_encoder(folder / "encoder") for folder in (unfinished, finished))
    assert differing(found.state_dict(), wanted.state_dict()) == []
    assert differing(found.heads, wanted.heads) == []
    provenance = [json.loads((f / "encoder/provenance.json").read_text()) for f in (unfinished, finished)]
    assert provenance[0]["steps"] == provenance[1]["steps"] == 10
    assert provenance[0]["seconds"] == provenance[1]["seconds"]
    assert provenance[0]["mfu"] == provenance[1]["mfu"]


def test_a_task_keeps_its_best_state_and_its_latest(sources: Sources, finished: Path, tmp_path: Path) -> None:
    options = ["--trainer.max_epochs=5", "--model.optim.lr=3.0", "--model.optim.schedule=constant"]
    assert main(probe(sources["text"], finished / "encoder", tmp_path / "probe", *options)) == 0
    scores = [float(row["val/accuracy"]) for row in rows(tmp_path / "probe/metrics.csv") if row["val/accuracy"]]
    best, latest = (read(tmp_path / "probe/checkpoints" / name) for name in ("best.ckpt", "last.ckpt"))
    assert latest["global_step"] == 20
    assert best["global_step"] == 4 * (1 + scores.index(max(scores)))
    assert files_below(tmp_path / "probe/checkpoints") == ["best.ckpt", "last.ckpt"]


def test_a_run_that_moved_still_knows_its_best_state(sources: Sources, finished: Path, tmp_path: Path) -> None:
    options = ["--trainer.max_epochs=5", "--model.optim.lr=3.0", "--test_after=true"]
    arguments = probe(sources["text"], finished / "encoder", tmp_path / "probe", *options)
    assert main(arguments) == 0
    moved = tmp_path / "moved"
    (tmp_path / "probe").rename(moved)
    before, wanted = read(moved / "checkpoints/best.ckpt"), Store(moved / "results.sqlite").rows()
    (moved / "results.sqlite").unlink()
    assert main([*arguments, f"--out={moved}", f"--ckpt_path={last(moved)}"]) == 0
    assert read(moved / "checkpoints/best.ckpt")["global_step"] == before["global_step"]
    assert [r.value for r in Store(moved / "results.sqlite").rows()] == [r.value for r in wanted]


def test_every_command_keeps_the_log_of_training(sources: Sources, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "probe"
    arguments = probe(sources["text"], finished / "encoder", out)
    assert main(arguments) == 0
    log = (out / "metrics.csv").read_text()
    assert "train/loss" in log
    for command in ("validate", "test", "predict", "test"):
        assert main([command, *arguments[1:], f"--ckpt_path={out / 'checkpoints/best.ckpt'}"]) == 0
        assert (out / "metrics.csv").read_text() == log
    assert len(rows(out / "metrics-test.csv")) == 2
    assert len(rows(out / "metrics-validate.csv")) == 1


def test_a_resumed_run_appends_to_its_log(sources: Sources, unfinished: Path, finished: Path) -> None:
    state = read(last(unfinished))
    assert main(fit("text", sources["text"], unfinished, f"--ckpt_path={last(unfinished)}")) == 0
    assert state["global_step"] == 10
    assert rows(unfinished / "metrics.csv") == rows(finished / "metrics.csv")


def test_a_new_run_over_an_old_one_takes_none_of_its_files_for_its_own(
    sources: Sources, run: Path, fails: Callable[..., str]
) -> None:
    (run / "notes.txt").write_text("mine")
    fails(*fit("text", sources["text"], run, "--overwrite=true", "--data.column=nothing"))
    assert (run / "encoder").is_dir()  # it did not come to train
    assert main(fit("text", sources["text"], run, "--overwrite=true", "--trainer.max_epochs=1")) == 0
    assert read(last(run))["global_step"] == 5
    assert max(int(row["step"]) for row in rows(run / "metrics.csv")) == 4
    assert (run / "notes.txt").read_text() == "mine"


def test_a_folder_that_is_no_encoders_is_refused_before_training(
    sources: Sources, tmp_path: Path, fails: Callable[..., str]
) -> None:
    (tmp_path / "run/encoder").mkdir(parents=True)
    (tmp_path / "run/encoder/thesis.tex").write_text("mine")
    said = fails(*fit("text", sources["text"], tmp_path / "run", "--overwrite=true"))
    assert "encoder holds other files, which are not removed" in said
    assert files_below(tmp_path) == ["run/encoder/thesis.tex"]


def test_weights_that_are_not_finite_are_never_written(
    sources: Sources, tmp_path: Path, fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ssl_suite.methods.text.masked_lm import MaskedLM

    step = MaskedLM.optimizer_step

    def breaks(self: Any, *arguments: Any, **named: Any) -> None:
        step(self, *arguments, **named)
        if self.trainer.global_step == 9:  # counted after it
            with torch.no_grad():
                self.encoder.tokens.weight[3, 0] = float("nan")

    monkeypatch.setattr(MaskedLM, "optimizer_step", breaks)
    said = fails(*fit("text", sources["text"], tmp_path / "run"))
    assert "Weights are NaN or infinite after step 10 (encoder.tokens.weight" in said
    assert read(last(tmp_path / "run"))["global_step"] == 5
    assert not (tmp_path / "run/encoder").exists()


# Encoders of runs that go on ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", METHODS)
def test_the_encoder_of_an_unfinished_run_is_that_of_its_checkpoint(
    modality: str, sources: Sources, pretrained: dict[str, Path], tmp_path: Path
) -> None:
    run = Path(shutil.copytree(pretrained[modality], tmp_path / "run"))
    wanted = load_encoder(run / "encoder")
    shutil.rmtree(run / "encoder")
    for place in (run, last(run)):
        found = load_encoder(place)
        assert type(found) is type(wanted)
        assert found.config == wanted.config
        assert differing(found.state_dict(), wanted.state_dict()) == []
        assert differing(found.heads, wanted.heads) == []
        assert (found.tokenizer and found.tokenizer.to_str()) == (wanted.tokenizer and wanted.tokenizer.to_str())
    untrained = load_encoder(f"random:{run}")
    assert untrained.config == wanted.config
    assert differing(untrained.state_dict(), wanted.state_dict())
    out = tmp_path / "e.parquet"
    size = ["--image_size=16"] if modality == "image" else []
    assert main(["embed", str(run), sources[modality], f"--out={out}", "--split=test", *size]) == 0
    assert pq.read_table(out).num_rows == 24


def test_a_finished_run_stands_for_its_encoder_and_results_name_its_method(
    sources: Sources, run: Path, tmp_path: Path
) -> None:
    for out in ("finished", "unfinished"):
        assert main(probe(sources["text"], run, tmp_path / out, "--test_after=true")) == 0
        assert {(r.method, r.role) for r in Store(tmp_path / out / "results.sqlite").rows()} == {("MaskedLM", "ssl")}
        shutil.rmtree(run / "encoder", ignore_errors=True)


def test_a_resumed_run_has_the_tokenizer_it_began_with_whatever_the_cache_holds(
    sources: Sources, unfinished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_SUITE_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr(tokenizer_module, "train_tokenizer", lambda *_: pytest.fail("trains another tokenizer"))
    kept = (unfinished / "tokenizer.json").read_text()
    assert main(fit("text", sources["text"], unfinished, f"--ckpt_path={last(unfinished)}")) == 0
    assert json.loads((unfinished / "encoder/tokenizer.json").read_text()) == json.loads(kept)


# Damage ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0.2, 0.5, 0.8])
def test_a_checkpoint_with_one_wrong_bit_is_refused(
    place: float, sources: Sources, unfinished: Path, fails: Callable[..., str]
) -> None:
    content = bytearray(last(unfinished).read_bytes())
    content[int(place * len(content))] ^= 1
    last(unfinished).write_bytes(content)
    said = fails(*fit("text", sources["text"], unfinished, f"--ckpt_path={last(unfinished)}"))
    assert "damaged" in said or "not a readable checkpoint" in said


@pytest.mark.parametrize(("given", "told"), [
    ("nowhere.ckpt", "There is no checkpoint nowhere.ckpt"), ("hpc", "name a file, or last or best"),
    ("best", "There is no checkpoint"),
])  # fmt: skip
def test_a_checkpoint_that_is_not_there_is_one_sentence(
    given: str, told: str, sources: Sources, unfinished: Path, fails: Callable[..., str]
) -> None:
    assert told in fails(*fit("text", sources["text"], unfinished, f"--ckpt_path={given}"))


def test_last_means_the_runs_own(sources: Sources, unfinished: Path) -> None:
    assert main(fit("text", sources["text"], unfinished, "--ckpt_path=last")) == 0
    assert (unfinished / "encoder").is_dir()


# Folders --------------------------------------------------------------------------------------------------------------


def test_two_processes_do_not_share_a_run(
    sources: Sources, tmp_path: Path, fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0.1)
    with locked(tmp_path / "run"):
        said = fails(*fit("text", sources["text"], tmp_path / "run"))
    assert "Another process is writing to" in said


@pytest.mark.parametrize(("out", "told"), [("", "--out is empty"), ("file", "is a file; name a folder")])
def test_a_run_folder_has_a_name_and_is_no_file(
    out: str, told: str, sources: Sources, tmp_path: Path, fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    assert told in fails(*fit("text", sources["text"], Path("x"), f"--out={out}"))
    assert (tmp_path / "file").read_text() == "mine"


def test_embed_replaces_embeddings_and_nothing_else(
    sources: Sources, finished: Path, tmp_path: Path, fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/a.png").write_bytes(b"mine")
    (tmp_path / "labels.csv").write_text("mine")
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "data.parquet")
    embed = ["embed", str(finished), sources["text"], "--split=test"]
    for out, told in (
        ("pictures", "is a folder"), (".", "is a folder"), ("../" + tmp_path.name, "is a folder"), ("", "is empty"),
        ("labels.csv", "holds no embeddings"), ("data.parquet", "holds no embeddings"),
        ("/dev/null", "no ordinary file"),
    ):  # fmt: skip
        assert told in fails(*embed, f"--out={out}")
    assert files_below(tmp_path) == ["data.parquet", "labels.csv", "pictures/a.png"]
    for _ in range(2):
        assert main([*embed, f"--out={tmp_path / 'e.parquet'}"]) == 0


def test_a_default_folder_is_named_once_for_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("SSL_SUITE_DEFAULT_OUT", "runs/of-an-earlier-run")
    chosen = default_out("SimCLR")
    assert chosen.startswith("runs/SimCLR-2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert default_out("SimCLR") == chosen
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="name it with --out"):
        default_out("SimCLR")


def test_a_job_that_slurm_queues_again_goes_on(
    sources: Sources, unfinished: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert checkpoint_path(None, tmp_path / "new", "fit") is None
    assert main(fit("text", sources["text"], unfinished)) == 0
    assert (unfinished / "encoder").is_dir()
    script = tmp_path / "scontrol"
    script.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    queue_again()
    assert not (tmp_path / "asked").exists()
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    queue_again()
    assert (tmp_path / "asked").read_text() == "requeue 17\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_saves_the_step_and_says_how_to_go_on(
    number: signal.Signals,
    sources: Sources,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from ssl_suite.methods.text.masked_lm import MaskedLM

    step, before = MaskedLM.training_step, signal.getsignal(number)

    def told(self: Any, *arguments: Any) -> Any:
        if self.trainer.global_step == 5:
            os.kill(os.getpid(), number)
        return step(self, *arguments)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(MaskedLM, "training_step", told)
        assert main(fit("text", sources["text"], out)) == 128 + number
    assert f"Stopped by {number.name}; go on with --ckpt_path" in capsys.readouterr().err
    assert signal.getsignal(number) == before
    assert read(last(out))["global_step"] == 6
    assert not (out / "encoder").exists()
    assert main(fit("text", sources["text"], out, f"--ckpt_path={last(out)}")) == 0
    encoders = [load_encoder(folder / "encoder").state_dict() for folder in (out, finished)]
    assert differing(*encoders) == []
    assert yaml.safe_load((out / "config.yaml").read_text())["model"]["class_path"].endswith("MaskedLM")


def test_saving_an_encoder_over_a_folder_of_ours_is_allowed(finished: Path, tmp_path: Path) -> None:
    encoder = load_encoder(finished)
    for _ in range(2):
        save_encoder(encoder, tmp_path / "encoder")
    assert differing(load_encoder(tmp_path / "encoder").state_dict(), encoder.state_dict()) == []
