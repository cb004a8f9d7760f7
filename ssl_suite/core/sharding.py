"""FSDP2: every rank keeps its rows of each weight, gradient and optimizer state, and gathers weights to use them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Replicate
from torch.optim import Optimizer

from ssl_suite.core.check import within
from ssl_suite.core.encoder import Encoder
from ssl_suite.core.errors import UserError
from ssl_suite.core.expert_parallel import ExpertLayer
from ssl_suite.core.tensor_parallel import cut, on_parts, placement_beside, run_on_parts

if TYPE_CHECKING:
    from ssl_suite.core.module import TrainModule

STEPS = ("training_step", "validation_step", "test_step", "predict_step")
Zero = Literal[1, 2, 3]


class FSDP2(ModelParallelStrategy):
    """Shards over all ranks; a checkpoint is one file of whole tensors, as any other strategy's.

    Args:
        zero: what a rank holds of the model while a step runs, as ZeRO's stages name it (arXiv:1910.02054, section 5).
            3: its own part, and of the whole one block at a time; 2: the whole from forward to backward, which saves
            gathering it again; 1: gradients too are whole until the last of the accumulated batches, and are sent once.
            Optimizer states are always its own part only.
        tensor_parallel: neighbouring ranks that share each matrix and read the same rows (Megatron); the others are
            data-parallel over that.
        expert_parallel: whether the experts are spread over all ranks, and tokens sent to theirs (Switch Transformer);
            their weights are neither gathered nor averaged.
    """

    def __init__(self, zero: Zero = 3, tensor_parallel: int = 1, expert_parallel: bool = False) -> None:
        within("zero", zero, low=1, high=3, whole=True)
        within("tensor_parallel", tensor_parallel, low=1, whole=True)
        if expert_parallel and tensor_parallel > 1:
            raise UserError("expert_parallel spreads experts over all processes; leave tensor_parallel 1, or it false.")
        super().__init__(tensor_parallel_size=tensor_parallel, save_distributed_checkpoint=False)
        self.zero, self.tensor_parallel, self.expert_parallel = zero, tensor_parallel, expert_parallel

    def setup_environment(self) -> None:
        ranks = self.num_nodes * self.num_processes
        if ranks % self.tensor_parallel:
            raise UserError(f"{ranks} processes do not divide into groups of tensor_parallel {self.tensor_parallel}.")
        self._data_parallel_size = ranks // self.tensor_parallel
        super().setup_environment()

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        if self.zero == 1 and isinstance(self.model, FSDPModule):
            loop = cast(pl.LightningModule, self.lightning_module).trainer.fit_loop
            self.model.set_requires_gradient_sync(not loop.epoch_loop._should_accumulate())
        return super().training_step(*args, **kwargs)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Every rank reads the file and takes its parts, however it was cut when it was written."""
        path = Path(self.broadcast(checkpoint_path))
        checkpoint: dict[str, Any] = torch.load(path, mmap=True, map_location="cpu", weights_only=True)
        load_parts(cast(nn.Module, self.model), checkpoint.pop("state_dict"))
        for optimizer, state in zip(self.optimizers, checkpoint.get("optimizer_states", []), strict=False):
            optimizer.load_state_dict(state_parts(optimizer, state))
        return checkpoint


def place(trainer: pl.Trainer) -> tuple[int, int]:
    """This process' rank among those that read other rows, and how many there are."""
    strategy = trainer.strategy
    if isinstance(strategy, FSDP2) and strategy.tensor_parallel > 1:
        mesh = strategy.device_mesh["data_parallel"]
        return mesh.get_local_rank(), mesh.size()
    return trainer.global_rank, trainer.world_size


@torch.no_grad()
def shard(module: TrainModule, strategy: FSDP2) -> None:
    """Shards `module` in place, from rank 0's weights; once.

    A block of an encoder is gathered while it runs. All else (embeddings, norms, heads) is gathered for a whole step,
    which may use it anywhere: a word embedding is the output layer too.

    Raises:
        UserError: it cannot be cut into so many parts.
    """
    if any(isinstance(p, DTensor) for p in module.parameters()):
        return
    data, tensor = strategy.device_mesh["data_parallel"], strategy.device_mesh["tensor_parallel"]
    plan = module.tensor_plan(tensor.size()) if tensor.size() > 1 else {}
    module.to(strategy.root_device)
    for parameter in module.parameters():
        torch.distributed.broadcast(parameter.data, 0)
    blocks = [b for m in module.modules() if isinstance(m, Encoder) for b in m.blocks()]
    inside = {m for block in blocks for m in block.modules()}
    layers = expert_layers(module) if strategy.expert_parallel else []
    if plan:
        cut(module, tensor, plan)
    if data.size() > 1 or not plan:
        options: dict[str, Any] = {"reshard_after_forward": strategy.zero == 3}
        if layers:
            options |= {"mesh": data, "ignored_params": {p for layer in layers for p in layer.spread(data)}}
        if plan:
            options |= {"mesh": data, "shard_placement_fn": placement_beside}
        for block in blocks:
            fully_shard(block, **options)
        name = type(module).__name__
        fully_shard(module, **options)
        type(module).__name__ = name  # which messages and provenance tell
    for part in [*(blocks if plan else []), *layers]:
        run_on_parts(part)
    for step in STEPS:
        if plan:
            setattr(module, step, on_parts(getattr(module, step), [m for m in module.modules() if m not in inside]))
        if isinstance(module, FSDPModule):
            register_fsdp_forward_method(module, step)


def expert_layers(module: nn.Module) -> list[ExpertLayer]:
    """Its layers of experts.

    Raises:
        UserError: there are none.
    """
    layers = [m for m in module.modules() if isinstance(m, ExpertLayer)]
    if not layers:
        raise UserError("expert_parallel spreads experts; this model has none: take configs/trainer/fsdp.yaml.")
    return layers


def whole(tensor: Tensor) -> Tensor:
    """Gathers a sharded tensor, for which every rank must ask; any other is whole."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def sharded_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Cuts a tensor that every rank has as `like` is cut."""
    if not isinstance(like, DTensor):
        return tensor
    everywhere = [Replicate()] * like.device_mesh.ndim
    local = tensor.to(like.device)
    return DTensor.from_local(local, like.device_mesh, everywhere, run_check=False).redistribute(
        placements=like.placements
    )


@torch.no_grad()
def load_parts(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copies this rank's parts of whole weights in; names must match."""
    own = module.state_dict(keep_vars=True)
    module.load_state_dict({name: sharded_like(w, own[name]) if name in own else w for name, w in weights.items()})


def state_parts(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Of an optimizer's state in a checkpoint, which is whole, this rank's parts."""
    groups = zip(state["param_groups"], optimizer.param_groups, strict=True)
    owners = {key: p for saved, own in groups for key, p in zip(saved["params"], own["params"], strict=True)}
    parts = {
        key: {n: sharded_like(v, owners[key]) if _shape(v) == owners[key].shape else v for n, v in entry.items()}
        for key, entry in state["state"].items()
    }
    return {**state, "state": parts}


def _shape(value: Any) -> torch.Size | None:
    """Of a tensor; None of a number, such as a count of steps."""
    return value.shape if isinstance(value, Tensor) else None


def identity(tensor: Tensor) -> int:
    """Equal for tensors that share memory; a sharded one, which has none of its own, for itself only."""
    return id(tensor) if isinstance(tensor, DTensor) else tensor.data_ptr()
