"""Our LARS takes lightly's steps to the bit, and never waits for the device."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightly.utils.lars import LARS as PeersLARS
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ssl_suite.core.lars import LARS
from ssl_suite.core.optim import parameter_groups


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 36, 5), nn.Linear(5, 2))
    nn.init.zeros_(model[4].weight)  # ‖w‖ = 0, and so nothing flows to what is below: ‖g‖ = 0
    return model


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x, y = torch.randn(16, 3, 8, 8, generator=generator), torch.randint(2, (16,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return [p.detach() for p in model.parameters()]


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.9, 0.1), (0.9, 0.0), (0.0, 1e-6)])
def test_steps_are_lightlys(momentum: float, weight_decay: float) -> None:
    ours, theirs = network(), network()
    a = LARS(parameter_groups(ours, weight_decay), lr=2.0, momentum=momentum)
    b = PeersLARS(parameter_groups(theirs, weight_decay), lr=2.0, momentum=momentum)
    for mine, wanted, first in zip(train(ours, a), train(theirs, b), network().parameters(), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=0, atol=0)
        assert not torch.equal(mine, first)


class HostWaits(TorchDispatchMode):
    """Counts what would make a device's queue run empty."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("kind", "waits"), [(LARS, False), (PeersLARS, True)])
def test_a_step_waits_for_nothing(kind: Any, waits: bool) -> None:
    model = network()
    optimizer = kind(parameter_groups(model, 0.1), lr=1.0, momentum=0.9)
    train(model, optimizer, steps=1)
    with HostWaits() as seen:
        optimizer.step()
    assert (seen.count > 0) == waits
