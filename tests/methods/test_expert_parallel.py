"""Processes that hold different experts learn what one process that holds all of them learns."""

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
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from ssl_suite.core.errors import UserError
from ssl_suite.core.expert_parallel import ExpertLayer
from ssl_suite.core.load import load_encoder
from ssl_suite.core.optim import Optim
from ssl_suite.core.plan import memory, on_meta, row_flops, sizes
from ssl_suite.core.sharding import FSDP2, expert_layers
from ssl_suite.core.tensor_parallel import run_on_parts
from ssl_suite.core.term import Term
from ssl_suite.data.text.text import Text
from ssl_suite.encoders.experts import Experts
from ssl_suite.encoders.trunk import TrunkConfig
from ssl_suite.methods.text.masked_lm import MaskedLM

from test_tensor_parallel import Losses  # isort: skip

WORLD, BATCH, STEPS, EXPERTS = 2, 4, 3, 4
CASES = {"most on one process": 5.0, "all on one process": 50.0}
"""How far the router leans towards the first two experts, which are the first process'."""


def layer(lean: float) -> Experts:
    torch.manual_seed(1)
    c = TrunkConfig(8, 1, 2, ffn=16, experts=EXPERTS, experts_every=1, capacity=1.5, router_z=0.1, router_jitter=0.0)
    made = Experts(c)
    for p in made.parameters():
        nn.init.normal_(p, std=0.5)
    made.router.weight.data[:2, 0] += lean
    return made


def tokens() -> tuple[Tensor, Tensor]:
    """Two rows, one for each process; the second ends in padding."""
    torch.manual_seed(2)
    x, real = torch.randn(WORLD, 40, 8), torch.ones(WORLD, 40, dtype=torch.bool)
    x[..., 0] = x[..., 0].abs()
    real[1, 30:] = False
    return x, real


def learn(experts: Experts, x: Tensor, real: Tensor, processes: int = 1) -> tuple[dict[str, Any], Tensor]:
    """Forward and backward; where processes share the rows, each has its own share of the loss times their number."""
    x, losses = x.clone().requires_grad_(), dict[str, Term]()
    y = experts(x, real, losses)
    loss = processes * (y.sin() * real[..., None]).sum() / 70
    (loss + sum(term.mean * term.scale for term in losses.values())).backward()
    assert x.grad is not None
    return {name: float(term.mean.detach()) for name, term in losses.items()} | {"y": y.detach()}, x.grad / processes


def fit(folder: Path, source: str, world: int, resume: bool = False) -> Any:
    """Ranks but the first start from weights that do not count; the router reads its input as it is."""
    os.environ["PL_GLOBAL_SEED"] = "0"
    losses = Losses()
    trainer = pl.Trainer(
        accelerator="cpu", devices=world, max_steps=STEPS, default_root_dir=folder, gradient_clip_val=0.5,
        strategy=FSDP2(expert_parallel=True) if world > 1 else "auto",
        plugins=[LightningEnvironment()] if world > 1 else None,
        callbacks=[losses, ModelCheckpoint(folder, "step{step}", auto_insert_metric_name=False,
                                           every_n_train_steps=1, save_top_k=-1)],
        num_sanity_val_steps=0, val_check_interval=STEPS, limit_val_batches=1,
        **QUIET,
    )  # fmt: skip
    model = method(int(os.environ.get("LOCAL_RANK", 0)))
    data = Text(source, batch_size=BATCH // world, tokenizer="byte", max_length=32)
    trainer.fit(model, data, ckpt_path=folder / "step1.ckpt" if resume else None, weights_only=True)
    return model, losses.seen, float(trainer.callback_metrics["val/loss"])


def method(seed: int = 0) -> MaskedLM:
    torch.manual_seed(seed)
    options = {"vocab_size": 264, "dropout": 0.0, "experts": EXPERTS, "capacity": EXPERTS, "router_z": 1e-2}
    model = MaskedLM(tiny_text_encoder(**options), optim=Optim("adamw", 1e-2, weight_decay=0.1))
    object.__setattr__(model.encoder.trunk.config, "router_jitter", 0.0)
    return model


def worker(rank: int, port: int, folder: str, source: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=WORLD)
    mesh, found = init_device_mesh("cpu", (WORLD,)), dict[str, Any]()
    for name, lean in CASES.items():
        experts, (x, real) = layer(lean), tokens()
        experts.spread(mesh)
        run_on_parts(experts)
        figures, d_x = learn(experts, x[rank : rank + 1], real[rank : rank + 1], WORLD)
        router = experts.router.weight.grad
        weights = {n: experts.get_parameter(n).grad.full_tensor() for n in experts.of_experts}  # type: ignore[union-attr]
        found[name] = figures | weights | {"d_x": d_x, "router": router}
    model, losses, validation = fit(Path(folder), source, WORLD)
    again, _, _ = fit(Path(folder), source, WORLD, resume=True)
    pairs = zip(model.parameters(), again.parameters(), strict=True)
    found["resumed"] = max(float((p.to_local() - q.to_local()).abs().sum()) for p, q in pairs)
    found["held"] = sum(p.to_local().numel() for p in model.parameters())
    found["experts"] = [tuple(p.to_local().shape) for m in expert_layers(model) for p in m.expert_weights()]
    torch.save(found | {"losses": losses, "val": validation}, f"{folder}/found{rank}.pt")
    leave()


@pytest.fixture(scope="module")
def spread(tmp_path_factory: pytest.TempPathFactory, text_file: str) -> Path:
    folder = tmp_path_factory.mktemp("experts")
    run_processes(worker, WORLD, str(folder), text_file, seconds=400)
    return folder


def found_by(folder: Path) -> list[dict[str, Any]]:
    return [torch.load(folder / f"found{rank}.pt", weights_only=True) for rank in range(WORLD)]


@pytest.mark.parametrize("name", CASES)
def test_outputs_gradients_and_what_is_dropped_are_those_of_one_process(name: str, spread: Path) -> None:
    experts, (x, real) = layer(CASES[name]), tokens()
    figures, d_x = learn(experts, x, real)
    found = [f[name] for f in found_by(spread)]
    assert figures["dropped_tokens"] > 0.1
    for key in ("expert_balance", "router_z", "dropped_tokens", "busiest_expert"):
        assert [f[key] for f in found] == pytest.approx([figures[key]] * WORLD, rel=1e-5)
    for key, whole in {"y": figures["y"], "d_x": d_x}.items():
        torch.testing.assert_close(torch.cat([f[key] for f in found])[real], whole[real], atol=1e-5, rtol=1e-5)
    router = sum(f["router"] for f in found) / WORLD
    torch.testing.assert_close(router, experts.router.weight.grad, atol=1e-5, rtol=1e-5)
    for key in experts.of_experts:
        assert torch.equal(found[0][key], found[1][key])
        torch.testing.assert_close(found[0][key], experts.get_parameter(key).grad, atol=1e-6, rtol=1e-5)


def test_a_run_learns_saves_and_resumes_as_that_of_one_process(spread: Path, text_file: str, tmp_path: Path) -> None:
    model, losses, validation = fit(tmp_path, text_file, 1)
    found = found_by(spread)
    assert [f["resumed"] for f in found] == [0, 0]
    assert found[0]["experts"] == [(EXPERTS // WORLD, 16, 64), (EXPERTS // WORLD, 64, 16)]
    curve = torch.tensor([f["losses"] for f in found]).mean(0)  # each rank's is its share of the whole
    torch.testing.assert_close(curve, torch.tensor(losses), atol=1e-5, rtol=0)
    assert found[0]["val"] == pytest.approx(validation, abs=1e-5)
    saved = torch.load(spread / f"step{STEPS}.ckpt", weights_only=True)
    one = method(7)
    one.load_state_dict(saved["state_dict"])  # a process that holds all experts
    for (name, p), q in zip(model.named_parameters(), one.parameters(), strict=True):
        torch.testing.assert_close(q, p, atol=1e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}")
    assert all((p - q).abs().max() > 1e-4 for p, q in zip(model.parameters(), method().parameters(), strict=True))
    moments = [entry["exp_avg"].shape for entry in saved["optimizer_states"][0]["state"].values()]
    assert sorted(moments) == sorted(p.shape for p in model.parameters())
    assert isinstance(load_encoder(spread / "encoder").trunk.blocks[1].feed_forward, ExpertLayer)


def test_plan_counts_what_a_rank_holds(spread: Path) -> None:
    model = on_meta(method)
    found, s = found_by(spread), sizes(model, expert_parallel=True)
    plan = memory(s, "ZeRO-3", WORLD)
    assert plan.weights == 4 * sum(f["held"] for f in found) / WORLD
    experts = sum(p.numel() for m in expert_layers(model) for p in m.expert_weights())
    whole = sizes(model)
    block = [p.numel() for p in model.encoder.trunk.blocks[1].parameters()]
    assert whole.block == sum(block)
    assert s.block == max(sum(block) - experts, sum(p.numel() for p in model.encoder.trunk.blocks[0].parameters()))
    assert memory(whole, "ZeRO-3", WORLD).gathered > plan.gathered


def test_flops_are_those_of_the_meta_device() -> None:
    planned, counted = row_flops(on_meta(method), 32), row_flops(method(), 32)
    assert planned is not None
    assert planned - 3 * 2 * 4 * 32**2 * 16 == counted  # the counter does not know attention's scores on a CPU


def test_what_cannot_be_spread_says_so() -> None:
    with pytest.raises(UserError, match=r"this model has none: take configs/trainer/fsdp.yaml"):
        expert_layers(MaskedLM(tiny_text_encoder()))
    with pytest.raises(UserError, match=r"leave tensor_parallel 1, or it false"):
        FSDP2(tensor_parallel=2, expert_parallel=True)
