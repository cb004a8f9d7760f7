"""Adafactor and the inverse square root against torch's and transformers' own, and that nothing waits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from host_waits import HostWaits
from torch import Tensor, nn

from ssl_suite.core.adafactor import Adafactor
from ssl_suite.core.optim import Optim, build_optimizer, lr_factor
from ssl_suite.core.plan import kept


def weights(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    scales = (1.0, 1e-5, 3.0, 0.2)
    return [nn.Parameter(s * torch.randn(n, generator=generator)) for n, s in zip(shapes, scales, strict=False)]


def train(params: list[nn.Parameter], optimizer: torch.optim.Optimizer, steps: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for p in params:
            p.grad = (
                torch.randn(p.shape, generator=generator)
                * 10 ** torch.randn(p.shape[:1], generator=generator)[(...,) + (None,) * (p.ndim - 1)]
            )
        optimizer.step()
    return [p.detach() for p in params]


SHAPES = ((6, 4), (3, 8), (5,), (2, 3))


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_steps_are_torchs(decay: float) -> None:
    ours, theirs = weights(*SHAPES), weights(*SHAPES)
    peer = torch.optim.Adafactor(theirs, lr=1e-2, weight_decay=decay, eps=(1e-15, 1e-3))
    found = train(ours, Adafactor([{"params": ours, "weight_decay": decay}], lr=1e-2))
    for mine, wanted in zip(found, train(theirs, peer), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-5, atol=1e-9)


def test_steps_are_transformers_own() -> None:
    peer = pytest.importorskip("transformers.optimization").Adafactor
    ours, theirs = weights(*SHAPES), weights(*SHAPES)
    wanted = train(theirs, peer(theirs, lr=0.5, relative_step=False, scale_parameter=True, warmup_init=False))
    for mine, one in zip(train(ours, Adafactor([{"params": ours}], lr=0.5)), wanted, strict=True):
        torch.testing.assert_close(mine, one, rtol=1e-5, atol=1e-9)


def test_a_weight_of_several_matrices_moves_as_they_would() -> None:
    fused, single = weights((6, 4)), [nn.Parameter(w) for w in weights((6, 4))[0].detach().clone().split(2)]
    a = Adafactor([{"params": fused, "parts": 3}], lr=1e-2)
    b = Adafactor([{"params": single}], lr=1e-2)
    for step in range(3):
        gradient = torch.randn(6, 4, generator=torch.Generator().manual_seed(step)) * torch.arange(1, 7)[:, None]
        fused[0].grad = gradient
        for p, g in zip(single, gradient.split(2), strict=True):
            p.grad = g.clone()
        a.step()
        b.step()
    torch.testing.assert_close(fused[0].detach(), torch.cat([p.detach() for p in single]))
    held = sum(x.numel() for x in a.state[fused[0]].values() if isinstance(x, Tensor))
    assert held == 6 + 3 * 4


def test_a_step_waits_for_nothing() -> None:
    params = weights(*SHAPES)
    optimizer = build_optimizer(Optim("adafactor"), [{"params": params}], lr=1e-2)
    train(params, optimizer, 1)
    with HostWaits() as waits:
        optimizer.step()
    assert not waits.found


def test_what_it_keeps_is_planned_as_nothing() -> None:
    assert kept(Optim("adafactor")) == 0


def test_the_inverse_square_root_is_transformers_own() -> None:
    peer: Any = pytest.importorskip("transformers").get_inverse_sqrt_schedule
    optimizer = torch.optim.SGD(weights((2,)), lr=1.0)
    schedule = peer(optimizer, num_warmup_steps=10)
    factor = lr_factor(Optim(schedule="inverse_sqrt", warmup_steps=10), 100, 20)
    for step in range(99):
        if step >= 10:
            assert factor(step) == pytest.approx(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert [factor(step) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])


def test_t5s_rate_is_held_and_then_falls() -> None:
    factor = lr_factor(Optim("adafactor", 1e-2, schedule="inverse_sqrt", hold_steps=10_000), 2**19, 1000)
    for step in (0, 1, 9_999, 10_000, 40_000, 2**19):
        assert 1e-2 * factor(step) == pytest.approx(1 / max(step, 10_000) ** 0.5)


def test_experts_in_one_weight_move_as_each_would() -> None:
    stacked, single = weights((3, 2, 4)), [nn.Parameter(w) for w in weights((3, 2, 4))[0].detach().clone()]
    a, b = Adafactor([{"params": stacked, "parts": 3}], lr=1e-2), Adafactor([{"params": single}], lr=1e-2)
    for step in range(3):
        gradient = (
            torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(step)) * torch.arange(1, 4)[:, None, None]
        )
        stacked[0].grad = gradient
        for p, g in zip(single, gradient, strict=True):
            p.grad = g.clone()
        a.step()
        b.step()
    torch.testing.assert_close(stacked[0].detach(), torch.stack([p.detach() for p in single]))
