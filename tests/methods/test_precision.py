"""bf16 autocast, on a CPU: losses near those of fp32, weights and optimizer states in fp32, gradients clipped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tiny import QUIET, tiny_speech_encoder, tiny_text_encoder
from upstreams import UPSTREAMS

from ssl_suite.core.optim import Optim
from ssl_suite.data.speech.speech import Speech
from ssl_suite.data.text.text import Text
from ssl_suite.methods.speech.apc import APC
from ssl_suite.methods.text.causal_lm import CausalLM
from ssl_suite.methods.text.masked_lm import MaskedLM

NAMES = ["MaskedLM", "CausalLM", "APC", *UPSTREAMS]


def fit(name: str, precision: Any, folder: Path, sources: dict[str, str]) -> tuple[pl.Trainer, float]:
    torch.manual_seed(0)
    os.environ["PL_GLOBAL_SEED"] = "0"
    if name == "APC":
        model: Any = APC(tiny_speech_encoder(trunk="transformer", causal=True, dropout=0.0), optim=Optim("adam", 1e-3))
        data: Any = Speech(sources["speech"], batch_size=4)
    elif name in UPSTREAMS:
        model, data = UPSTREAMS[name](), Speech(sources["speech"], units=sources["units"], batch_size=4)
    else:
        causal = name == "CausalLM"
        encoder = tiny_text_encoder(causal=causal, dropout=0.0)
        model = CausalLM(encoder, Optim("muon", 1e-3)) if causal else MaskedLM(encoder, optim=Optim("adamw", 1e-3))
        data = Text(sources[name], tokenizer="byte", max_length=32, batch_size=4)
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, max_steps=2, precision=precision, gradient_clip_val=1.0, default_root_dir=folder,
        enable_checkpointing=False, limit_val_batches=0,
        **QUIET,
    )  # fmt: skip
    trainer.fit(model, data)
    return trainer, float(trainer.callback_metrics["train/loss"])


@pytest.mark.parametrize("name", NAMES)
def test_bf16_trains_as_fp32(name: str, text_file: str, speech_folder: str, units_folder: str, tmp_path: Path) -> None:
    sources = {"MaskedLM": text_file, "CausalLM": text_file, "speech": speech_folder, "units": units_folder}
    _, exact = fit(name, "32-true", tmp_path / "fp32", sources)
    trainer, loss = fit(name, "bf16-mixed", tmp_path / "bf16", sources)
    assert loss == pytest.approx(exact, rel=0.02)
    assert loss != exact
    state = trainer.optimizers[0].state.values()
    tensors = [*trainer.lightning_module.parameters(), *(t for s in state for t in s.values() if torch.is_tensor(t))]
    assert {t.dtype for t in tensors} == {torch.float32}
