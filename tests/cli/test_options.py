"""Bad options, a row each: exit code 2, the one sentence it must give, before training, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cli_recipes import DATA, ENCODERS, QUICK

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


def number(name: str, value: str, kind: str, option: str = "") -> tuple[str, str]:
    """An option out of its range, and its sentence."""
    return f"--{option or name}={value}", f"{name} is {value.lstrip('.')}, but must be {kind}."


WHOLE = "a whole number at least"

OPTIM = [
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
    ("BYOL", "--model.momentum=[1.5, 1]", "momentum[0] is 1.5, but must be a number at least 0 and at most 1."),
    ("BYOL", "--model.momentum=[0.9, -1]", "momentum[1] is -1.0, but must be a number at least 0 and at most 1."),
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


DATA_OPTIONS = [
    ("SimCLR", *number("data.image_size", "0", f"{WHOLE} 1")),
    ("SimCLR", *number("data.batch_size", "0", f"{WHOLE} 1")),
    ("SimCLR", *number("data.batch_size", "-1", f"{WHOLE} 1")),
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
