"""Two processes, averaged as DDP averages, learn what one process learns from the whole batch."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from processes import run_processes
from pytorch_lightning.plugins.environments import LightningEnvironment
from tiny import QUIET, differing, speech_batch, tiny_text_encoder
from torch import Tensor, nn
from upstreams import UPSTREAMS, with_units

from ssl_suite.core import probes
from ssl_suite.core.batch import ImageBatch, JointBatch, SpeechBatch, TextBatch
from ssl_suite.core.data import Request
from ssl_suite.core.encoder import Encoded, Encoder, Tokens
from ssl_suite.core.probes import KNN, OnlineProbe, knn_predict
from ssl_suite.data.image.images import Images
from ssl_suite.methods.any.contrast import Contrast
from ssl_suite.methods.image.byol import BYOL
from ssl_suite.methods.image.simclr import SimCLR
from ssl_suite.methods.text.causal_lm import CausalLM
from ssl_suite.methods.text.masked_lm import MaskedLM

WORLD = 2


class Flat(Encoder):
    """Pixels, a layer and a layer norm: no item sees another."""

    modality = "image"

    def __init__(self, side: int) -> None:
        super().__init__()
        self.dim, self.num_states = 6, 1
        self.net = nn.Sequential(nn.Linear(3 * side * side, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 6))

    def embed(self, batch: ImageBatch) -> Tokens:
        pixels = batch.images.flatten(1)[:, None]
        return Tokens(pixels, torch.ones(len(pixels), 1, dtype=torch.bool), dense=True)

    def contextualise(self, tokens: Tokens) -> Encoded:
        x = self.net(tokens.values)
        return Encoded((x,), tokens.mask, x[:, 0])


def method(name: str) -> Any:
    torch.manual_seed(0)
    if name in UPSTREAMS:
        return UPSTREAMS[name]()
    if name == "SimCLR":
        return SimCLR(Flat(4), 0.5, 8, batch_norm=False)
    if name.startswith("Contrast"):
        return Contrast({"a": Flat(4), "b": Flat(4)}, "sigmoid" if "sigmoid" in name else "softmax", 8)
    if name == "MaskedLM":
        model = MaskedLM(tiny_text_encoder(dropout=0.0))
        model.special, model.mask_id, model.vocab_size = torch.arange(5), 4, 261
        return model
    if name == "CausalLM":
        model = CausalLM(tiny_text_encoder(causal=True, dropout=0.0))
        model.end_id = 3
        return model
    model = BYOL(Flat(4), 16, 8)
    for head in (model.projector, model.predictor, model.teacher_projector):
        head.layers = nn.Sequential(*(m for m in head.layers if not isinstance(m, nn.BatchNorm1d)))
    return model


def batch(name: str, rows: slice) -> Any:
    torch.manual_seed(1)
    index = torch.arange(8)
    if name in UPSTREAMS:
        whole = with_units(speech_batch([6400, 2300, 4100, 1600, 3000, 5200, 3700, 2000]))
        assert isinstance(whole.target, Tensor)
        return SpeechBatch(index[rows], index[rows], whole.target[rows], whole.wave[rows], whole.lengths[rows])
    if name in ("SimCLR", "BYOL"):
        views = torch.rand(2, 8, 3, 4, 4)[:, rows]
        return ImageBatch(index[rows], index[rows], None, views[0], tuple(views))
    if name.startswith("Contrast"):
        parts = [ImageBatch(index[rows], index[rows], None, torch.rand(8, 3, 4, 4)[rows]) for _ in range(2)]
        return JointBatch(index[rows], index[rows], None, dict(zip("ab", parts, strict=True)))
    ids = torch.randint(5, 261, (8, 20))[rows]
    return TextBatch(index[rows], index[rows], None, ids, torch.ones_like(ids, dtype=torch.bool), dense=True)


def gradients(name: str, rows: slice, world: int) -> tuple[dict[str, Tensor], float]:
    model = method(name)
    out = model.step(batch(name, rows))
    counts = {n: torch.as_tensor(term.count).float() for n, term in out.terms.items()}
    for count in counts.values():
        if world > 1:
            torch.distributed.all_reduce(count)
    mean = world * out.total(counts) if counts else out.total()
    mean.backward()
    loss, found = mean.detach().clone(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    for tensor in [loss, *found.values()]:
        if world > 1:
            torch.distributed.all_reduce(tensor)
            tensor /= world
    model.after_step()
    moved = {n: b for n, b in model.named_buffers() if n.startswith("codebooks")}
    return found | moved, float(loss)


class Seen(pl.Callback):
    """Which items each epoch trained on."""

    def __init__(self) -> None:
        self.items: list[list[int]] = [[], []]

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.items[trainer.current_epoch] += batch.index.tolist()


class Banked(KNN):
    """Remembers the last bank that voted."""

    bank: Tensor

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(probes, "knn_predict", lambda q, bank, *rest: self.keep(bank) or knn_predict(q, bank, *rest))
            super().on_validation_epoch_end(trainer, pl_module)

    def keep(self, bank: Tensor) -> None:
        self.bank = bank


NAMES = ["SimCLR", "BYOL", "MaskedLM", "CausalLM", "Contrast", "Contrast, sigmoid", *UPSTREAMS]


def worker(rank: int, port: int, folder: str, images: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(WORLD)}
    limit = datetime.timedelta(seconds=60)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=WORLD, timeout=limit)
    found = {name: gradients(name, slice(rank * 4, rank * 4 + 4), WORLD) for name in NAMES}
    torch.save(found, f"{folder}/gradients{rank}.pt")
    torch.distributed.destroy_process_group()

    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_PORT": str(port + 1), "PL_GLOBAL_SEED": "0"}
    model, data, seen = SimCLR(Flat(8), 0.5, 8), Images(images, image_size=8, batch_size=2), Seen()
    torch.manual_seed(rank)  # a head of its own on each rank is told from the same one
    probe, knn = OnlineProbe(), Banked(k=3)
    trainer = pl.Trainer(
        accelerator="cpu", devices=WORLD, strategy="ddp", max_epochs=2, default_root_dir=folder,
        plugins=[LightningEnvironment()], enable_checkpointing=False,
        callbacks=[seen, probe, knn],
        **QUIET,
    )  # fmt: skip
    trainer.fit(model, data)
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    figures = {k: float(v) for k, v in trainer.callback_metrics.items()}
    found = {"seen": seen.items, "weights": weights, "figures": figures, "head": probe.state_dict()["head"]}
    found |= {"bank": knn.bank, "encoder": model.encoder.state_dict()}
    torch.save(found, f"{folder}/fit{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory, image_folder: str) -> Path:
    folder = tmp_path_factory.mktemp("ddp")
    run_processes(worker, WORLD, str(folder), image_folder)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_have_the_gradient_of_one_with_the_whole_batch(name: str, two_processes: Path) -> None:
    whole, loss = gradients(name, slice(None), 1)
    for rank in range(WORLD):
        found, mean = torch.load(two_processes / f"gradients{rank}.pt", weights_only=True)[name]
        assert mean == pytest.approx(loss, abs=1e-5)
        assert found.keys() == whole.keys()
        for key, gradient in whole.items():
            torch.testing.assert_close(found[key], gradient, atol=1e-6, rtol=1e-4, msg=lambda m, k=key: f"{k}: {m}")


def test_ranks_train_on_disjoint_images_and_keep_equal_weights(two_processes: Path) -> None:
    a, b = (torch.load(two_processes / f"fit{r}.pt", weights_only=True) for r in range(WORLD))
    for epoch in range(2):
        assert len(a["seen"][epoch]) == len(b["seen"][epoch]) == 6
        assert not set(a["seen"][epoch]) & set(b["seen"][epoch])
    assert a["seen"][0] != a["seen"][1]
    assert torch.equal(a["weights"], b["weights"])


def test_ranks_with_unequal_numbers_of_validation_batches_agree_on_the_loss(two_processes: Path) -> None:
    """5 validation images in batches of 2: rank 0 has two batches, rank 1 has one."""
    a, b = (torch.load(two_processes / f"fit{r}.pt", weights_only=True)["figures"] for r in range(WORLD))
    assert a["val/loss"] == pytest.approx(b["val/loss"])


def test_the_neighbours_of_both_ranks_vote(two_processes: Path, image_folder: str) -> None:
    """As one process with the same weights: 14 images in the bank, 5 to tell."""
    fits = [torch.load(two_processes / f"fit{r}.pt", weights_only=True) for r in range(WORLD)]
    data, encoder = Images(image_folder, image_size=8, batch_size=2), Flat(8)
    encoder.load_state_dict(fits[0]["encoder"])
    data.serve(Request(watch="class", views="simclr"))
    with torch.no_grad():
        bank, labels = KNN._embed(encoder, data, "train", torch.device("cpu"))
        queries, truth = KNN._embed(encoder, data, "validation", torch.device("cpu"))
    expected = (knn_predict(queries, bank, labels, 2, k=3) == truth).float().mean()
    for fit in fits:
        torch.testing.assert_close(fit["bank"].sort(0).values, bank.sort(0).values)
        assert fit["figures"]["knn/val_accuracy"] == pytest.approx(float(expected))


def test_ranks_learn_one_online_probe(two_processes: Path) -> None:
    a, b = (torch.load(two_processes / f"fit{r}.pt", weights_only=True)["head"] for r in range(WORLD))
    assert a["weight"].shape == (2, 6)
    assert differing(a, b) == []
