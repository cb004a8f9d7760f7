"""Views and training crops are cut from the whole picture at its own size, as torchvision cuts them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import Callback, Trainer
from scipy.stats import ks_2samp
from tiny import QUIET, differing, tiny_image_encoder, values
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as tv

from ssl_suite.core.batch import ImageBatch
from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError
from ssl_suite.core.features import FeatureBatch
from ssl_suite.core.finetune import Finetune
from ssl_suite.core.random import item_seed
from ssl_suite.data.image.augment import PRESETS, View
from ssl_suite.data.image.crop import crop_box, cut, fit
from ssl_suite.data.image.images import Images, to_uint8
from ssl_suite.tasks.classify import Classify

ONLY_CROP = View(crop=(0.08, 1.0), flip=0.0, jitter_p=0.0, grey=0.0, blur=0.0)
SMALL = View(crop=(0.08, 0.08), flip=0.0, jitter_p=0.0, grey=0.0, blur=0.0)
N = 2000
CLASS = Request(target="class")


def photo(width: int = 500, height: int = 375, seed: int = 0) -> Image.Image:
    """Noise, finer than any resized picture could hold."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def photos(folder: Path, sizes: list[tuple[int, int]]) -> Path:
    """A training split of two classes, and a validation split of two pictures."""
    for split, shapes in {"train": sizes, "validation": [(40, 30), (30, 40)]}.items():
        for i, size in enumerate(shapes):
            place = folder / split / ("a" if i % 2 else "b") / f"{i}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            photo(*size, seed=i).save(place)
    return folder


def served(folder: Path, request: Request, **options: object) -> Images:
    data = Images(str(folder), **{"image_size": 24, "batch_size": 4, **options})  # type: ignore[arg-type]
    data.serve(request)
    return data


def batches(data: Images) -> list[ImageBatch]:
    return [data.finish(batch) for batch in data.train_dataloader()]  # type: ignore[misc]


def test_boxes_are_torchvisions() -> None:
    crop = v2.RandomResizedCrop(224)
    theirs = [crop.make_params([torch.empty(3, 375, 500)]) for _ in range(N)]
    boxes = np.array([crop_box(item_seed(0, 0, i), View(), 500, 375, 0) for i in range(N)])
    left, top, right, bottom = boxes.T
    for name, mine in {"left": left, "top": top, "width": right - left, "height": bottom - top}.items():
        assert ks_2samp(mine, [t[name] for t in theirs]).pvalue > 1e-3, name
    assert (left.min(), top.min(), right.max(), bottom.max()) == (0, 0, 500, 375)


@pytest.mark.parametrize(("size", "box"), [((100, 20), (36, 0, 63, 20)), ((20, 100), (0, 36, 20, 63))])
def test_where_no_crop_fits_it_is_the_greatest_in_the_middle(size: tuple[int, int], box: tuple[int, ...]) -> None:
    view = View(crop=(0.9, 1.0))  # torchvision: ratio clamped to 3/4 or 4/3, int() for the corner
    mine = crop_box(0, view, *size, 0)
    theirs = v2.RandomResizedCrop(8, scale=(0.9, 1.0)).make_params([torch.empty(3, size[1], size[0])])
    assert mine == (
        theirs["left"],
        theirs["top"],
        theirs["left"] + theirs["width"],
        theirs["top"] + theirs["height"],
    )
    assert mine == box


@pytest.mark.parametrize("view", [ONLY_CROP, SMALL])
@pytest.mark.parametrize("seed", range(4))
def test_a_cut_is_torchvisions_resized_crop_of_the_same_box(view: View, seed: int) -> None:
    picture = photo()
    left, top, right, bottom = crop_box(seed, view, 500, 375, 1)
    expected = tv.resized_crop(
        picture, top, left, bottom - top, right - left, [224, 224], InterpolationMode.BICUBIC, antialias=True
    )
    assert np.array_equal(np.asarray(cut(picture, seed, view, 224, 1)), np.asarray(expected))


def test_a_small_crop_is_of_real_pixels() -> None:
    """8 % of 500 × 375 is about 122 pixels a side; of the centre at 224 pixels it would be 63, enlarged."""
    left, top, right, bottom = crop_box(3, SMALL, 500, 375, 0)
    assert (right - left) * (bottom - top) == pytest.approx(0.08 * 500 * 375, rel=0.02)
    fine = np.asarray(cut(photo(), 3, SMALL, 224, 0), np.float32)
    enlarged = np.asarray(cut(fit(photo(), 224), 3, SMALL, 224, 0), np.float32)
    assert np.abs(np.diff(fine, axis=1)).mean() > 2 * np.abs(np.diff(enlarged, axis=1)).mean()


def test_a_batch_has_the_views_cut_from_its_pictures(tmp_path: Path) -> None:
    sizes = [(50, 37), (24, 60), (100, 30), (33, 33)]
    data = served(photos(tmp_path, sizes), Request(views="simclr"), view=ONLY_CROP)
    (batch,) = batches(data)
    for row, index in enumerate(batch.index.tolist()):
        picture = Image.open(data.rows["train"][index]["image"]["path"])
        for number in (0, 1):
            expected = cut(picture, item_seed(0, 0, index), ONLY_CROP, 24, number)
            torch.testing.assert_close(batch.views[number][row], to_uint8(expected) / 255, atol=1e-5, rtol=0)


def as_dict(found: list[ImageBatch]) -> dict[int, tuple[Tensor, ...]]:
    return {int(i): tuple(v[row] for v in batch.views) for batch in found for row, i in enumerate(batch.index)}


@pytest.mark.parametrize("options", [{"num_workers": 2}, {"in_memory": False}, {"batch_size": 2}, {"batch_size": 3}])
def test_views_depend_on_item_and_seed_alone(options: dict[str, int], tmp_path: Path) -> None:
    """Some pictures have the size of images, so that their views are cut on the device, others do not."""
    folder = photos(tmp_path, [(24, 24), (50, 37), (24, 24), (24, 60), (24, 24), (24, 24)])
    request = Request(views="byol")
    one = as_dict(batches(served(folder, request, batch_size=6)))
    other = as_dict(batches(served(folder, request, **options)))
    assert len(other) >= 4
    for index, views in other.items():
        for mine, theirs in zip(views, one[index], strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)


def test_pictures_of_the_right_size_are_left_to_the_device(tmp_path: Path) -> None:
    data = served(photos(tmp_path, [(24, 24)] * 4), Request(views="simclr"))
    (batch,) = data.train_dataloader()
    assert batch.views == ()
    assert batch.cut is None


def test_a_method_may_ask_for_views_of_two_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = View(crop=(0.05, 0.4), size=10)
    monkeypatch.setitem(PRESETS, "multi-crop", (View(crop=(0.4, 1.0)), View(crop=(0.4, 1.0)), local, local, local))
    for sizes in ([(24, 24)] * 4, [(24, 24), (50, 37), (60, 24), (24, 24)]):
        data = served(photos(tmp_path / str(len(set(sizes))), sizes), Request(views="multi-crop"))
        (batch,) = batches(data)
        assert [tuple(v.shape) for v in batch.views] == [(4, 3, 24, 24)] * 2 + [(4, 3, 10, 10)] * 3
        assert batch.view(2, 3, 4).images.shape == (12, 3, 10, 10)


# Training with labels -------------------------------------------------------------------------------------------------


def test_training_sees_crops_and_evaluation_never(tmp_path: Path) -> None:
    folder = photos(tmp_path, [(50, 37), (24, 24), (24, 60), (33, 33)])
    plain, data = (served(folder, CLASS, augment=how, view=ONLY_CROP) for how in ("none", "crop"))
    (batch,) = batches(data)
    for row, index in enumerate(batch.index.tolist()):
        picture = Image.open(data.rows["train"][index]["image"]["path"])
        expected = to_uint8(cut(picture, item_seed(0, 0, index), ONLY_CROP, 24, 0)) / 255
        torch.testing.assert_close(batch.images[row], expected)
    for split in ("train", "validation"):
        assert data.fingerprint(split) == plain.fingerprint(split)
        for mine, theirs in zip(data.eval_dataloader(split), plain.eval_dataloader(split), strict=True):
            assert torch.equal(mine.images, theirs.images)


def test_half_of_the_training_crops_are_flipped(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(24, dtype=np.uint8) * 10, (24, 1))
    Image.fromarray(np.dstack([ramp] * 3)).save(tmp_path / "ramp.png")
    data = served(tmp_path, Request(), augment="crop", view=View(crop=(1.0, 1.0), ratio=(1.0, 1.0)))
    images = [data.read_for_training(0, item_seed(0, epoch, 0)).image for epoch in range(400)]
    flipped = [bool(image[0, 0, 0] > image[0, 0, -1]) for image in images]
    assert np.mean(flipped) == pytest.approx(0.5, abs=0.075)


@pytest.mark.parametrize("how", ["crop", "randaugment"])
def test_training_crops_depend_on_item_and_epoch_alone(how: str, tmp_path: Path) -> None:
    folder = photos(tmp_path, [(50, 37), (24, 24), (24, 60), (33, 33)])
    one, two = (served(folder, CLASS, augment=how, num_workers=n, batch_size=b) for n, b in ((0, 4), (2, 2)))
    first = {int(i): image for b in batches(one) for i, image in zip(b.index, b.images, strict=True)}
    torch.rand(3)  # the run's own stream has no say
    second = {int(i): image for b in batches(two) for i, image in zip(b.index, b.images, strict=True)}
    assert all(torch.equal(first[i], second[i]) for i in range(4))
    later = one.read_for_training(0, item_seed(0, 1, 0)).image / 255
    assert not torch.equal(later, first[0])


def test_randaugment_is_torchvisions_on_the_crop(tmp_path: Path) -> None:
    folder, seed = photos(tmp_path, [(50, 37), (24, 24)]), item_seed(0, 0, 0)
    crop, more = (served(folder, CLASS, augment=how).read_for_training(0, seed) for how in ("crop", "randaugment"))
    torch.manual_seed(seed)
    expected = v2.RandAugment()(Image.fromarray(crop.image.permute(1, 2, 0).numpy()))
    assert torch.equal(more.image, to_uint8(expected))


class Served(Callback):
    """What training and validation are given."""

    def __init__(self) -> None:
        self.trained: list[Any] = []
        self.validated: list[Any] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.trained.append(batch)

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, batch: Any, *_: int) -> None:
        self.validated.append(batch)


@pytest.mark.parametrize("mode", ["probe", "finetune"])
def test_augmented_images_go_through_the_encoder_in_every_step(mode: Any, tmp_path: Path) -> None:
    """A probe of them reads validation from features, and is standardised by the images as they are."""
    data = Images(str(photos(tmp_path, [(50, 37), (24, 24)] * 10)), image_size=24, batch_size=32, augment="crop")
    model, seen = Finetune(encoder := tiny_image_encoder(), Classify(), mode=mode), Served()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    trainer = Trainer(
        max_epochs=2, accelerator="cpu", enable_checkpointing=False, num_sanity_val_steps=0, callbacks=[seen], **QUIET
    )
    trainer.fit(model, datamodule=data)
    first, second = seen.trained
    assert isinstance(first, ImageBatch)
    assert isinstance(second, ImageBatch)
    assert not torch.equal(first.images[first.index.argsort()], second.images[second.index.argsort()])
    assert all(isinstance(batch, FeatureBatch if mode == "probe" else ImageBatch) for batch in seen.validated)
    assert (differing(before, encoder.state_dict()) == []) == (mode == "probe")
    if mode == "probe":
        vectors = values(data.features("train"))
        torch.testing.assert_close(model.readout.shift, vectors.mean(0), atol=1e-5, rtol=1e-4)


def test_a_method_with_views_refuses_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="for training without views"):
        served(photos(tmp_path, [(24, 24)] * 2), Request(views="simclr"), augment="crop")
