"""Bad options, a row each: exit code 2, the one sentence it must give, before training, and nothing is written."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import pytorch_lightning as pl
import yaml
from cli_recipes import DATA, ENCODERS, QUICK

from ssl_suite.cli import main

Fails = Callable[..., str]

METHODS = {
    "SimCLR": "image", "BYOL": "image", "MaskedLM": "text", "Electra": "text", "CausalLM": "text", "APC": "speech",
}  # fmt: skip


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "run"


def pretrain(method: str, sources: dict[str, str], out: Path) -> list[str]:
    modality = METHODS[method]
    encoder = ENCODERS[modality]
    if method == "CausalLM":
        encoder = encoder.replace("vocab_size", "causal: true, vocab_size")
    model = [f"--model={method}", f"--model.encoder={encoder}", *DATA[modality]]
    return ["fit", *model, f"--data.source={sources[modality]}", *QUICK, f"--out={out}"]


def nothing_in(out: Path) -> bool:
    return not [path for path in out.rglob("*") if path.is_file()]


def number(name: str, value: str, kind: str, option: str = "") -> tuple[str, str]:
    """An option out of its range, and its sentence."""
    return f"--{option or name}={value}", f"{name} is {value.lstrip('.')}, but must be {kind}."


WHOLE = "a whole number at least"

OPTIM = [
    ("--model.optim.warmup=3", "SimCLR has no option 'optim.warmup'. Did you mean optim.warmup_steps?"),
    number("optim.lr", "-0.1", "a number at least 0", "model.optim.lr"),
    number("optim.weight_decay", "-1.0", "a number at least 0", "model.optim.weight_decay"),
    number("optim.momentum", "1.0", "a number at least 0 and below 1", "model.optim.momentum"),
    number("optim.momentum", "-0.5", "a number at least 0 and below 1", "model.optim.momentum"),
    ("--model.optim.betas=[1.5, 0.9]", "optim.betas[0] is 1.5, but must be a number at least 0 and below 1."),
    ("--model.optim.betas=[0.9, -0.1]", "optim.betas[1] is -0.1, but must be a number at least 0 and below 1."),
    number("optim.eps", "-1e-08", "a number above 0", "model.optim.eps"),
    number("optim.warmup_epochs", "-1.0", "a number at least 0", "model.optim.warmup_epochs"),
    number("optim.warmup_steps", "-5", f"{WHOLE} 0", "model.optim.warmup_steps"),
    number("optim.warmup_ratio", "1.5", "a number at least 0 and at most 1", "model.optim.warmup_ratio"),
    number("optim.final_lr", "-0.1", "a number at least 0 and at most 1", "model.optim.final_lr"),
    number("optim.layer_decay", "0.0", "a number above 0 and at most 1", "model.optim.layer_decay"),
    number("optim.layer_decay", "1.5", "a number above 0 and at most 1", "model.optim.layer_decay"),
    number("optim.lr", ".nan", "a number at least 0", "model.optim.lr"),
    number("optim.lr", ".inf", "a number at least 0", "model.optim.lr"),
]


@pytest.mark.parametrize(("option", "sentence"), OPTIM)
def test_optim(option: str, sentence: str, fails: Fails, sources: dict[str, str], out: Path) -> None:
    assert fails(*pretrain("SimCLR", sources, out), option) == sentence
    assert not out.exists()


METHOD = [
    ("SimCLR", *number("temperature", "-1.0", "a number above 0", "model.temperature")),
    ("SimCLR", *number("temperature", "0.0", "a number above 0", "model.temperature")),
    ("SimCLR", *number("projection_dim", "0", f"{WHOLE} 1", "model.projection_dim")),
    ("BYOL", *number("hidden_dim", "-4", f"{WHOLE} 1", "model.hidden_dim")),
    ("BYOL", *number("projection_dim", "0", f"{WHOLE} 1", "model.projection_dim")),
    ("BYOL", "--model.momentum=[1.5, 1]", "momentum.start is 1.5, but must be a number at least 0 and at most 1."),
    ("BYOL", "--model.momentum=[0.9, -1]", "momentum.end is -1.0, but must be a number at least 0 and at most 1."),
    ("APC", *number("steps", "0", f"{WHOLE} 1", "model.steps")),
    ("APC", *number("steps", "-3", f"{WHOLE} 1", "model.steps")),
    ("MaskedLM", *number("rate", "1.5", "a number above 0 and at most 1", "model.rate")),
    ("MaskedLM", *number("rate", "0.0", "a number above 0 and at most 1", "model.rate")),
    ("MaskedLM", *number("final_rate", "-0.1", "a number above 0 and at most 1", "model.final_rate")),
    ("MaskedLM", *number("val_rate", "2.0", "a number above 0 and at most 1", "model.val_rate")),
    ("MaskedLM", *number("mask.p", "0.0", "a number above 0 and below 1", "model.mask.p")),
    ("MaskedLM", *number("mask.longest", "0", f"{WHOLE} 1", "model.mask.longest")),
    ("Electra", *number("rate", "0.0", "a number above 0 and at most 1", "model.rate")),
    ("Electra", *number("generator_size", "-0.25", "a number above 0", "model.generator_size")),
    ("Electra", *number("weight", "-50.0", "a number at least 0", "model.weight")),
]


@pytest.mark.parametrize(("method", "option", "sentence"), METHOD)
def test_methods(method: str, option: str, sentence: str, fails: Fails, sources: dict[str, str], out: Path) -> None:
    assert fails(*pretrain(method, sources, out), option) == sentence
    assert not out.exists()


def test_more_steps_ahead_than_there_is_speech(fails: Fails, sources: dict[str, str], out: Path) -> None:
    """Nothing would be predicted: a loss of 0 and an untrained encoder."""
    message = fails(*pretrain("APC", sources, out), "--model.steps=1000000")
    assert message.startswith(f"steps is 1000000, but the longest utterance of {sources['speech']} has ")
    assert nothing_in(out)


DATA_OPTIONS = [
    ("SimCLR", *number("data.image_size", "1", f"{WHOLE} 2")),
    ("SimCLR", *number("data.batch_size", "0", f"{WHOLE} 1")),
    ("SimCLR", *number("data.batch_size", "-1", f"{WHOLE} 1")),
    ("SimCLR", "--data.batch_size=1", "SimCLR contrasts the images of a batch: data.batch_size must be at least 2."),
    ("SimCLR", *number("data.eval_batch_size", "-3", f"{WHOLE} 1")),
    ("SimCLR", *number("data.eval_batch_size", "0", f"{WHOLE} 1")),
    ("SimCLR", *number("data.num_workers", "-1", f"{WHOLE} 0")),
    ("SimCLR", *number("data.labels", "0", f"{WHOLE} 1")),
    ("SimCLR", *number("data.labels", "-1", f"{WHOLE} 1")),
    ("SimCLR", "--data.view={crop: [.5, .2]}", "view.crop[1] is 0.2, but must be a number at least 0.5 and at most 1."),
    ("SimCLR", "--data.view={flip: 1.5}", "view.flip is 1.5, but must be a number at least 0 and at most 1."),
    ("MaskedLM", *number("data.max_length", "0", f"{WHOLE} 2")),
    ("MaskedLM", *number("data.max_length", "1", f"{WHOLE} 2")),
    ("MaskedLM", *number("data.vocab_size", "0", f"{WHOLE} 1")),
    ("APC", *number("data.max_seconds", "0.0", "a number above 0")),
    ("APC", *number("data.max_seconds", "-5.0", "a number above 0")),
    ("APC", *number("data.batch_seconds", "-1.0", "a number above 0")),
]  # fmt: skip


@pytest.mark.parametrize(("method", "option", "sentence"), DATA_OPTIONS)
def test_data(method: str, option: str, sentence: str, fails: Fails, sources: dict[str, str], out: Path) -> None:
    assert fails(*pretrain(method, sources, out), option) == sentence
    assert not out.exists()


TRAINER = [
    number("trainer.max_epochs", "-2", f"{WHOLE} -1"),
    number("trainer.max_steps", "-5", f"{WHOLE} -1"),
    ("--trainer.max_epochs=-1", "trainer.max_epochs is -1, without end"),
    ("--trainer.max_epochs=0", "trainer.max_epochs is 0: nothing would be trained"),
    ("--trainer.max_steps=0", "trainer.max_steps is 0: nothing would be trained"),
    ("--trainer.limit_train_batches=0", "trainer.limit_train_batches is 0: nothing would be trained"),
    number("trainer.limit_train_batches", "-1", "a number at least 0"),
    number("trainer.limit_train_batches", "1.5", "a number at least 0 and at most 1"),
    number("trainer.limit_val_batches", "-3", "a number at least 0"),
    number("trainer.limit_test_batches", "2.5", "a number at least 0 and at most 1"),
    number("trainer.overfit_batches", "-1", "a number at least 0"),
    number("trainer.accumulate_grad_batches", "0", f"{WHOLE} 1"),
    number("trainer.accumulate_grad_batches", "-1", f"{WHOLE} 1"),
    number("trainer.val_check_interval", "0", "a number above 0"),
    number("trainer.val_check_interval", "1.5", "a number above 0 and at most 1"),
    ("--trainer.val_check_interval=1000", "`val_check_interval` (1000) must be less than or equal to the number"),
    number("trainer.check_val_every_n_epoch", "0", f"{WHOLE} 1"),
    number("trainer.log_every_n_steps", "-1", f"{WHOLE} 0"),
    number("trainer.num_sanity_val_steps", "-2", f"{WHOLE} -1"),
    number("trainer.gradient_clip_val", "-1", "a number at least 0"),
    ("--trainer.gradient_clip_algorithm=foo", "Allowed algorithms: ['value', 'norm']"),
    number("trainer.fast_dev_run", "-1", f"{WHOLE} 0"),
    number("trainer.num_nodes", "0", f"{WHOLE} 1"),
    number("trainer.devices", "0", f"{WHOLE} 1"),
    ("--trainer.devices=999", "trainer.devices is 999, but this machine has"),
    ("--trainer.devices=x", "`devices` selected with `CPUAccelerator` should be an int > 0."),
    ("--trainer.accelerator=quantum", "trainer.accelerator: there is no 'quantum'. There is: auto, cpu, cuda, gpu,"),
    ("--trainer.strategy=ddpp", "trainer.strategy: there is no 'ddpp'. Did you mean ddp?"),
    ("--trainer.strategy=", "trainer.strategy: there is no ''."),
    ("--trainer.precision=17", "trainer.precision is '17', but must be 64, 32, 16, transformer-engine,"),
    ("--trainer.precision=bf17-mixed", "trainer.precision is 'bf17-mixed', but must be 64, 32, 16,"),
    ("--trainer.deterministic=foo", "trainer.deterministic is 'foo', but must be bool or warn."),
    ("--trainer.max_time=soon", "is not a valid duration. Expected a string in the format DD:HH:MM:SS."),
    ("--trainer.profiler=foo", "it can only be one of ['simple', 'advanced', 'pytorch', 'xla']"),
    ("--trainer.callbacks=KNM", "There is no class 'KNM'. Did you mean KNN?"),
    ("--trainer.callbacks={class_path: KNN, init_args: {k: 0}}", "KNN.k is 0, but must be a whole number at least 1."),
    ("--trainer.callbacks={class_path: KNN, init_args: {every: 0}}", "KNN.every is 0, but must be a whole number"),
    ("--trainer.callbacks={class_path: OnlineProbe, init_args: {lr: -1}}", "OnlineProbe.lr is -1.0, but must be a"),
    ("--trainer=3", "trainer: Unable to load config '3'"),
]  # fmt: skip


@pytest.mark.parametrize(("option", "sentence"), TRAINER)
def test_trainer(option: str, sentence: str, fails: Fails, sources: dict[str, str], out: Path) -> None:
    assert sentence in fails(*pretrain("SimCLR", sources, out), option)
    assert nothing_in(out)


def test_a_gpu_that_is_not_there(
    fails: Fails, sources: dict[str, str], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("cuda", "backends.mps"):
        monkeypatch.setattr(f"torch.{part}.is_available", lambda: False)
    message = fails(*pretrain("SimCLR", sources, out), "--trainer.accelerator=gpu")
    assert message == "trainer.accelerator is gpu, but torch sees no GPU; take --trainer.accelerator cpu."
    assert not out.exists()


RUN = [
    number("seed_everything", "-1", f"{WHOLE} 0 and at most 4294967295"),
    number("seed_everything", "99999999999", f"{WHOLE} 0 and at most 4294967295"),
    ("--seed_everything=x", "seed_everything is 'x', but must be bool or int."),
    ("--seed_everything=false", "seed_everything is False, but must be a whole number"),
    ("--out=", "--out is empty; name a folder, or leave the option out."),
    ("--results=", "--results is empty; name a file, or leave the option out."),
    ("--results={folder}", "{folder} is a folder; name a file in it: {folder}/results.sqlite."),
    ("--results={file}", "{file} is no results file; name another one, this one stays as it is."),
    ("--results={file}/results.sqlite", "{file} is a file; name a folder."),
    ("--out={file}/run", "{file} is a file; name a folder."),
    ("--task_name=", "--task_name is empty; name one, or leave the option out."),
    ("--role=foo", "--role is 'foo', but must be one of simple, random, ssl, supervised."),
    ("--split=test", "--split is for predict; fit reads its own."),
    ("--ckpt_path=", "--ckpt_path is empty; name one, or leave the option out."),
    ("--ckpt_path={folder}", "{folder} is a folder; name a checkpoint in it."),
    ("--matmul=foo", "matmul is 'foo', but must be one of highest, high, medium."),
    ("--compile=foo", "compile is 'foo', but must be bool."),
    ("--test_after=true", "--test_after is for Finetune; a method has no test split."),
    ("--data.source=", "data.source is empty; name one, or leave the option out."),
    ("--data.target=", "data.target is empty; name one, or leave the option out."),
    ("--data.column=", "has no column ''. There is: id, image, label."),
    ("--data.where=3", "Images: where is '3', but must be dict[str, str]."),
    ("--data.where={{label: 99}}", "Images: where is \"{{'label': 99}}\", but must be dict[str, str]."),
    ("--data.labels=3.5", "Images: labels is '3.5', but must be int."),
    ("--data.in_memory=foo", "Images: in_memory is 'foo', but must be bool."),
    ("--data.augment=foo", "Images: augment is 'foo', but must be one of none, crop, randaugment."),
    ("--data.on_error=foo", "Images: on_error is 'foo', but must be one of raise, skip."),
    ("--data.view={{flop: 1}}", "View has no option 'flop'. Did you mean flip?"),
    ("--data.view=3", "There is no class '3'. `ssl-suite list` shows what there is."),
    ("--data=", "data is '', but must be the name of a class (`ssl-suite list`), or class_path and init_args."),
    ("--model=", "model is '', but must be the name of a class (`ssl-suite list`), or class_path and init_args."),
    ("--model.optim=3", "SimCLR: optim: Unable to load config '3'"),
    ("--model.optim.betas=[0.9]", "SimCLR: optim.betas is '[0.9]', but must be tuple with 2 elements."),
    ("--model.encoder=3", "No encoder folder '3', and it is no encoder class and no URI"),
    ("--model.encoder={{class_path: ImageEncoder, init_args: {{name: resnet19}}}}", "Did you mean resnet18?"),
    ("--model.encoder={{class_path: ImageEncoder, init_args: {{image_size: x}}}}", "image_size is 'x', but must be"),
    ("--model.encoder={{class_path: ImageEncoder, init_args: {{nam: x}}}}", "ImageEncoder has no option 'nam'."),
    ("--model.encoder.width=x", "ImageEncoder: width is 'x', but must be int."),
    ("--foo=1", "There is no option --foo."),
    ("foo", "There is no foo."),
]  # fmt: skip


@pytest.mark.parametrize(("option", "sentence"), RUN)
def test_run(option: str, sentence: str, fails: Fails, sources: dict[str, str], out: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("words")
    places = {"folder": tmp_path / "folder", "file": tmp_path / "file"}
    assert sentence.format(**places) in fails(*pretrain("SimCLR", sources, out), option.format(**places))
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["file"]


TASKS = [
    ("Classify", *number("task.hidden", "-1", f"{WHOLE} 0", "model.task.hidden")),
    ("Classify", *number("task.dropout", "1.0", "a number at least 0 and below 1", "model.task.dropout")),
    ("Classify", *number("task.dropout", "-0.1", "a number at least 0 and below 1", "model.task.dropout")),
    ("Classify", "--model.task.metrics=[acuracy]", "metrics"),
    ("Regress", *number("task.dropout", "1.5", "a number at least 0 and below 1", "model.task.dropout")),
    ("Tag", *number("task.hidden", "-8", f"{WHOLE} 0", "model.task.hidden")),
    ("CTC", *number("task.hidden", "-8", f"{WHOLE} 0", "model.task.hidden")),
    ("Span", *number("task.max_tokens", "0", f"{WHOLE} 1", "model.task.max_tokens")),
    ("Span", *number("task.n_best", "0", f"{WHOLE} 1", "model.task.n_best")),
    ("Classify", "--model.readout=lats", "No readout 'lats'. Did you mean last?"),
    ("Classify", "--model.readout=", "No readout ''. There is: cls, last, layer:K, mean, weighted_sum."),
    ("Classify", "--model.readout=layer:9", "Readout 'layer:9': this encoder has layers 0 to 4."),
    ("Tag", "--model.readout=mean", "Readout 'mean' has no time axis"),
    ("Classify", "--model.mode=probing", "Finetune: mode is 'probing', but must be one of probe, finetune."),
    ("Clasify", "--data.labels=4", "There is no class 'Clasify'. Did you mean Classify?"),
    ("Classify", "--data.labels=100000", "labels: 100000 asked, "),
]  # fmt: skip


@pytest.mark.parametrize(("task", "option", "sentence"), TASKS)
def test_tasks(task: str, option: str, sentence: str, fails: Fails, sources: dict[str, str], out: Path) -> None:
    model = ["--model=Finetune", f"--model.encoder={ENCODERS['image']}", f"--model.task={task}"]
    data = [*DATA["image"], f"--data.source={sources['image']}"]
    assert sentence in fails("fit", *model, *data, *QUICK, f"--out={out}", option)
    assert nothing_in(out)


def test_a_method_has_no_test_split(fails: Fails, sources: dict[str, str], out: Path) -> None:
    message = fails("test", *pretrain("SimCLR", sources, out)[1:])
    assert message.startswith("SimCLR pretrains, which no test split scores: judge its encoder by fit --model Finetune")
    assert not out.exists()


def test_a_figure_that_nobody_logs_is_told_before_training(fails: Fails, sources: dict[str, str], out: Path) -> None:
    for name, hint in (("val/los", "Did you mean val/loss?"), ("accuracy", "There is: val/loss.")):
        for callback in ("EarlyStopping", "ModelCheckpoint"):
            option = f"--trainer.callbacks={{class_path: {callback}, init_args: {{monitor: {name}}}}}"
            message = fails(*pretrain("SimCLR", sources, out), option)
            assert message == f"{callback} waits for {name!r}, which is not logged. {hint}"
    assert nothing_in(out)


@pytest.mark.parametrize("command", ["validate", "predict"])
def test_nothing_is_said_of_weights_that_nobody_trained(
    command: str, fails: Fails, sources: dict[str, str], out: Path
) -> None:
    message = fails(command, *pretrain("SimCLR", sources, out)[1:])
    assert message.startswith(f"{command} needs trained weights: --model.encoder RUN/encoder, or --ckpt_path RUN/")
    assert nothing_in(out)


OTHER_COMMANDS = [
    (["prepare", "tokenizer", "--source=samples:digits", "--out="], "argument --out: is empty; name one"),
    (["prepare", "tokenizer", "--source=", "--out={here}/t"], "data.source is empty; name one, or leave the option"),
    (["prepare", "tokenizer", "--source={text}", "--out={here}/t", "--vocab_size=0"], "vocab_size is 0, but must be"),
    (["prepare", "tokenizer", "--source={text}", "--out={here}/t", "--kind=foo"], "argument --kind: invalid choice"),
    (["prepare", "tokens", "--source={text}", "--vocab_size=-4"], "vocab_size is -4, but must be a whole number"),
    (["prepare", "tokens", "--source={text}", "--tokenizer={here}/nope"], "nope is not a tokenizer file"),
    (["embed", "{encoder}", "{image}", "--out={here}"], "{here} is a folder; name a file to write."),
    (["embed", "{encoder}", "{image}", "--out="], "argument --out: is empty; name one"),
    (["embed", "{encoder}", "{image}", "--out={here}/e", "--batch_size=0"], "batch_size is 0, but must be a whole"),
    (["embed", "{encoder}", "{image}", "--out={here}/e", "--workers=-1"], "workers is -1, but must be a whole"),
    (["embed", "{encoder}", "{image}", "--out={here}/e", "--image_size=0"], "image_size is 0, but must be a whole"),
    (
        ["embed", "{encoder}", "{image}", "--out={here}/e", "--column=x"],
        "has no column 'x'. There is: id, image, label",
    ),
    (["embed", "{encoder}", "{image}", "--out={here}/e", "--readout=layer:7"], "this encoder has layers 0 to 4."),
    (["embed", "{here}", "{image}", "--out={here}/e"], "{here} is not an encoder folder: it has no config.json."),
    (["export", "--encoder={encoder}", "--out={here}/x"], "Only encoders of text and waveforms are written"),
    (["export", "--encoder={encoder}", "--out="], "argument --out: is empty; name one"),
    (["generate", "{encoder}", "Once"], "CausalLM needs a text encoder;"),
    (["bench", "-c", "bench/quickstart", "--set", "foo"], "--set wants NAME=VALUE, not 'foo'."),
    (["bench", "-c", "bench/quickstart", "--seeds", "x"], "argument --seeds: invalid int value: 'x'."),
    (["bench", "-c", "bench/quickstart", "--out="], "argument --out: is empty; name one"),
    (["report", ""], "argument folder: is empty; name one"),
    (["results", "{here}", "--format=xml"], "argument --format: invalid choice: 'xml'"),
    (["config"], "the following arguments are required: recipe."),
    (["list", "methds"], "There is nothing called 'methds' to list. Did you mean methods?"),
]


@pytest.mark.parametrize(("arguments", "sentence"), OTHER_COMMANDS)
def test_other_commands(
    arguments: list[str],
    sentence: str,
    fails: Fails,
    sources: dict[str, str],
    pretrained: dict[str, Path],
    tmp_path: Path,
) -> None:
    places = {"here": tmp_path, "encoder": pretrained["image"] / "encoder", **sources}
    assert sentence.format(**places) in fails(*(a.format(**places) for a in arguments))
    assert list(tmp_path.iterdir()) == []


def encoder(name: str, **options: object) -> str:
    return f"{{class_path: {name}, init_args: {{{', '.join(f'{k}: {v}' for k, v in options.items())}}}}}"


ENCODER_OPTIONS = [
    ("SimCLR", encoder("ImageEncoder", width=0), "width is 0, but must be a whole number at least 1."),
    (
        "SimCLR",
        encoder("ImageEncoder", drop_path=1.5),
        "drop_path is 1.5, but must be a number at least 0 and below 1.",
    ),
    ("SimCLR", encoder("RawPixels", size=0), "size is 0, but must be a whole number at least 1"),
    ("MaskedLM", encoder("TextEncoder", dim=16, heads=3), "heads (3) must divide dim (16)."),
    ("MaskedLM", encoder("TextEncoder", heads=0), "heads is 0, but must be a whole number at least 1."),
    ("MaskedLM", encoder("TextEncoder", dim=-16), "dim is -16, but must be a whole number at least 1."),
    ("MaskedLM", encoder("TextEncoder", layers=100000000), "layers is 100000000, but must be a whole number"),
    ("MaskedLM", encoder("TextEncoder", dropout=1.5), "dropout is 1.5, but must be a number at least 0 and below 1."),
    ("MaskedLM", encoder("TextEncoder", eps=-1), "eps is -1.0, but must be a number above 0."),
    ("MaskedLM", encoder("TextEncoder", positions="x"), "positions is 'x', but must be one of learned, rotary, none."),
    ("MaskedLM", encoder("TextEncoder", causal="maybe"), "causal is 'maybe', but must be bool."),
    ("APC", encoder("SpeechEncoder", mels=0), "mels is 0, but must be a whole number at least 1"),
    ("APC", encoder("SpeechEncoder", layers=0), "layers is 0, but must be a whole number at least 1"),
    ("APC", encoder("SpeechEncoder", trunk="x"), "trunk is 'x', but must be one of gru, transformer."),
]


@pytest.mark.parametrize(("method", "given", "sentence"), ENCODER_OPTIONS)
def test_encoders(method: str, given: str, sentence: str, fails: Fails, sources: dict[str, str], out: Path) -> None:
    assert sentence in fails(*pretrain(method, sources, out), f"--model.encoder={given}")
    assert nothing_in(out)


def test_a_number_of_batches_is_no_share_whatever_was_imported_before(
    sources: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = inspect.unwrap(pl.Trainer.__init__).__annotations__
    for name in ("limit_train_batches", "limit_val_batches", "val_check_interval"):
        monkeypatch.setitem(annotations, name, float | int | None)  # what Optional[Union[float, int]] made of it
    options = ["--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1.0", "--trainer.val_check_interval=20"]
    with pytest.raises(SystemExit):
        main(["fit", "-c", "image/simclr", *options, "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)["trainer"]
    read = [printed[name] for name in ("limit_train_batches", "limit_val_batches", "val_check_interval")]
    assert list(map(repr, read)) == ["1", "1.0", "20"]
