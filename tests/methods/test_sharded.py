"""FSDP2 over two processes learns what one process learns from the whole batch, and leaves the same files behind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from processes import leave, run_processes
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.environments import LightningEnvironment
from tiny import QUIET, tiny_text_encoder
from torch.distributed.tensor import DTensor

from ssl_suite.core.load import load_encoder
from ssl_suite.core.optim import Optim
from ssl_suite.core.sharding import FSDP2
from ssl_suite.data.image.images import Images
from ssl_suite.data.text.text import Text
from ssl_suite.methods.image.byol import BYOL
from ssl_suite.methods.text.causal_lm import CausalLM
from ssl_suite.methods.text.masked_lm import MaskedLM

from test_distributed import Flat  # isort: skip

WORLD, BATCH, STEPS = 2, 4, 3
NAMES = ["MaskedLM", "CausalLM", "BYOL", "Accumulated", "Adafactor"]
ZERO: dict[str, Any] = {"CausalLM": 2, "Accumulated": 1}
"""Stages other than 3."""


def method(name: str, seed: int = 0) -> Any:
    """CausalLM's one block runs twice a step; 261 rows of an embedding do not halve."""
    torch.manual_seed(seed)
    if name in ("MaskedLM", "Accumulated", "Adafactor"):
        bias = name != "Adafactor"  # which makes steps of rounding errors where a gradient is 0, as of keys' biases
        encoder = tiny_text_encoder(vocab_size=261, dropout=0.0, norm="post", bias=bias)
        if name == "Adafactor":  # whose state holds numbers beside tensors
            return MaskedLM(encoder, optim=Optim("adafactor", 1e-2, weight_decay=0.1))
        return MaskedLM(encoder, optim=Optim("adamw", 1e-2, weight_decay=0.1))
    if name == "CausalLM":
        encoder = tiny_text_encoder(vocab_size=261, dropout=0.0, causal=True, shared=True)
        return CausalLM(encoder, Optim("muon", 1e-2, weight_decay=0.1))
    model = BYOL(Flat(8), 16, 8, momentum=(0.5, 0.9), optim=Optim("lars", 20.0, weight_decay=0.1))
    for head in (model.projector, model.predictor, model.teacher_projector):
        head.layers = torch.nn.Sequential(*(m for m in head.layers if not isinstance(m, torch.nn.BatchNorm1d)))
    return model


def fit(name: str, folder: Path, source: str, world: int, resume: bool = False) -> Any:
    """The same batches, whichever way they are divided; ranks but the first start from weights that do not count."""
    os.environ["PL_GLOBAL_SEED"] = "0"
    together = 2 if name == "Accumulated" else 1
    options: dict[str, Any] = {"image_size": 8} if name == "BYOL" else {"tokenizer": "byte", "max_length": 32}
    data = (Images if name == "BYOL" else Text)(source, batch_size=BATCH // world, **options)
    trainer = pl.Trainer(
        accelerator="cpu", devices=world, max_steps=STEPS, default_root_dir=folder, gradient_clip_val=0.5,
        strategy=FSDP2(ZERO.get(name, 3)) if world > 1 else "auto",
        plugins=[LightningEnvironment()] if world > 1 else None, accumulate_grad_batches=together,
        callbacks=[ModelCheckpoint(folder, "step{step}", auto_insert_metric_name=False,
                                   every_n_train_steps=1, save_top_k=-1)],
        num_sanity_val_steps=0, val_check_interval=STEPS * together, limit_val_batches=1,
        **QUIET,
    )  # fmt: skip
    model = method(name, int(os.environ.get("LOCAL_RANK", 0)))
    trainer.fit(model, data, ckpt_path=folder / "step1.ckpt" if resume else None, weights_only=True)
    return model, {k: float(v) for k, v in trainer.callback_metrics.items()}


def worker(rank: int, port: int, folder: str, sources: dict[str, str]) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    found: dict[str, Any] = {}
    for name in NAMES:
        model, figures = fit(name, Path(folder) / name, sources[name], WORLD)
        found[name] = {"figures": figures, "class": type(model).__name__}
        found[name]["sharded"] = all(isinstance(p, DTensor) for p in model.parameters())
        found[name]["share"] = sum(p.to_local().numel() for p in model.parameters())
        again, _ = fit(name, Path(folder) / name, sources[name], WORLD, resume=True)
        pairs = zip(model.parameters(), again.parameters(), strict=True)
        found[name]["resumed"] = max(float((p.to_local() - q.to_local()).abs().sum()) for p, q in pairs)
    torch.save(found, f"{folder}/found{rank}.pt")
    leave()


@pytest.fixture(scope="module")
def sources(text_file: str, image_folder: str) -> dict[str, str]:
    return {
        "MaskedLM": text_file,
        "CausalLM": text_file,
        "BYOL": image_folder,
        "Accumulated": text_file,
        "Adafactor": text_file,
    }


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory, sources: dict[str, str]) -> Path:
    folder = tmp_path_factory.mktemp("fsdp")
    run_processes(worker, WORLD, str(folder), sources, seconds=180)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_two_sharded_processes_learn_what_one_learns(
    name: str, sharded: Path, sources: dict[str, str], tmp_path: Path
) -> None:
    model, _ = fit(name, tmp_path, sources[name], 1)
    found = [torch.load(sharded / f"found{r}.pt", weights_only=True)[name] for r in range(WORLD)]
    total = sum(p.numel() for p in model.parameters())
    assert sum(f["share"] for f in found) == total
    assert all(f["sharded"] and f["class"] == type(model).__name__ and f["resumed"] == 0 for f in found)
    assert found[0]["figures"]["val/loss"] == pytest.approx(found[1]["figures"]["val/loss"])
    mine, theirs = load_encoder(tmp_path / "encoder"), load_encoder(sharded / name / "encoder")
    assert mine.heads.keys() == theirs.heads.keys()
    ours = torch.load(sharded / name / f"step{STEPS}.ckpt", weights_only=True)["state_dict"]
    pairs = [(mine.state_dict(), theirs.state_dict()), (mine.heads, theirs.heads), (model.state_dict(), ours)]
    least = 1e-6 if name == "Adafactor" else 1e-4  # it moves biases that are zero by little
    assert all((p - q).abs().max() > least for p, q in zip(model.parameters(), method(name).parameters(), strict=True))
    for one, two in pairs:
        assert one.keys() == two.keys()
        for key, weight in one.items():
            torch.testing.assert_close(two[key], weight, atol=1e-5, rtol=0, msg=lambda m, k=key: f"{k}: {m}")
