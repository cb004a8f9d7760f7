"""What a probe is served is the same, however its features are kept, shared out, or made anew in every epoch."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from processes import run_processes
from pytorch_lightning.plugins.environments import LightningEnvironment
from tiny import QUIET, differing, tiny_image_encoder, tiny_speech_encoder, tiny_text_encoder, values
from torch import Tensor

from ssl_suite.core import features as features_module
from ssl_suite.core.data import DataModule, Request
from ssl_suite.core.encoder import Encoded
from ssl_suite.core.errors import UserError
from ssl_suite.core.finetune import Finetune
from ssl_suite.core.frozen import Room
from ssl_suite.core.optim import Optim
from ssl_suite.data.image.images import Images
from ssl_suite.data.speech.speech import Speech
from ssl_suite.data.text.sequences.tagged import TaggedWords
from ssl_suite.data.text.text import Text
from ssl_suite.tasks.classify import Classify
from ssl_suite.tasks.ctc import CTC
from ssl_suite.tasks.tag import Tag

KINDS = ("images", "speech", "transcripts", "tags")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SSL_SUITE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def sentences(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for split, n in {"train": 20, "validation": 7}.items():
        rows = [rng.choice(["a", "cat", "sees", "dogs"], rng.integers(1, 9)).tolist() for _ in range(n)]
        lines = [json.dumps({"words": words, "label": [word[0] for word in words]}) for words in rows]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    return tmp_path


def probe(kind: str, places: dict[str, str], **options: Any) -> tuple[Finetune, DataModule]:
    torch.manual_seed(0)
    if kind == "images":
        return Finetune(tiny_image_encoder(), Classify(), **options), Images(places["images"], 16, batch_size=4)
    if kind == "tags":
        model = Finetune(tiny_text_encoder(), Tag(), "weighted_sum", **options)
        return model, Text(places["tags"], column="words", tokenizer="byte", batch_size=4)
    if kind == "transcripts":
        return Finetune(tiny_speech_encoder(), CTC(), **options), Speech(places["speech"], batch_seconds=1.0)
    return Finetune(tiny_speech_encoder(), Classify(), "weighted_sum", **options), Speech(
        places["speech"], batch_size=4
    )


class Losses(pl.Callback):
    def __init__(self) -> None:
        self.losses: list[float] = []
        self.kinds: set[str] = set()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses.append(float(outputs["loss"]))
        self.kinds.add(type(batch).__name__)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self.losses.append(float(trainer.callback_metrics["val/loss"]))


def fit(model: Finetune, data: DataModule, folder: Path, **options: Any) -> Losses:
    seen = Losses()
    pl.seed_everything(3, verbose=False)
    pl.Trainer(
        **{"max_epochs": 2, "accelerator": "cpu", "callbacks": [seen], "default_root_dir": folder, **QUIET, **options},
        enable_checkpointing=False, num_sanity_val_steps=0,
    ).fit(model, data)  # fmt: skip
    return seen


@pytest.fixture
def places(image_folder: str, speech_folder: str, sentences: Path) -> dict[str, str]:
    return {"images": image_folder, "speech": speech_folder, "tags": str(sentences)}


@pytest.mark.parametrize("kind", KINDS)
def test_the_encoder_in_the_loop_learns_what_features_teach(
    kind: str, places: dict[str, str], cache: Path, tmp_path: Path
) -> None:
    kept = fit(*probe(kind, places), tmp_path)
    assert kept.kinds == {"FeatureBatch"}
    with pytest.warns(UserWarning, match=r"train split would take .* GB, more than model.room.disk_gb \(1e-09\) or"):
        loop = fit(*probe(kind, places, room=Room(disk_gb=1e-9)), tmp_path)
    assert "FeatureBatch" not in loop.kinds
    assert loop.losses == pytest.approx(kept.losses, rel=2e-3, abs=2e-4)


def test_an_unreadable_item_is_left_out_of_the_loop_as_of_features(cache: Path, tmp_path: Path) -> None:
    for i in range(12):
        path = tmp_path / f"data/{'train' if i < 8 else 'validation'}/{i % 2}/{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    (tmp_path / "data/train/1/3.png").write_text("broken")

    def batches(**options: Any) -> list[list[int]]:
        torch.manual_seed(0)
        data = Images(str(tmp_path / "data"), 16, batch_size=3, on_error="skip")
        seen: list[list[int]] = []
        model = Finetune(tiny_image_encoder(), Classify(), **options)
        model.training_step = lambda batch, i, step=model.training_step: (  # type: ignore[method-assign,misc]
            seen.append(batch.index.tolist()) or step(batch, i)
        )
        fit(model, data, tmp_path)
        assert data.skipped.value == 1
        return seen

    assert batches() == batches(room=Room(disk_gb=0.0)) == batches(room=Room(keep=False))


@pytest.mark.parametrize("kind", KINDS)
def test_many_shards_hold_what_one_does(
    kind: str, places: dict[str, str], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made() -> tuple[int, Tensor, list[float]]:
        model, data = probe(kind, places)
        losses = fit(model, data, tmp_path).losses
        features = data.features("train")
        assert features is not None
        return len(features.shards), values(features), losses

    one = made()
    monkeypatch.setattr(features_module, "SHARD", 400)
    monkeypatch.setenv("SSL_SUITE_CACHE", str(tmp_path / "another"))
    many = made()
    assert (one[0], many[0] > 2) == (1, True)
    torch.testing.assert_close(many[1], one[1], atol=1e-5, rtol=1e-4)
    assert many[2] == pytest.approx(one[2], rel=2e-3, abs=2e-4)


def test_features_at_half_precision(places: dict[str, str], cache: Path, tmp_path: Path) -> None:
    whole, half = (probe("images", places, features=kind) for kind in ("float32", "float16"))
    losses = [fit(*one, tmp_path).losses for one in (whole, half)]
    full, rounded = (values(data.features("train")) for _, data in (whole, half))
    assert torch.equal(rounded, full.half())
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
    data = whole[1]
    data.use_features(lambda batch: flat(data.finish(batch).images * 1e5), "key", dtype=torch.float16)
    with pytest.raises(UserError, match=r"larger than float16 can hold; take --model\.features float32"):
        data.features("train")


def flat(images: Tensor) -> Encoded:
    vectors = images.mean((2, 3))
    return Encoded((vectors[:, None],), torch.ones(len(images), 1, dtype=torch.bool), vectors)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_features_are_of_the_runs_precision(
    precision: Any, places: dict[str, str], cache: Path, tmp_path: Path
) -> None:
    model, data = probe("images", places)
    seen: list[torch.dtype] = []
    model.encoder.register_forward_hook(lambda *call: seen.append(call[-1].states[-1].dtype))
    fit(model, data, tmp_path, precision=precision)
    assert set(seen) == {torch.float32 if precision == "32-true" else torch.bfloat16}
    assert values(data.features("train")).dtype == torch.float32


def test_features_of_another_column_or_of_words_are_others(cache: Path, tmp_path: Path) -> None:
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text('{"a": "x y", "b": "x z", "label": "1"}\n')
    names = []
    for column in ("a", "b"):
        data = Text(str(tmp_path), column=column, tokenizer="byte")
        data.serve(Request(target="class", longest=16))
        names.append(data.fingerprint("train"))
        data.items["train"] = TaggedWords(data.rows["train"], [column])
        names.append(data.fingerprint("train"))
    assert len(set(names)) == 4


# Ranks -----------------------------------------------------------------------------------------------------------


def few(folder: Path) -> str:
    """Nine images to learn from, and one to be judged by."""
    for split, n in {"train": 9, "validation": 1, "test": 1}.items():
        for i in range(n):
            path = folder / split / str(i % 2) / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.random.default_rng(i).integers(0, 256, (16, 16, 3), np.uint8)).save(path)
    return str(folder)


ROOMS = {"disk": Room(), "memory": Room(keep=False), "loop": Room(disk_gb=0.0)}


class SameHead(pl.Callback):
    """Gives every process the same head, which a learning rate of 0 leaves as it is."""

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        for parameter in pl_module.task.parameters():
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))


def judged(source: str, folder: Path, room: Room, **options: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    features_module.SHARD = 40.0
    model, data = Finetune(tiny_image_encoder(), Classify(), room=room, optim=Optim(lr=0.0)), Images(source, 16)
    data.batch_size = data.eval_batch_size = 2
    seen: list[int] = []
    model.encoder.register_forward_pre_hook(lambda _, call: seen.extend(call[0].index.tolist()))
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", default_root_dir=folder, enable_checkpointing=False, callbacks=[SameHead()],
        **QUIET, **options,
    )  # fmt: skip
    trainer.fit(model, data)
    figures = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val")}
    figures |= trainer.test(model, data, verbose=False)[0]
    readout = {"shift": model.readout.shift.clone(), "scale": model.readout.scale.clone()}
    return {"readout": readout, "figures": figures, "seen": seen, "examples": model.examples("test")}


def worker(rank: int, port: int, folder: str, source: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank), "NODE_RANK": "0",
        "SSL_SUITE_CACHE": f"{folder}/cache", "PL_GLOBAL_SEED": "0",
    }  # fmt: skip
    for name, room in ROOMS.items():
        found = judged(source, Path(folder), room, strategy="ddp", devices=2, plugins=[LightningEnvironment()])
        torch.save(found, f"{folder}/{name}{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    run_processes(worker, 2, str(folder), few(folder / "data"))
    return folder


@pytest.mark.parametrize("name", ROOMS)
def test_ranks_standardise_alike_and_as_one_process_and_none_waits_for_a_validation_item(
    name: str, ranks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_SUITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(features_module, "SHARD", features_module.SHARD)
    a, b = (torch.load(ranks / f"{name}{rank}.pt", weights_only=True) for rank in range(2))
    alone = judged(str(ranks / "data"), tmp_path, ROOMS[name])
    assert differing(a["readout"], b["readout"]) == []
    assert differing(a["readout"], alone["readout"]) == []
    for key, value in alone["figures"].items():
        assert (a["figures"][key], b["figures"][key]) == (pytest.approx(value), pytest.approx(value)), key
    assert [tuple(row) for row in a["examples"]] == alone["examples"]


def test_ranks_never_encode_the_same_item_for_features(ranks: Path) -> None:
    """Of 9 + 1 + 1 items, apart from the one of each split that shows what the others take."""
    for name in ("disk", "memory"):
        seen = [torch.load(ranks / f"{name}{rank}.pt", weights_only=True)["seen"] for rank in range(2)]
        trained = sorted(i for one in seen for i in one if i)
        assert trained == list(range(1, 9)), name
        assert all(len(one) > 1 for one in seen)
