"""Expert parallelism: each process holds some of the experts, and a token travels to its own (arXiv:2101.03961).

The processes read other rows, and all else of the model is shared or sharded as ever. How full an expert is, and the
shares that are balanced, are those of all their tokens together, so that what is learned is what one process learns.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Shard, distribute_tensor

from ssl_suite.core.errors import UserError
from ssl_suite.core.tensor_parallel import Part


class ExpertLayer(nn.Module):
    """Base of a layer of experts.

    Attributes:
        of_experts: names of the weights that have a row an expert.
        part: which of the experts this process holds; all, until they are spread.
    """

    of_experts: ClassVar[tuple[str, ...]]
    part: Part

    def __init__(self) -> None:
        super().__init__()
        self.part = Part()

    def expert_weights(self) -> list[nn.Parameter]:
        return [self.get_parameter(name) for name in self.of_experts]

    def spread(self, mesh: DeviceMesh) -> list[nn.Parameter]:
        """Keeps this process' share of the experts, which all have alike; returns their weights.

        Raises:
            UserError: they cannot be shared out.
        """
        experts = len(self.expert_weights()[0])
        if experts % mesh.size():
            raise UserError(f"expert_parallel: {mesh.size()} processes do not divide the encoder's {experts} experts.")
        for name, weight in zip(self.of_experts, self.expert_weights(), strict=True):
            share = distribute_tensor(weight.detach(), mesh, [Shard(0)], src_data_rank=None)
            self.register_parameter(name, nn.Parameter(share, weight.requires_grad))
        self.part = Part.of(mesh)
        return self.expert_weights()


def averaged(weight: Tensor, part: Part) -> Tensor:
    """A weight that serves all processes' rows: its gradient is over their number, as that of every other weight is."""
    return _Averaged.apply(weight, part.size) if part.size > 1 else weight


class Journey:
    """Tokens on their way to the processes that hold their experts, and back.

    Args:
        counts: (E,) tokens that this process has for each expert.
        part: which of the experts it holds.

    Attributes:
        ends: (E / processes,) int32, how many of the tokens that came are for its experts 0 to e.
    """

    def __init__(self, counts: Tensor, part: Part) -> None:
        self.group = part.group
        here = counts.view(part.size, -1)  # (processes, E / processes)
        there = torch.empty_like(here)
        torch.distributed.all_to_all_single(there, here.contiguous(), group=part.group)
        self.sent, self.received = (n.sum(1).tolist() for n in (here, there))  # the one wait for the device
        self.ends = there.sum(0).cumsum(0).int()
        expert = torch.arange(there.shape[1], device=counts.device).repeat(part.size)
        self.order = expert.repeat_interleave(there.flatten()).argsort(stable=True)

    def out(self, tokens: Tensor) -> Tensor:
        """(N, D) sorted by expert → (M, D), those for this process' own experts, sorted likewise."""
        return _Exchange.apply(tokens, self.sent, self.received, self.group).index_select(0, self.order)

    def back(self, y: Tensor) -> Tensor:
        """(M, D) → (N, D), where they came from."""
        return _Exchange.apply(y.index_select(0, inverse(self.order)), self.received, self.sent, self.group)


def inverse(order: Tensor) -> Tensor:
    """(N,) a permutation → (N,) the one that undoes it."""
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))


class _Averaged(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, processes: int) -> Tensor:
        ctx.processes = processes
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient / ctx.processes, None


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, sent: list[int], received: list[int], group: ProcessGroup) -> Tensor:
        ctx.sent, ctx.received, ctx.group = sent, received, group
        return _exchanged(x, sent, received, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _exchanged(gradient, ctx.received, ctx.sent, ctx.group), None, None, None


def _exchanged(x: Tensor, sent: list[int], received: list[int], group: ProcessGroup) -> Tensor:
    """Rows of x in turn to each process, so many as are `sent`; returns those `received`, likewise."""
    y = x.new_empty(sum(received), *x.shape[1:])
    torch.distributed.all_to_all_single(y, x.contiguous(), received, sent, group=group)
    return y
