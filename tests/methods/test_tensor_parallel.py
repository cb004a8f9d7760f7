"""Processes that share each matrix learn what one process learns, alone and with FSDP2 over their groups."""

from __future__ import annotations

import json
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

from ssl_suite.core.errors import UserError
from ssl_suite.core.finetune import Finetune
from ssl_suite.core.load import load_encoder
from ssl_suite.core.optim import Optim
from ssl_suite.core.sharding import FSDP2
from ssl_suite.data.text.text import Text
from ssl_suite.methods.image.byol import BYOL
from ssl_suite.methods.text.causal_lm import CausalLM
from ssl_suite.methods.text.masked_lm import MaskedLM
from ssl_suite.tasks.classify import Classify

from test_distributed import Flat  # isort: skip

BATCH, STEPS = 4, 3
NAMES = ["MaskedLM", "CausalLM", "Finetune"]


def method(name: str, dropout: float, seed: int = 0) -> Any:
    """Post-norm blocks and a bias of the words; pre-norm, rotary and gated ones, updated by Muon."""
    torch.manual_seed(seed)
    if name == "MaskedLM":
        encoder = tiny_text_encoder(vocab_size=264, dropout=dropout, norm="post", embedding_dim=8)
        return MaskedLM(encoder, optim=Optim("adamw", 1e-2, weight_decay=0.1))
    encoder = tiny_text_encoder(
        vocab_size=264, dropout=dropout, causal=True, positions="rotary", activation="swiglu", ffn=24
    )
    if name == "Finetune":  # an encoder in parts under a head that every process has whole
        optim = Optim("adamw", 1e-2, weight_decay=0.1, layer_decay=0.8)
        return Finetune(encoder, Classify(), "weighted_sum", "finetune", optim=optim)
    return CausalLM(encoder, Optim("muon", 1e-2, weight_decay=0.1))


def labelled(source: str) -> str:
    """The lines of a file, and whether each is about a dog."""
    path = Path(source).with_name("labelled.jsonl")
    if not path.exists():
        lines = Path(source).read_text().splitlines()
        path.write_text("\n".join(json.dumps({"text": line, "label": str("dog" in line)}) for line in lines))
    return str(path)


def dropout(data: int) -> float:
    """Ranks that read the same rows draw alike, and as one process does; those that read others do not."""
    return 0.0 if data > 1 else 0.1


class Losses(pl.Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append(float(outputs["loss"]))  # its share, where batches are accumulated


def fit(
    name: str,
    folder: Path,
    source: str,
    dropout: float,
    data: int = 1,
    tensor: int = 1,
    resume: bool = False,
    accumulated: int = 1,
) -> Any:
    """Ranks but the first start from weights that do not count."""
    os.environ["PL_GLOBAL_SEED"] = "0"
    world, losses = data * tensor, Losses()
    options: dict[str, Any] = {"batch_size": BATCH // data // accumulated, "tokenizer": "byte", "max_length": 32}
    module = Text(labelled(source) if name == "Finetune" else source, **options)
    trainer = pl.Trainer(
        accelerator="cpu", devices=world, max_steps=STEPS, default_root_dir=folder, gradient_clip_val=0.5,
        strategy=FSDP2(tensor_parallel=tensor) if world > 1 else "auto",
        plugins=[LightningEnvironment()] if world > 1 else None,
        callbacks=[losses, ModelCheckpoint(folder, "step{step}", auto_insert_metric_name=False,
                                           every_n_train_steps=1, save_top_k=-1)],
        num_sanity_val_steps=0, val_check_interval=STEPS * accumulated, accumulate_grad_batches=accumulated,
        **QUIET,
    )  # fmt: skip
    model = method(name, dropout, int(os.environ.get("LOCAL_RANK", 0)))
    torch.manual_seed(0)  # as several processes begin again, before a head is drawn
    trainer.fit(model, module, ckpt_path=folder / "step1.ckpt" if resume else None, weights_only=True)
    return model, losses.seen, float(trainer.callback_metrics["val/loss"])


def worker(rank: int, port: int, folder: str, source: str, data: int, tensor: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    found: dict[str, Any] = {}
    for name in NAMES:
        model, losses, validation = fit(name, Path(folder) / name, source, dropout(data), data, tensor)
        matrices = {n: p.to_local().numel() for n, p in model.named_parameters() if n.endswith("qkv.weight")}
        found[name] = {"losses": losses, "val": validation, "matrices": matrices}
        again, _, _ = fit(name, Path(folder) / name, source, dropout(data), data, tensor, resume=True)
        pairs = zip(model.parameters(), again.parameters(), strict=True)
        found[name]["resumed"] = max(float((p.to_local() - q.to_local()).abs().sum()) for p, q in pairs)
        found[name]["cut"] = all(isinstance(p, DTensor) for p in model.parameters())
    torch.save(found, f"{folder}/found{rank}.pt")
    leave()


@pytest.fixture(scope="module", params=[(1, 2), (2, 2)], ids=["tensor", "data-tensor"])
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, text_file: str
) -> tuple[Path, int, int]:
    data, tensor = request.param
    folder = tmp_path_factory.mktemp("tensor")
    labelled(text_file)  # written before several processes ask for it
    run_processes(worker, data * tensor, str(folder), text_file, data, tensor, seconds=400)
    return folder, data, tensor


@pytest.mark.parametrize("name", NAMES)
def test_processes_that_share_matrices_learn_what_one_learns(
    name: str, shared: tuple[Path, int, int], text_file: str, tmp_path: Path
) -> None:
    folder, data, tensor = shared
    parts = data if name == "Finetune" else 1  # a batch of four similar lengths is not two of two
    model, losses, validation = fit(name, tmp_path, text_file, dropout(data), accumulated=parts)
    losses = torch.tensor(losses).view(-1, parts).sum(1)
    found = [torch.load(folder / f"found{r}.pt", weights_only=True)[name] for r in range(data * tensor)]
    assert all(f["cut"] and f["resumed"] == 0 for f in found)
    assert all(n == 3 * 16 * 16 // (data * tensor) for f in found for n in f["matrices"].values())
    assert [f["losses"] for f in found[::tensor]] == [f["losses"] for f in found[1::tensor]]
    curve = torch.tensor([f["losses"] for f in found[::tensor]]).mean(0)  # each rank's is its share of the whole
    torch.testing.assert_close(curve, losses, atol=1e-5, rtol=0)
    assert found[0]["val"] == pytest.approx(validation, abs=1e-5)
    mine, theirs = (load_encoder(at / f"step{STEPS}.ckpt") for at in (tmp_path, folder / name))
    ours = torch.load(folder / name / f"step{STEPS}.ckpt", weights_only=True)["state_dict"]
    for one, two in [
        (mine.state_dict(), theirs.state_dict()),
        (mine.heads, theirs.heads),
        (model.state_dict(), ours),
    ]:
        assert one.keys() == two.keys()
        for key, weight in one.items():
            torch.testing.assert_close(two[key], weight, atol=1e-5, rtol=0, msg=lambda m, k=key: f"{k}: {m}")


def test_what_cannot_be_cut_says_so() -> None:
    encoder = tiny_text_encoder(vocab_size=264)
    model = MaskedLM(encoder)
    assert model.tensor_plan(2).keys() >= {"encoder.tokens", "encoder.trunk.blocks.*.attention.qkv"}
    with pytest.raises(UserError, match=r"tensor_parallel 4 must divide the encoder's heads, which is 2\."):
        model.tensor_plan(4)
    with pytest.raises(UserError, match=r"tensor_parallel 2 must divide the encoder's vocab_size, which is 261; it"):
        MaskedLM(tiny_text_encoder(vocab_size=261)).tensor_plan(2)
    with pytest.raises(UserError, match=r"BYOL cannot be cut over a tensor-parallel group; take configs/trainer/fsdp"):
        BYOL(Flat(8), 16, 8).tensor_plan(2)
    with pytest.raises(UserError, match=r"zero is 4"):
        FSDP2(zero=4)  # type: ignore[arg-type]
