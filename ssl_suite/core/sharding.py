"""FSDP2: every rank keeps its rows of each weight, gradient and optimizer state, and gathers weights to use them."""

from __future__ import annotations

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Replicate

from ssl_suite.core.encoder import Encoder

STEPS = ("training_step", "validation_step", "test_step", "predict_step")


class FSDP2(ModelParallelStrategy):
    """Shards over all ranks; a checkpoint is one file of whole tensors, as any other strategy's."""

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


@torch.no_grad()
def shard(module: LightningModule, device: torch.device) -> None:
    """Shards `module` in place, from rank 0's weights; once.

    A block of an encoder is gathered while it runs. All else (embeddings, norms, heads) is gathered for a whole step,
    which may use it anywhere: a word embedding is the output layer too.
    """
    if isinstance(module, FSDPModule):
        return
    module.to(device)
    for parameter in module.parameters():
        torch.distributed.broadcast(parameter.data, 0)
    for block in [b for m in module.modules() if isinstance(m, Encoder) for b in m.blocks()]:
        fully_shard(block)
    name = type(module).__name__
    fully_shard(module)
    type(module).__name__ = name  # which messages and provenance tell
    for step in STEPS:
        register_fsdp_forward_method(module, step)


def whole(tensor: Tensor) -> Tensor:
    """Gathers a sharded tensor, for which every rank must ask; any other is whole."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def sharded_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Cuts a tensor that every rank has as `like` is cut."""
    if not isinstance(like, DTensor):
        return tensor
    everywhere = [Replicate()] * like.device_mesh.ndim
    return DTensor.from_local(tensor, like.device_mesh, everywhere).redistribute(placements=like.placements)


def identity(tensor: Tensor) -> int:
    """Equal for tensors that share memory; a sharded one, which has none of its own, for itself only."""
    return id(tensor) if isinstance(tensor, DTensor) else tensor.data_ptr()
