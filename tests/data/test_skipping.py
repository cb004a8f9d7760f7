"""`on_error: skip`: every unreadable file counts once, no batch is missed, and nothing stops while some can be read."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from tiny import QUIET, differing, tiny_image_encoder

from ssl_suite.core.data import Request
from ssl_suite.core.errors import BadItem, UserError
from ssl_suite.data.image.images import Images
from ssl_suite.methods.image.simclr import SimCLR

Maker = Callable[..., Path]


@pytest.fixture
def damaged(tmp_path: Path, pictures: Maker) -> Path:
    """20 pictures of which 9 cannot be read."""
    folder = pictures(tmp_path / "train")
    for i in range(9):
        (folder / f"cat/{i:02}.png").write_text("broken")
    return folder


def images(folder: Path, **options: Any) -> Images:
    data = Images(str(folder), **{"image_size": 8, "batch_size": 2, "on_error": "skip", **options})
    data.holds_out = False
    return data


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_counts_once_over_all_epochs(workers: int, damaged: Path) -> None:
    data = images(damaged, num_workers=workers)
    data.serve(Request())
    for _ in range(3):
        seen = [i for batch in data.eval_dataloader("train") for i in batch.index.tolist()]
        assert len(seen) == 11
    assert data.skipped.value == 9
    with pytest.warns(UserWarning, match="9 unreadable samples were skipped"):
        data.teardown("fit")


def test_a_training_batch_with_nothing_left_is_made_of_the_next_that_can_be_read(damaged: Path) -> None:
    data = images(damaged)
    data.serve(Request())
    dataset = data.dataset("train", training=True)
    assert [item.index for item in dataset.__getitems__([(0, 1), (0, 3)])] == [9, 10]
    assert [item.index for item in dataset.__getitems__([(0, 1), (0, 12)]) if item] == [12]
    assert [item.index for item in dataset.__getitems__([(0, 8)])] == [9]
    assert dataset.__getitems__([(4, 2)])[0].seed == data.dataset("train")[4, 9].seed
    assert data.dataset("train").__getitems__([(0, 1), (0, 3)]) == [None, None]  # evaluation sees each once
    assert len(list(data.train_dataloader())) == len(data.train_dataloader()) == 10


def test_nothing_that_can_be_read_is_one_sentence(tmp_path: Path) -> None:
    for i in range(5):
        (tmp_path / f"{i}.png").write_text("broken")
    data = images(tmp_path)
    data.serve(Request())
    with pytest.raises(UserError, match="every sample of the train split is unreadable"):
        next(iter(data.train_dataloader()))
    with pytest.raises(UserError, match="Every sample was unreadable"):
        next(iter(data.eval_dataloader("train")))


def test_a_run_with_unreadable_files_resumes_exactly(damaged: Path, tmp_path: Path) -> None:
    def fit(checkpoint: Path | None) -> dict[str, Any]:
        pl.seed_everything(1 if checkpoint is None else 2, verbose=False)
        model = SimCLR(tiny_image_encoder(), projection_dim=8)
        pl.seed_everything(7, verbose=False)
        saving = ModelCheckpoint(tmp_path / "saved", "{step}", save_top_k=-1, every_n_train_steps=1)
        trainer = pl.Trainer(
            max_epochs=2, accelerator="cpu", callbacks=[] if checkpoint else [saving], default_root_dir=tmp_path,
            num_sanity_val_steps=0, enable_checkpointing=checkpoint is None, **QUIET,
        )  # fmt: skip
        trainer.fit(model, images(damaged), ckpt_path=checkpoint, weights_only=True)
        assert trainer.global_step == 20
        return model.state_dict()

    straight = fit(None)
    for step in (3, 10, 17):
        assert not differing(straight, fit(tmp_path / f"saved/step={step}.ckpt"))


def test_features_computed_while_skipping_are_not_served_to_a_run_that_stops(damaged: Path) -> None:
    def encode(batch: Any) -> Any:
        from ssl_suite.core.encoder import Encoded

        states = batch.images.float().mean((2, 3))[:, None]
        return Encoded((states,), torch.ones(len(states), 1, dtype=torch.bool), states[:, 0])

    for _ in range(2):  # the second time they come from the cache
        data = images(damaged)
        data.serve(Request(target="class"))
        data.use_features(encode, "key")
        assert (len(data.features("train")), data.skipped.value) == (11, 9)
    data = images(damaged, on_error="raise")
    data.serve(Request(target="class"))
    data.use_features(encode, "key")
    with pytest.raises(BadItem, match=r"00\.png"):
        data.features("train")


def test_datasets_go_to_processes_that_are_not_forked(damaged: Path) -> None:
    data = images(damaged)
    data.serve(Request())
    assert ForkingPickler.dumps(data.dataset("train"))
