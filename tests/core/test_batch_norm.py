"""Batch norm over processes: what one process gets from all of the batch, forwards, backwards and in its memory."""

from __future__ import annotations

import copy
import os
from typing import Any

import pytest
import torch
from processes import run_processes
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from ssl_suite.core.batch_norm import SyncedBatchNorm, sync_batch_norms

PARTS = (slice(0, 5), slice(5, 6))
"""Rows of each process: a batch of one has its place too."""
SHAPES = {"dense": (6, 3), "image": (6, 3, 2, 2), "fused": (6, 3, 2, 2)}


def net(kind: str) -> nn.Module:
    torch.manual_seed(0)
    norm: nn.Module = {"dense": nn.BatchNorm1d, "image": nn.BatchNorm2d, "fused": BatchNormAct2d}[kind](3)
    nn.init.normal_(norm.weight)  # type: ignore[arg-type]
    nn.init.normal_(norm.bias)  # type: ignore[arg-type]
    return nn.Sequential(norm)


def step(model: nn.Module, kind: str, rows: slice) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    x = torch.randn(SHAPES[kind])[rows].requires_grad_()
    wanted = torch.randn(SHAPES[kind])[rows]
    out = model(x)
    (out * wanted).sum().backward()
    return out.detach(), x.grad  # type: ignore[return-value]


def worker(rank: int, port: int, kind: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    alone, together = net(kind), net(kind)
    sync_batch_norms(together, everywhere=True)
    wanted, found = step(alone, kind, slice(0, 6)), step(together, kind, PARTS[rank])
    for a, b in zip(wanted, found, strict=True):
        torch.testing.assert_close(b, a[PARTS[rank]])
    for (name, a), b in zip(alone.state_dict().items(), together.state_dict().values(), strict=True):
        torch.testing.assert_close(b, a, msg=name)
    for (name, p), q in zip(alone.named_parameters(), together.parameters(), strict=True):
        assert q.grad is not None
        torch.distributed.all_reduce(q.grad)
        torch.testing.assert_close(q.grad, p.grad, msg=name)
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("kind", SHAPES)
def test_two_processes_normalise_as_one(kind: str) -> None:
    run_processes(worker, 2, kind)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("options", [{}, {"momentum": None}], ids=str)
def test_without_other_processes_it_is_plain_batch_norm(kind: str, options: dict[str, Any]) -> None:
    plain = net(kind)
    for name, value in options.items():
        setattr(plain[0], name, value)
    synced = copy.deepcopy(plain)
    sync_batch_norms(synced, everywhere=True)
    assert isinstance(synced[0], SyncedBatchNorm)
    assert list(synced.state_dict()) == list(plain.state_dict())
    for _ in range(3):
        for a, b in zip(step(plain, kind, slice(0, 6)), step(synced, kind, slice(0, 6)), strict=True):
            torch.testing.assert_close(b, a)
    for a, b in zip(plain.state_dict().values(), synced.state_dict().values(), strict=True):
        torch.testing.assert_close(b, a)
    plain.eval(), synced.eval()
    torch.testing.assert_close(step(plain, kind, slice(0, 2))[0], step(synced, kind, slice(0, 2))[0])


def test_on_a_gpu_only_what_torch_would_break_is_replaced() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Sequential(BatchNormAct2d(3)))
    sync_batch_norms(model, everywhere=False)
    assert type(model[0]) is nn.BatchNorm2d
    assert isinstance(model[1][0], SyncedBatchNorm)
