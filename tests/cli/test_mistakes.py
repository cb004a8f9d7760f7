"""What a user can do wrong on the command line: exit code 2, one short sentence, the nearest valid name."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cli_recipes import DATA, ENCODERS, QUICK

from ssl_suite.cli import main
from ssl_suite.core.folder import write_manifest

Fails = Callable[..., str]
SIMCLR = ["fit", "--model=SimCLR", f"--model.encoder={ENCODERS['image']}", *DATA["image"], *QUICK]


@pytest.fixture
def simclr(sources: dict[str, str], tmp_path: Path) -> list[str]:
    return [
        *SIMCLR,
        f"--data.source={sources['image']}",
        f"--out={tmp_path / 'run'}",
        "--trainer.limit_train_batches=1",
    ]


# Names ----------------------------------------------------------------------------------------------------------------


def test_a_wrong_command(fails: Fails) -> None:
    assert fails("fitt") == "There is no command 'fitt'. Did you mean fit?"


@pytest.mark.parametrize(("arguments", "wrong", "right"), [
    (["--trainer.max_epoch=3"], "trainer.max_epoch", "trainer.max_epochs"),
    (["--ouut=x"], "ouut", "out"),
    (["--model.temprature=0.1"], "temprature", "temperature"),
    (["--model.optim.lrr=0.1"], "lrr", "lr"),
    (["--model.encoder.nam=resnet18"], "nam", "name"),
    (["--data.image_siz=16"], "image_siz", "image_size"),
    (["--model=SimCRL"], "SimCRL", "SimCLR"),
    (["--data=Image"], "Image", "Images"),
    (["--model.encoder=ImageEncodr"], "ImageEncodr", "ImageEncoder"),
])  # fmt: skip
def test_a_wrong_name_gets_the_nearest(
    arguments: list[str], wrong: str, right: str, fails: Fails, simclr: list[str], tmp_path: Path
) -> None:
    message = fails(*simclr, *arguments)
    assert wrong in message
    assert (
        f"Did you mean {right}" in message
        or f"Did you mean --{right}" in message
        or f"Did you mean optim.{right}" in message
    )
    assert len(message) < 250
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("text", "wrong", "right"), [
    ("model: {class_path: SimCLR, init_args: {temprature: 0.1}}", "temprature", "temperature"),
    ("model: {class_path: SimCLR, init_args: {optim: {lrr: 0.1}}}", "lrr", "lr"),
    ("model: {class_path: SimCLR, init_args: {encoder: {class_path: RawPixels, init_args: {siz: 3}}}}", "siz", "size"),
    ("model: {class_path: SimCRL}", "SimCRL", "SimCLR"),
    ("trainer: {max_epoch: 1}", "max_epoch", "max_epochs"),
    ("trainr: {max_epochs: 1}", "trainr", "trainer"),
])  # fmt: skip
def test_a_wrong_name_in_a_config(text: str, wrong: str, right: str, fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    message = fails("fit", "-c", str(tmp_path / "c.yaml"), "--data=Images", "--data.source=samples:digits")
    assert wrong in message
    assert f"Did you mean {right}" in message or f".{right}?" in message
    assert len(message) < 250


@pytest.mark.parametrize(("option", "kind"), [
    ("--trainer.max_epochs=many", "int"), ("--model.temperature=hot", "float"), ("--model.optim.lr=fast", "float"),
    ("--model.optim.name=adamx", "adamw"), ("--data.batch_size=x", "int"),
])  # fmt: skip
def test_a_wrong_type(option: str, kind: str, fails: Fails, simclr: list[str]) -> None:
    message = fails(*simclr, option)
    name, _, value = option.partition("=")
    assert name.rpartition(".")[2] in message
    assert value in message
    assert kind in message
    assert len(message) < 250


def test_a_config_that_is_not_there(fails: Fails) -> None:
    message = fails("fit", "-c", "nowhere/simclr.yaml")
    assert "nowhere/simclr.yaml" in message
    assert len(message) < 150


def test_a_config_that_is_no_yaml(fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("model: {class_path: SimCLR\n")
    assert "c.yaml, line 2" in fails("fit", "-c", str(tmp_path / "c.yaml"))
    (tmp_path / "c.yaml").write_text("just words\n")
    assert "c.yaml" in fails("fit", f"--config={tmp_path / 'c.yaml'}")


def test_a_missing_argument(fails: Fails) -> None:
    message = fails("fit", "--model=SimCLR", f"--model.encoder={ENCODERS['image']}", "--data=Images")
    assert "source" in message


def test_no_model(fails: Fails) -> None:
    assert "model" in fails("fit", "--data=Images", "--data.source=samples:digits")


@pytest.mark.parametrize("arguments", [["list", "metods"], ["list", "--fromat=json"], ["embed", "x"], ["bench"]])
def test_the_other_commands(arguments: list[str], fails: Fails) -> None:
    assert len(fails(*arguments)) < 200


def test_results_and_report_of_nothing(fails: Fails, tmp_path: Path) -> None:
    assert str(tmp_path) in fails("results", str(tmp_path))
    assert str(tmp_path) in fails("report", str(tmp_path))


def test_results_of_a_file_that_is_none(fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "results.sqlite").write_text("no database")
    assert "results.sqlite" in fails("results", str(tmp_path))


# Models and data that do not fit --------------------------------------------------------------------------------------


def test_an_image_encoder_with_text(fails: Fails, pretrained: dict[str, Path], sources: dict[str, str]) -> None:
    probe = ["fit", "--model=Finetune", f"--model.encoder={pretrained['image']}/encoder", "--model.task=Classify"]
    message = fails(*probe, *DATA["text"], f"--data.source={sources['text']}", "--trainer.fast_dev_run=true", *QUICK)
    assert "image encoder" in message
    assert "text data" in message


def test_a_method_with_an_encoder_of_another_modality(fails: Fails, sources: dict[str, str]) -> None:
    data = [*DATA["image"], f"--data.source={sources['image']}"]
    message = fails("fit", "--model=SimCLR", f"--model.encoder={ENCODERS['text']}", *data, *QUICK)
    assert "SimCLR needs an image encoder" in message


def test_a_task_without_its_target(fails: Fails, pretrained: dict[str, Path], tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.txt").write_text("a film\n")
    probe = ["fit", "--model=Finetune", f"--model.encoder={pretrained['text']}/encoder", "--model.task=Classify"]
    message = fails(*probe, *DATA["text"], f"--data.source={tmp_path}", f"--out={tmp_path / 'run'}", *QUICK)
    assert "no column 'label'" in message


def test_an_unknown_target_column_names_the_nearest(
    fails: Fails, pretrained: dict[str, Path], sources: dict[str, str]
) -> None:
    probe = ["fit", "--model=Finetune", f"--model.encoder={pretrained['text']}/encoder", "--model.task=Regress"]
    message = fails(*probe, *DATA["text"], f"--data.source={sources['text']}", "--data.target=ratings", *QUICK)
    assert "'ratings'" in message
    assert "Did you mean rating?" in message


def test_an_empty_folder_of_images(fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in fails(*SIMCLR, f"--data.source={tmp_path / 'empty'}", f"--out={tmp_path / 'run'}")
    assert [p for p in (tmp_path / "run").rglob("*") if p.is_file()] == []


def test_nothing_readable_leaves_nothing_behind(fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    for i in range(12):
        (tmp_path / f"bad/{i}.png").write_text("broken")
    arguments = [
        *SIMCLR,
        f"--data.source={tmp_path / 'bad'}",
        f"--out={tmp_path / 'run'}",
        "--trainer.num_sanity_val_steps=0",
    ]
    assert "unreadable" in fails(*arguments, "--data.on_error=skip")
    assert ".png is not an image" in fails(*arguments)
    assert not (tmp_path / "run/encoder").exists()
    assert not (tmp_path / "run/checkpoints").exists()


def test_embedding_what_cannot_be_embedded(fails: Fails, pretrained: dict[str, Path], tmp_path: Path) -> None:
    out, encoder = tmp_path / "e.parquet", str(pretrained["image"] / "encoder")
    assert "no data" in fails("embed", encoder, str(tmp_path / "nowhere"), f"--out={out}").lower()
    assert "no holdout split" in fails("embed", encoder, "samples:digits", f"--out={out}", "--split=holdout")
    assert "readout" in fails("embed", encoder, "samples:digits", f"--out={out}", "--readout=lats").lower()
    speech = str(pretrained["speech"] / "encoder")
    assert "--image_size" in fails("embed", speech, "samples:prompts", f"--out={out}", "--image_size=3")
    assert not out.exists()


# Checkpoints and encoder folders --------------------------------------------------------------------------------------


def checkpoint(run: Path) -> Path:
    return run / "checkpoints/last.ckpt"


def test_a_checkpoint_that_is_not_there(fails: Fails, simclr: list[str]) -> None:
    assert "nowhere.ckpt" in fails(*simclr, "--ckpt_path=nowhere.ckpt")


def test_a_checkpoint_that_is_a_pipe(fails: Fails, simclr: list[str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.ckpt")
    assert "pipe.ckpt is not a file but" in fails(*simclr, f"--ckpt_path={tmp_path}/pipe.ckpt")


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "empty"])
def test_a_damaged_checkpoint(
    damage: str, fails: Fails, simclr: list[str], pretrained: dict[str, Path], tmp_path: Path
) -> None:
    data = checkpoint(pretrained["image"]).read_bytes()
    bad = tmp_path / "bad.ckpt"
    bad.write_bytes(
        {
            "cut": data[: len(data) // 2],
            "flipped": b"X" * 64 + data[64:-64] + b"X" * 64,
            "text": b"hello",
            "empty": b"",
        }[damage]
    )
    message = fails(*simclr, f"--ckpt_path={bad}")
    assert "bad.ckpt" in message
    assert "checkpoint" in message


def test_a_checkpoint_that_would_run_code(fails: Fails, simclr: list[str], tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"state_dict": Evil()}, tmp_path / "evil.ckpt")
    assert "evil.ckpt" in fails(*simclr, f"--ckpt_path={tmp_path / 'evil.ckpt'}")
    assert not (tmp_path / "ran").exists()


def test_an_encoder_folder_is_no_checkpoint(fails: Fails, simclr: list[str], pretrained: dict[str, Path]) -> None:
    message = fails(*simclr, f"--ckpt_path={pretrained['image']}/encoder")
    assert "--model.encoder" in message
    assert "encoder folder" in message


def test_a_checkpoint_of_another_model(fails: Fails, simclr: list[str], pretrained: dict[str, Path]) -> None:
    message = fails(*simclr, f"--ckpt_path={checkpoint(pretrained['text'])}")
    assert "last.ckpt" in message


@pytest.mark.parametrize("damage", ["config", "json", "weights", "cut", "class", "missing"])
def test_a_damaged_encoder_folder(
    damage: str, fails: Fails, pretrained: dict[str, Path], sources: dict[str, str], tmp_path: Path
) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(pretrained["image"] / "encoder", bad)
    weights, config = bad / "model.safetensors", bad / "config.json"
    if damage == "config":
        config.unlink()
    elif damage == "json":
        config.write_text(config.read_text()[:-5])
    elif damage == "weights":
        weights.unlink()
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "class":
        config.write_text(config.read_text().replace("ImageEncoder", "ImageEncodr"))
        write_manifest(bad)
    else:
        shutil.rmtree(bad)
    probe = ["fit", "--model=Finetune", f"--model.encoder={bad}", "--model.task=Classify"]
    for message in (
        fails(*probe, *DATA["image"], f"--data.source={sources['image']}", f"--out={tmp_path / 'run'}", *QUICK),
        fails("embed", str(bad), sources["image"], f"--out={tmp_path / 'e.parquet'}"),
    ):
        assert ("ImageEncodr" if damage == "class" else "bad") in message
    assert not (tmp_path / "run").exists()


def test_scoring_needs_the_weights_of_a_run(fails: Fails, pretrained: dict[str, Path], sources: dict[str, str]) -> None:
    probe = ["--model=Finetune", f"--model.encoder={pretrained['image']}/encoder", "--model.task=Classify"]
    for command in ("validate", "test", "predict"):
        message = fails(command, *probe, *DATA["image"], f"--data.source={sources['image']}", *QUICK)
        assert "--ckpt_path" in message


# Run folders ----------------------------------------------------------------------------------------------------------


def test_a_folder_that_holds_a_run_is_refused(fails: Fails, simclr: list[str], pretrained: dict[str, Path]) -> None:
    run = pretrained["image"]
    before = (run / "encoder/model.safetensors").read_bytes()
    message = fails(*simclr, f"--out={run}")
    assert str(run) in message
    assert "--overwrite" in message
    assert (run / "encoder/model.safetensors").read_bytes() == before


def test_unless_told_to_overwrite(simclr: list[str], tmp_path: Path) -> None:
    assert main(simclr) == 0
    assert main([*simclr, "--overwrite=true"]) == 0
    assert (tmp_path / "run/encoder/config.json").exists()


def test_a_full_disk_leaves_nothing_half_written(
    fails: Fails, simclr: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(weights: dict, path: str, metadata: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ssl_suite.core.weights.save_file", full)
    message = fails(*simclr)
    assert "disk is full" in message
    assert str(tmp_path / "run/encoder") in message
    assert not (tmp_path / "run/encoder").exists()
    assert not [p for p in (tmp_path / "run").iterdir() if p.name.startswith(".")]


def test_a_folder_that_cannot_be_made(fails: Fails, simclr: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "file" in fails(*simclr, f"--out={tmp_path / 'file/run'}")


def test_testing_after_fit_is_for_tasks(fails: Fails, simclr: list[str], tmp_path: Path) -> None:
    assert "--test_after" in fails(*simclr, "--test_after=true")
    assert not (tmp_path / "run/encoder").exists()
