"""`ssl-suite prepare units`: k-means over frames of speech, and the nearest centre of every frame of a data set.

No process holds more than a sample of the frames. Several that are started with the same options, on one machine or on
some that share the folder, make parts of the work each; one that was killed goes on where it was.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities import rank_zero_info
from safetensors.torch import load_file, save_file
from torch import Tensor

import ssl_suite
from ssl_suite.core.batch import Batch
from ssl_suite.core.check import within
from ssl_suite.core.data import Request
from ssl_suite.core.encoder import Encoded, Encoder, expect
from ssl_suite.core.errors import UserError
from ssl_suite.core.features import encoded_shards
from ssl_suite.core.files import Lock, replacing, write_text
from ssl_suite.core.folder import fingerprint
from ssl_suite.core.hashing import config_hash
from ssl_suite.core.load import load_encoder
from ssl_suite.core.pace import told
from ssl_suite.core.random import item_seed
from ssl_suite.core.readout import Readout
from ssl_suite.core.sampler import EvalSampler
from ssl_suite.core.store import LEASE, Plan, Shard, open_store
from ssl_suite.data.embeddings import fastest_device
from ssl_suite.data.speech.speech import Speech
from ssl_suite.data.speech.unit_figures import Agreement
from ssl_suite.data.speech.units import CARD, MOST, UnitFile, mark
from ssl_suite.encoders.simple import Mfcc

CENTRES, PARTS, LOCK = "centres.safetensors", "parts", ".lock"
HOUR = 3600.0
"""Seconds of speech in a part: what a killed process loses at most."""


@dataclass(frozen=True)
class Recipe:
    """What determines the units of a data set; its hash is in their folder.

    Attributes:
        source: of the speech, as `Speech.source`.
        column: of the audio.
        encoder: folder or URI, or `mfcc`.
        readout: `last` or `layer:K`; of `mfcc` there is one layer alone.
        units: k, how many.
        seed: of the sample of recordings and of k-means.
        hours: of speech k-means looks at, drawn from the training split.
    """

    source: str
    column: str = "audio"
    encoder: str = "mfcc"
    readout: str = "last"
    units: int = 100
    seed: int = 0
    hours: float = 3.0

    def __post_init__(self) -> None:
        within("--units", self.units, low=2, high=MOST, whole=True)
        within("--seed", self.seed, low=0, whole=True)
        within("--hours", self.hours, above=0)


def prepare_units(
    recipe: Recipe, out: Path, labels: str | None = None, batch_seconds: float = 120.0, workers: int = 0
) -> list[str]:
    """Makes the units of every split of a source.

    Args:
        recipe: what they are made of.
        out: folder; `data.units` takes it.
        labels: a column to compare them with: an alignment (lists, spread evenly over their recordings) or one label a
            recording.
        batch_seconds: of padded audio the encoder sees together.
        workers: processes that read.

    Returns:
        lines of a summary.

    Raises:
        UserError: encoder or source cannot be read, or `out` holds something else.
    """
    within("--batch_seconds", batch_seconds, above=0)
    within("--workers", workers, low=0, whole=True)
    model = Mfcc(normalize=False) if recipe.encoder == "mfcc" else load_encoder(recipe.encoder)
    expect(model, "speech", "prepare units")
    frames = Frames(model.to(fastest_device()).eval(), Readout(recipe.readout, model, sequence=True))
    data = Speech(
        recipe.source, recipe.column, limit_seconds=None, batch_seconds=batch_seconds, eval_batch_size=1_000_000,
        num_workers=workers, in_memory=False,
    )  # fmt: skip
    data.holds_out = False
    data.serve(Request.of(model, target=None))
    if not data.has("train"):
        raise UserError(f"{recipe.source} has no training split for k-means to learn from.")
    made_of = vars(recipe) | {
        "weights": fingerprint(model),
        "data": {split: data.fingerprint(split) for split in data.splits()},
    }
    check_folder(out, made_of)
    out.mkdir(parents=True, exist_ok=True)
    with Lock(out / LOCK):
        check_folder(out, made_of)  # which another process may have filled meanwhile
        centres = learned_centres(recipe, frames, data, out)
        write_text(out / CARD, json.dumps(card(recipe, made_of, model.stride), indent=1))
    nearest = Nearest(frames, centres.to(fastest_device()))
    files = {split: assigned(nearest, data, split, out) for split in data.splits()}
    lines = [
        f"{out / split}.safetensors: {len(file.marks):,} recordings, {len(file.units):,} units of {recipe.units}, "
        f"{len(file.units.unique())} of which occur"
        for split, file in files.items()
    ]
    if labels is None:
        return lines
    figures = {split: Agreement.of(file, data.rows[split], labels) for split, file in files.items()}
    with Lock(out / LOCK):
        told = json.loads((out / CARD).read_text())
        told["figures"] = {labels: {split: found.figures() for split, found in figures.items()}}
        write_text(out / CARD, json.dumps(told, indent=1))
    return lines + [f"{split}: {found}" for split, found in figures.items()]


@dataclass(frozen=True)
class Frames:
    """What k-means sees of speech: a layer of an encoder."""

    encoder: Encoder
    readout: Readout

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Encoded:
        """(B, T, D), as the one state."""
        encoded = self.readout.select(self.encoder(batch.to(fastest_device())))
        return Encoded((encoded.states[0].float(),), encoded.mask, encoded.pooled)


@dataclass(frozen=True)
class Nearest:
    """The centre next to each frame."""

    frames: Frames
    centres: Tensor

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Encoded:
        """(B, T, 1) its number, as the one state."""
        encoded = self.frames(batch)
        far = self.centres.square().sum(1) - 2 * encoded.states[0] @ self.centres.T  # (B, T, k), less what all share
        return Encoded((far.argmin(-1, keepdim=True).float(),), encoded.mask, encoded.pooled)


def check_folder(out: Path, made_of: dict[str, Any]) -> None:
    """Raises UserError where units of another kind, or other files, lie."""
    if out.is_dir() and any(out.iterdir()) and not ((out / CARD).exists() or (out / LOCK).exists()):
        raise UserError(f"{out} holds other files; choose another --out.")
    if not (out / CARD).exists():
        return
    before = json.loads((out / CARD).read_text())["made_of"]
    if other := [name for name in made_of if before.get(name) != made_of[name]]:
        raise UserError(f"{out} holds units of another {', another '.join(other)}; choose another --out or delete it.")


def card(recipe: Recipe, made_of: dict[str, Any], stride: int) -> dict[str, Any]:
    """What the folder says of itself."""
    return {
        "units": recipe.units,
        "stride": stride,
        "made_of": made_of,
        "hash": config_hash({"made_of": made_of}),
        "versions": {
            "ssl_suite": ssl_suite.__version__,
            "scikit-learn": sklearn.__version__,
            "torch": torch.__version__,
        },
    }


def learned_centres(recipe: Recipe, frames: Frames, data: Speech, out: Path) -> Tensor:
    """(k, D), from the folder where they are there already.

    Mini-batch k-means as HuBERT's authors run it: k-means++, the best of 20 starts, batches of 10,000 frames.
    """
    from sklearn.cluster import MiniBatchKMeans

    if (out / CARD).exists():  # which is written behind them, and says of what they are
        return load_file(str(out / CENTRES))["centres"]
    sample = sampled(recipe, frames, data)
    if len(sample) < recipe.units:
        raise UserError(f"{recipe.source} gives {len(sample):,} frames to k-means, fewer than --units {recipe.units}.")
    learner = MiniBatchKMeans(
        recipe.units, init="k-means++", n_init=20, batch_size=10_000, max_iter=100, tol=0.0, max_no_improvement=100,
        reassignment_ratio=0.0, compute_labels=False, random_state=recipe.seed,
    )  # fmt: skip
    rank_zero_info(f"k-means: {recipe.units} centres of {len(sample):,} frames, the best of {learner.n_init} starts")
    centres = torch.from_numpy(learner.fit(sample).cluster_centers_).float()
    with replacing(out / CENTRES) as temporary:
        save_file({"centres": centres.contiguous()}, str(temporary))
    return centres


def sampled(recipe: Recipe, frames: Frames, data: Speech) -> NDArray[np.float32]:
    """(N, D) the frames of recordings drawn at random, until they last long enough."""
    lengths, chosen, seconds = data.lengths("train"), list[int](), 0.0
    generator = torch.Generator().manual_seed(item_seed(recipe.seed, 0, len(lengths)))
    for i in torch.randperm(len(lengths), generator=generator).tolist():
        if seconds >= recipe.hours * 3600:
            break
        chosen.append(i)
        seconds += lengths[i]
    keys = EvalSampler(len(chosen), data.eval_batch_size, [lengths[i] for i in chosen], budget=data.eval_budget).keys
    batches = [[(epoch, chosen[i]) for epoch, i in batch] for batch in keys]
    found = []
    read = data.loader(batches, data.dataset("train"), False)
    for batch in told(read, "Frames for k-means", len(chosen), lambda batch: len(batch.index)):
        encoded = frames(batch)
        found.append(encoded.states[0][encoded.mask].cpu().numpy())
    return np.concatenate(found)


def assigned(nearest: Nearest, data: Speech, split: str, out: Path) -> UnitFile:
    """The units of a split, from the folder where they are there already; of several processes, each makes some."""
    path = out / f"{split}.safetensors"
    if not path.exists():
        shards = parts_of(nearest, data, split, out)
        with Lock(out / LOCK):
            if not path.exists():
                joined(shards, data, split).save(path)
    remove_parts(out / PARTS / split)
    return UnitFile.load(path)


def parts_of(nearest: Nearest, data: Speech, split: str, out: Path) -> list[Shard]:
    """The units of a split in parts of about an hour; those that are not there yet are made."""
    lengths = data.lengths(split)
    store = open_store(out / PARTS, split, lambda: in_hours(lengths), bound=float("inf"))
    if store is None:
        raise UserError(f"The disk of {out} has become full; make room, and start again: it goes on where it was.")

    def make(numbers: Iterator[int]) -> None:
        for number, shard in encoded_shards(data, split, nearest, store.plan, numbers, torch.float32):
            store.write(number, shard())

    return store.complete(make, first=os.getpid() % len(store.plan))


def in_hours(lengths: Any) -> Plan:
    """Cuts a split into parts of about an hour."""
    starts, held = [0], 0.0
    for i, seconds in enumerate(lengths):
        if held >= HOUR:
            starts.append(i)
            held = 0.0
        held += seconds
    return Plan((*starts, len(lengths)), int(sum(lengths) * 200), False)


def joined(shards: list[Shard], data: Speech, split: str) -> UnitFile:
    """All parts as one file; of a recording that could not be read there are no units."""
    counts = torch.zeros(data.size(split) + 1, dtype=torch.long)
    counts[torch.cat([shard.index for shard in shards]) + 1] = torch.cat([shard.lengths for shard in shards])
    units = torch.cat([shard.values.flatten().to(torch.int16) for shard in shards])
    parts = zip(data.rows[split].column(data.input_column), data.utterances(split), strict=True)
    return UnitFile(units, counts.cumsum(0), torch.tensor([mark(audio, part) for audio, part in parts]))


def remove_parts(folder: Path) -> None:
    """Removes the parts of a split, unless another process still reads them: then that one will."""
    lease = Lock(folder / LEASE)
    if folder.is_dir() and lease.take(wait=False):
        shutil.rmtree(folder)
        lease.release()
        if not any(path.is_dir() for path in folder.parent.iterdir()):
            shutil.rmtree(folder.parent)
