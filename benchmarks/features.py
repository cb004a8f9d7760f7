"""Frozen features that outgrow memory: how fast they are written and learned from, and in how much memory.

A probe of frames on the weighted sum of all states of a speech encoder. Anonymous memory is what the process itself
holds; pages of mapped files, which the system takes back when it needs them, are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytorch_lightning as pl
import torch
from side_by_side import QUIET, TIMERS, machine, quiet
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ssl_suite.core.allocator import keep_freed_memory
from ssl_suite.core.batch import SpeechBatch
from ssl_suite.core.data import DataModule, Request
from ssl_suite.core.finetune import Finetune
from ssl_suite.core.frozen import Room
from ssl_suite.core.sampler import EvalSampler
from ssl_suite.encoders.speech import SpeechEncoder
from ssl_suite.tasks.tag import Tag

RATE = 16000
timer = TIMERS["wall"]


@dataclass
class Sizes:
    """What is encoded."""

    seconds: float
    """Of an utterance."""
    dim: int
    layers: int
    batch: int

    @property
    def frames(self) -> int:
        """Of an utterance: one every 20 ms."""
        return int(self.seconds * 50)

    @property
    def size(self) -> int:
        """Bytes of an utterance's features."""
        return self.frames * (self.layers + 1) * self.dim * 4


class Noise(DataModule):
    """Utterances of noise with a label a frame, made as they are read."""

    modality = "speech"

    def __init__(self, n: int, sizes: Sizes) -> None:
        super().__init__(sizes.batch)
        self.n, self.sizes, self.labels = n, sizes, ["a", "b", "c"]

    @classmethod
    def kinds(cls) -> Sequence[str]:
        return ["tags"]

    def prepare(self, request: Request) -> None:
        pass

    def splits(self) -> Sequence[str]:
        return ["train"]

    def size(self, split: str) -> int:
        return self.n

    def has_targets(self, split: str) -> bool:
        return True

    def read(self, split: str, index: int, seed: int) -> tuple[int, Tensor]:
        generator = torch.Generator().manual_seed(index)
        return index, 0.1 * torch.randn(int(self.sizes.seconds * RATE) - 1, generator=generator)

    def target(self, split: str, index: int) -> Tensor:
        return torch.randint(3, (self.sizes.frames,), generator=torch.Generator().manual_seed(index))

    def collate(self, items: list[tuple[int, Tensor]]) -> SpeechBatch:
        index, waves = torch.tensor([i for i, _ in items]), [wave for _, wave in items]
        targets = torch.stack([self.target("train", int(i)) for i in index])
        lengths = torch.tensor([len(wave) for wave in waves])
        return SpeechBatch(index, index, targets, pad_sequence(waves, batch_first=True), lengths)

    def fingerprint(self, split: str) -> str:
        return f"{self.n} {self.sizes}"


class Anonymous:
    """Watches how much anonymous memory this process has, in MB above what it had."""

    def __enter__(self) -> Self:
        self.before = self.peak = self._now()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    @property
    def growth(self) -> float:
        return self.peak - self.before

    def _watch(self) -> None:
        while not self._end.wait(0.02):
            self.peak = max(self.peak, self._now())

    def _now(self) -> float:
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(status["RssAnon"].split()[0]) / 1024


class Timed(Finetune):
    """Measures the encoder alone, half before and half after features are written."""

    def setup(self, stage: str) -> None:
        super().setup(stage)
        data = self.data
        if self.room.disk_gb == 0 or not isinstance(data, Noise):
            return
        self.alone(data, 1)  # warm-up
        before = self.alone(data, self.probed)
        start = timer()
        features = data.features("train")
        assert features is not None
        self.written = len(features) / (timer() - start)
        self.gb = sum(shard.values.nbytes for shard in features.shards) / 1e9
        self.shards = len(features.shards)
        self.encoded = 2 / (1 / before + 1 / self.alone(data, self.probed))

    def alone(self, data: Noise, batches: int) -> float:
        """Items a second that are read and encoded, and forgotten."""
        keys = EvalSampler(min(batches * data.batch_size, data.n), data.batch_size)
        start, seen = timer(), 0
        for batch in data.loader(keys, data.dataset("train"), False):
            self.data.frozen.encode(batch)
            seen += len(batch)
        return seen / (timer() - start)


class Epochs(pl.Callback):
    """Items a second of each epoch, its first batch apart."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self.start, self.seen = timer(), 0
        else:
            self.seen += len(batch)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.rates.append(self.seen / (timer() - self.start))


def fit(model: Finetune, data: Noise, **options: Any) -> float:
    """Items a second of the fastest epoch."""
    epochs = Epochs()
    pl.Trainer(**QUIET, use_distributed_sampler=False, callbacks=[epochs], **options).fit(model, data)
    return max(epochs.rates)


def measure(args: argparse.Namespace) -> dict[str, float]:
    sizes = Sizes(1.0, 32, 1, 4) if args.tiny else Sizes(10.0, args.dim, 12, 4)
    data = Noise(12 if args.tiny else round(args.gb * 1e9 / sizes.size), sizes)
    part = 2 if args.tiny else 8

    def probe(room: Room) -> Timed:
        heads = max(1, sizes.dim // 64)
        encoder = SpeechEncoder(stack=2, trunk="transformer", dim=sizes.dim, layers=sizes.layers, heads=heads)
        model = Timed(encoder, Tag(), "weighted_sum", standardize=False, room=room)
        model.probed = part
        return model

    torch.manual_seed(0)
    kept = probe(Room(disk_gb=1000.0))
    with tempfile.TemporaryDirectory(dir=args.disk) as cache, Anonymous() as memory:
        os.environ["SSL_SUITE_CACHE"] = cache
        learned = fit(kept, data, max_epochs=2)
    loop = fit(probe(Room(disk_gb=0.0)), data, max_epochs=1, limit_train_batches=part)
    found = {"GB": kept.gb, "shards": float(kept.shards), "anonymous MB": memory.growth}
    found |= {"encoder alone, items/s": kept.encoded, "written, items/s": kept.written}
    found |= {"written / encoder alone": kept.written / kept.encoded}
    found |= {"probe on features, items/s": learned, "encoder in the loop, items/s": loop}
    return found | {"features / loop": learned / loop}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gb", type=float, default=3.0, help="of features, 10⁹ bytes")
    parser.add_argument("--dim", type=int, default=768, help="width of the encoder's 12 blocks")
    parser.add_argument("--disk", type=Path, help="folder for them; default: the system's for temporary files")
    parser.add_argument("--clock", choices=list(TIMERS), default="wall", help="cpu: processor time, of one thread")
    parser.add_argument("--format", choices=["table", "json"], default="table")
    parser.add_argument("--tiny", action="store_true", help="sizes that only show that the script works")
    args = parser.parse_args()
    quiet()
    timer = TIMERS[args.clock]
    if args.clock == "cpu":
        torch.set_num_threads(1)
    keep_freed_memory()  # as `ssl-suite fit` does
    figures = measure(args)
    if args.format == "json":
        print(json.dumps({"machine": machine(), **figures}))
    else:
        print(machine())
        for name, value in figures.items():
            print(f"{name:30s} {value:12,.2f}")
