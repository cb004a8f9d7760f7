"""What a rank holds under DDP, ZeRO's stages (FSDP2) and tensor parallelism, measured in processes beside the plan.

`python -m benchmarks.memory`: two processes of a CPU train a GPT of 23 M parameters for three steps each way. Counted
are all tensors alive between two steps, each storage once: weights and optimizer states. What a step adds is computed.
"""

from __future__ import annotations

import argparse
import gc
import os
import socket
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy

from ssl_suite.core.optim import Optim
from ssl_suite.core.plan import SCHEMES, activation_bytes, memory, on_meta, sizes
from ssl_suite.core.sharding import FSDP2
from ssl_suite.data.text.text import Text
from ssl_suite.encoders.text import TextEncoder
from ssl_suite.methods.text.causal_lm import CausalLM

WAYS: dict[str, dict[str, int]] = {
    "DDP": {}, "ZeRO-1": {"zero": 1}, "ZeRO-2": {"zero": 2}, "ZeRO-3": {"zero": 3}, "tensor": {"tensor_parallel": 2},
}  # fmt: skip
LENGTH, ROWS, MIB = 64, 2, 2**20


def build(dim: int, layers: int) -> CausalLM:
    return CausalLM(
        TextEncoder(8192, dim, layers, dim // 64, max_length=LENGTH, causal=True),
        Optim("adamw", 1e-4, weight_decay=0.1),
    )


class Held(pl.Callback):
    """Bytes of all tensors between two steps, without gradients."""

    kept = 0

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        trainer.optimizers[0].zero_grad()
        gc.collect()
        tensors = [t for t in gc.get_objects() if isinstance(t, torch.Tensor) and type(t).__name__ != "DTensor"]
        storages = {
            t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if t.device.type == "cpu"
        }
        self.kept = sum(storages.values())


def worker(rank: int, port: int, way: str, dim: int, layers: int, world: int, folder: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    held = Held()
    data = Text("samples:corpus", batch_size=ROWS, tokenizer="byte", max_length=LENGTH)
    trainer = pl.Trainer(
        accelerator="cpu", devices=world, max_steps=3, limit_val_batches=0, default_root_dir=folder, logger=False,
        strategy=FSDP2(**WAYS[way]) if WAYS[way] else DDPStrategy(), plugins=[LightningEnvironment()],
        callbacks=[held], enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(build(dim, layers), data)
    Path(folder, f"{rank}").write_text(str(held.kept), encoding="utf-8")
    torch.distributed.destroy_process_group()


def measured(way: str, dim: int, layers: int, world: int) -> int:
    """Bytes between two steps, of the rank that has most."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(worker, (port, way, dim, layers, world, folder), world)
        return max(int(Path(folder, str(r)).read_text(encoding="utf-8")) for r in range(world))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--layers", type=int, default=6)
    options = parser.parse_args()
    model, world = on_meta(lambda: build(options.dim, options.layers)), 2
    print(f"{sizes(model).weights:,} parameters, {world} processes, MiB a rank")
    print("way      between steps: plan  measured  ratio    in a step: plan")
    for way in WAYS:
        tensor = WAYS[way].get("tensor_parallel", 1)
        active = ROWS * activation_bytes(model.encoder, LENGTH, tensor, mixed=False)
        scheme = way if way in SCHEMES else "ZeRO-3"
        plan = memory(sizes(model, tensor), scheme, world // tensor, active)
        kept = measured(way, options.dim, options.layers, world)
        print(
            f"{way:8} {plan.kept / MIB:19.1f} {kept / MIB:9.1f} {kept / plan.kept:6.3f} {plan.total / MIB:18.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
