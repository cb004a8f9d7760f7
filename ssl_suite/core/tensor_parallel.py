"""Tensor parallelism: the processes of a group share each matrix of one model (Megatron, arXiv:1909.08053, section 3).

Between steps every weight is a `DTensor` that knows how it is cut, for the optimizer, clipping and checkpoints. Inside
a step each process computes with its own part, as the paper has it. Matrices are cut; vectors are whole everywhere, and
the gradients of those that are used in part are summed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup, ReduceOp
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ParallelStyle, parallelize_module
from torch.distributed.tensor.placement_types import Placement, _StridedShard
from torch.nn import functional as F

Plan = dict[str, ParallelStyle]
"""How modules are cut, by their names; `*` stands for any of one level."""


@dataclass(frozen=True)
class Part:
    """Which of `size` equal parts of a weight this process holds; without a group, all of it."""

    rank: int = 0
    size: int = 1
    group: ProcessGroup | None = None

    @staticmethod
    def of(mesh: DeviceMesh) -> Part:
        return Part(mesh.get_local_rank(), mesh.size(), mesh.get_group())

    def sum(self, x: Tensor) -> Tensor:
        """Adds up what the group's processes have, in place; no gradient."""
        return self._reduce(x, ReduceOp.SUM)

    def max(self, x: Tensor) -> Tensor:
        """The largest that any process of the group has, in place; no gradient."""
        return self._reduce(x, ReduceOp.MAX)

    def _reduce(self, x: Tensor, how: ReduceOp.RedOpType) -> Tensor:
        if self.size > 1:
            torch.distributed.all_reduce(x, how, group=self.group)
        return x

    def gather(self, x: Tensor) -> Tensor:
        """(size, …) what each process of the group has; no gradient."""
        parts = [torch.empty_like(x) for _ in range(self.size)]
        if self.size > 1:
            torch.distributed.all_gather(parts, x.contiguous(), group=self.group)
        return torch.stack(parts) if self.size > 1 else x[None]

    def enter(self, x: Tensor) -> Tensor:
        """The paper's f: what all have alike goes into parts; its gradient is the sum of theirs."""
        return _Enter.apply(x, self) if self.size > 1 else x

    def leave(self, x: Tensor) -> Tensor:
        """The paper's g: the sum over all parts, which all have alike from here on."""
        return _Leave.apply(x, self) if self.size > 1 else x

    def cut(self, vector: Tensor, stacked: int = 1) -> Tensor:
        """This process' share of each of the vectors `stacked` in one that all have."""
        return self.enter(vector).unflatten(0, (stacked, self.size, -1))[:, self.rank].flatten()


class _Enter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, part: Part) -> Tensor:
        ctx.part = part
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.part.sum(gradient.clone(memory_format=torch.contiguous_format)), None


class _Leave(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, part: Part) -> Tensor:
        return part.sum(x.clone(memory_format=torch.contiguous_format))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class Columns(ParallelStyle):
    """A linear layer of which each process computes a share of the outputs.

    Args:
        stacked: matrices that lie in one weight below one another, each of which is cut: 3 for queries, keys and
            values, so that a process has all three of its heads.
    """

    def __init__(self, stacked: int = 1) -> None:
        super().__init__()
        self.stacked = stacked

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        linear, part, stacked = cast(nn.Linear, module), Part.of(device_mesh), self.stacked
        _cut(linear, device_mesh, _StridedShard(0, split_factor=stacked) if stacked > 1 else Shard(0))

        def forward(x: Tensor) -> Tensor:
            bias = None if linear.bias is None else part.cut(linear.bias, stacked)
            return F.linear(part.enter(x), linear.weight, bias)

        linear.forward = forward  # type: ignore[assignment, method-assign]
        return linear


class Rows(ParallelStyle):
    """A linear layer that takes such shares as its inputs; its bias is added after the sum."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        linear, part = cast(nn.Linear, module), Part.of(device_mesh)
        _cut(linear, device_mesh, Shard(1))

        def forward(x: Tensor) -> Tensor:
            y = part.leave(F.linear(x, linear.weight))
            return y if linear.bias is None else y + linear.bias

        linear.forward = forward  # type: ignore[assignment, method-assign]
        return linear


class Vocabulary(ParallelStyle):
    """A word embedding of which each process holds a range of words; what is tied to it asks `part_of` which."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        words, part = cast(nn.Embedding, module), Part.of(device_mesh)
        first, rows = part.rank * (words.num_embeddings // part.size), words.num_embeddings // part.size
        _cut(words, device_mesh, Shard(0))

        def forward(ids: Tensor) -> Tensor:
            here = (ids >= first) & (ids < first + rows)
            return part.leave(F.embedding((ids - first) * here, words.weight) * here[..., None])

        words.forward = forward  # type: ignore[assignment, method-assign]
        words.part = part  # type: ignore[assignment]
        return words


def part_of(module: nn.Module) -> Part:
    """The part of a word embedding that this process holds; the whole where it is not cut."""
    return cast(Part, getattr(module, "part", Part()))


def _cut(module: nn.Module, mesh: DeviceMesh, placement: Placement) -> None:
    """Keeps this process' part of a weight that all have alike."""
    weight = cast(Tensor, module.weight)
    module.weight = nn.Parameter(distribute_tensor(weight.detach(), mesh, [placement], src_data_rank=None))


def cut(module: nn.Module, mesh: DeviceMesh, plan: Plan) -> None:
    """Cuts a module whose weights all processes have alike, and tells the mesh of those that stay whole."""
    parallelize_module(module, mesh, plan)
    for owner in module.modules():
        for name, p in owner.named_parameters(recurse=False):
            if not isinstance(p, DTensor):
                whole = DTensor.from_local(p.detach(), mesh, [Replicate()], run_check=False)
                owner.register_parameter(name, nn.Parameter(whole, p.requires_grad))


def placement_beside(parameter: nn.Parameter) -> Shard:
    """How a weight is cut over data-parallel processes, so that no dimension is cut twice."""
    cuts = [p for p in cast(DTensor, parameter).placements if not p.is_replicate()]
    return Shard(1 if cuts and cuts[0].dim == 0 else 0)  # type: ignore[attr-defined]


class LocalWeights:
    """Puts this process' own parts in the place of `DTensor`s while something runs.

    What has been replaced meanwhile stays: a step that calls the model itself ends with FSDP2's parts in place.
    """

    def __init__(self, modules: list[nn.Module]) -> None:
        self.modules = modules
        self.kept: list[tuple[nn.Module, str, DTensor, Tensor]] = []

    def __enter__(self) -> None:
        weights = [(m, name, cast(Any, p)) for m in self.modules for name, p in m._parameters.items()]
        self.kept = [(m, name, p, p.to_local()) for m, name, p in weights if isinstance(p, DTensor)]
        for module, name, _, local in self.kept:
            module._parameters[name] = cast(nn.Parameter, local)

    def __exit__(self, *_: object) -> None:
        for module, name, p, local in self.kept:
            if module._parameters[name] is local:
                module._parameters[name] = cast(nn.Parameter, p)
        self.kept = []


def run_on_parts(block: nn.Module) -> None:
    """Makes a block compute with its own parts; after `fully_shard`, whose hooks gather them first."""
    weights = LocalWeights(list(block.modules()))
    block.register_forward_pre_hook(lambda *_: weights.__enter__())
    block.register_forward_hook(lambda *_: weights.__exit__(), prepend=True)


def on_parts(call: Callable[..., Any], modules: list[nn.Module]) -> Callable[..., Any]:
    """`call`, during which these modules have their own parts."""

    @functools.wraps(call)
    def run(*args: Any, **kwargs: Any) -> Any:
        with LocalWeights(modules):
            return call(*args, **kwargs)

    return run
