"""Frozen features are computed once for a data set and its options, and again when either changes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import values

from ssl_suite.core.batch import Batch
from ssl_suite.core.data import Request
from ssl_suite.core.encoder import Encoded
from ssl_suite.data.image.images import Images

Maker = Callable[..., Path]


@pytest.fixture
def count() -> list[int]:
    """Number of batches the encoder has seen."""
    return [0]


def served(folder: Path, count: list[int], key: str = "encoder", **options) -> Images:
    data = Images(str(folder), **{"image_size": 8, "batch_size": 8, **options})
    data.serve(Request(target="class"))

    def encode(batch: Batch) -> Encoded:
        count[0] += 1
        means = data.finish(batch).images.mean((2, 3))
        return Encoded((means[:, None],), torch.ones(len(means), 1, dtype=torch.bool), means)

    data.use_features(encode, key)
    return data


def test_they_are_computed_once(tmp_path: Path, pictures: Maker, count: list[int]) -> None:
    pictures(tmp_path / "data")
    first = served(tmp_path / "data", count)
    before = values(first.features("train"))
    seen = count[0]
    assert seen > 0
    for batch in first.eval_dataloader("train"):
        assert batch.features.shape[1:] == (1, 1, 3)
    assert count[0] == seen
    torch.testing.assert_close(values(served(tmp_path / "data", count).features("train")), before)
    assert count[0] == seen


@pytest.mark.parametrize("change", ["encoder", "size", "rows", "split", "replaced", "disk"])
def test_they_are_computed_again(
    change: str, tmp_path: Path, pictures: Maker, picture: Maker, count: list[int]
) -> None:
    folder = pictures(tmp_path / "data")
    before = values(served(folder, count).features("train"))
    seen = count[0]
    if change == "encoder":
        served(folder, count, "another").features("train")
    elif change == "size":
        served(folder, count, image_size=6).features("train")
    elif change == "rows":
        assert len(served(folder, count, labels=4).features("train")) == 4
    elif change == "split":
        served(folder, count).features("validation")
    elif change == "replaced":
        for path in folder.rglob("*.png"):
            picture(path, 10)
            os.utime(path, ns=(1, 1))
        assert not torch.equal(values(served(folder, count).features("train")), before)
    else:
        [path] = Path(os.environ["SSL_SUITE_CACHE"]).glob("features/*/*.safetensors")
        path.write_bytes(path.read_bytes()[:50])  # damaged: made again
        torch.testing.assert_close(values(served(folder, count).features("train")), before)
    assert count[0] > seen


def test_targets_go_with_their_items(tmp_path: Path, pictures: Maker, count: list[int]) -> None:
    data = served(pictures(tmp_path / "data"), count)
    for batch in data.train_dataloader():
        bright = batch.features[:, 0, 0].mean(1) > 0.5
        assert (bright.long() == batch.target).all()


def test_skipped_items_have_no_features(tmp_path: Path, pictures: Maker, count: list[int]) -> None:
    folder = pictures(tmp_path / "data")
    (folder / "cat/03.png").write_text("broken")
    data = served(folder, count, on_error="skip")
    whole = data.size("train") + data.size("validation")
    assert len(data.features("train")) + len(data.features("validation")) == whole - 1
