"""Batched views have torchvision's distributions, and depend on nothing but the item, its seed and the view."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from host_waits import HostWaits
from PIL import Image
from scipy.stats import ks_2samp
from torch import Tensor
from torchvision.transforms import v2

from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError
from ssl_suite.core.random import item_seed
from ssl_suite.data.image.augment import PRESETS, View, augment, blur, luma, rotate_hue
from ssl_suite.data.image.images import Images

PLAIN = View(crop=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter_p=0.0, grey=0.0, blur=0.0)
N = 2000


def with_only(**changes: object) -> View:
    return View(**{**{f: getattr(PLAIN, f) for f in PLAIN.__dataclass_fields__}, **changes})  # type: ignore[arg-type]


def seeds(n: int = N) -> Tensor:
    return torch.tensor([item_seed(0, 0, i) for i in range(n)])


def ramps(n: int, size: int = 32) -> Tensor:
    """Images whose red is x and whose green is y, so that a crop's place can be read off it."""
    line = (torch.arange(size) + 0.5) / size
    image = torch.stack([line.expand(size, size), line[:, None].expand(size, size), torch.full((size, size), 0.5)])
    return image.expand(n, 3, size, size)


def sides(views: Tensor) -> tuple[Tensor, Tensor]:
    """Width and height of the crop, as shares, from the slopes of `ramps`."""
    size = views.shape[-1]
    inner = slice(size // 4, size - size // 4)
    steps = size - 2 * (size // 4) - 1
    x, y = views[:, 0, size // 2, inner], views[:, 1, inner, size // 2]
    return (x[:, -1] - x[:, 0]).abs() / steps * size, (y[:, -1] - y[:, 0]).abs() / steps * size


def test_crops_have_torchvisions_areas_ratios_and_places() -> None:
    crop = v2.RandomResizedCrop(32, scale=(0.2, 1.0))
    torch.manual_seed(0)
    drawn = [crop.make_params([torch.empty(3, 64, 64)]) for _ in range(N)]
    area = [d["height"] * d["width"] / 64**2 for d in drawn]
    ratio = [d["width"] / d["height"] for d in drawn]
    width, height = sides(augment(ramps(N, 64), seeds(), with_only(crop=(0.2, 1.0), ratio=(3 / 4, 4 / 3)), 32, 0))
    # torchvision draws again where a crop does not fit, we shrink its longer side; torchvision's sides are whole pixels
    assert ks_2samp(area, (width * height).numpy()).statistic < 0.08
    assert ks_2samp(np.log(ratio), (width / height).log().numpy()).statistic < 0.08


def test_an_item_that_is_not_changed_comes_back() -> None:
    images = torch.rand(4, 3, 16, 16)
    torch.testing.assert_close(augment(images, seeds(4), PLAIN, 16, 0), images, atol=1e-5, rtol=0)


def test_half_of_the_images_are_flipped() -> None:
    views = augment(ramps(N), seeds(), with_only(flip=0.5), 32, 0)
    flipped = (views[:, 0, 16, 0] > views[:, 0, 16, -1]).float().mean().item()
    assert flipped == pytest.approx(0.5, abs=3 * math.sqrt(0.25 / N))


def test_a_flip_is_a_flip() -> None:
    images = torch.rand(4, 3, 16, 16)
    torch.testing.assert_close(
        augment(images, seeds(4), with_only(flip=1.0), 16, 0), images.flip(-1), atol=1e-5, rtol=0
    )


def test_a_fifth_of_the_images_is_grey_and_grey_is_pils() -> None:
    images = torch.rand(1, 3, 8, 8).expand(N, 3, 8, 8)
    views = augment(images, seeds(), with_only(grey=0.2), 8, 0)
    grey = (views.std(1) < 1e-5).flatten(1).all(1)
    assert grey.float().mean().item() == pytest.approx(0.2, abs=3 * math.sqrt(0.16 / N))
    byte = (images[0] * 255).byte()
    pil = np.array(Image.fromarray(byte.permute(1, 2, 0).numpy()).convert("L"))
    assert np.abs((luma(byte[None].float())[0, 0]).numpy() - pil).max() <= 1


def test_brightness_has_torchvisions_factor() -> None:
    images = torch.full((N, 3, 8, 8), 0.4)
    views = augment(images, seeds(), with_only(jitter=(0.8, 0.0, 0.0, 0.0), jitter_p=1.0), 8, 0)
    factor = (views / 0.4).mean((1, 2, 3)).numpy()
    jitter = v2.ColorJitter(brightness=0.8)
    torch.manual_seed(0)
    theirs = [jitter.make_params([])["brightness_factor"] for _ in range(N)]
    assert ks_2samp(factor, np.array(theirs, dtype=float)).statistic < 0.06


def test_colour_is_jittered_as_often_as_asked() -> None:
    views = augment(torch.full((N, 3, 4, 4), 0.4), seeds(), with_only(jitter=(0.8, 0, 0, 0), jitter_p=0.8), 4, 0)
    changed = ((views - 0.4).abs() > 1e-6).flatten(1).any(1).float().mean().item()
    assert changed == pytest.approx(0.8, abs=3 * math.sqrt(0.16 / N))


@pytest.mark.parametrize(("which", "name"), [(1, "adjust_contrast"), (2, "adjust_saturation")])
def test_contrast_and_saturation_are_torchvisions(which: int, name: str) -> None:
    image = 0.3 + 0.3 * torch.rand(1, 3, 8, 8)
    strengths = [0.0] * 4
    strengths[which] = 0.5
    mine = augment(image, torch.tensor([5]), with_only(jitter=tuple(strengths), jitter_p=1.0), 8, 0)
    adjust = getattr(v2.functional, name)
    best = min((adjust(image, f) - mine).abs().max().item() for f in torch.linspace(0.5, 1.5, 1001).tolist())
    assert best < 2e-3


def test_turning_the_hue_keeps_brightness_and_a_full_turn_changes_nothing() -> None:
    image = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(luma(rotate_hue(image, torch.tensor([1.0, 2.0]))), luma(image), atol=1e-3, rtol=0)
    torch.testing.assert_close(rotate_hue(image, torch.full((2,), 2 * math.pi)), image, atol=1e-4, rtol=0)


def test_blur_is_a_gaussian_of_the_given_width() -> None:
    image = torch.rand(1, 3, 224, 224)
    mine = blur(image, torch.zeros(1), torch.ones(1), with_only(blur=1.0))  # σ = 2 at a side of 224
    theirs = v2.functional.gaussian_blur(image, [23, 23], [2.0, 2.0])
    torch.testing.assert_close(mine, theirs, atol=1e-3, rtol=0)


def test_solarize_inverts_what_is_bright() -> None:
    image = torch.rand(2, 3, 8, 8)
    solarized = augment(image, seeds(2), with_only(solarize=1.0), 8, 0)
    torch.testing.assert_close(solarized, v2.functional.solarize(image, 0.5), atol=1e-4, rtol=0)


@pytest.mark.parametrize("preset", PRESETS)
def test_an_item_does_not_depend_on_its_batch(preset: str) -> None:
    images, keys = torch.rand(4, 3, 24, 24), seeds(4)
    for number, view in enumerate(PRESETS[preset]):
        together = augment(images, keys, view, 16, number)
        alone = torch.cat([augment(images[i : i + 1], keys[i : i + 1], view, 16, number) for i in range(4)])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
        assert together.shape == (4, 3, 16, 16)
        assert together.min() >= 0
        assert together.max() <= 1


def test_two_views_and_two_epochs_differ() -> None:
    images = torch.rand(4, 3, 16, 16)
    first = augment(images, seeds(4), View(), 16, 0)
    assert (first - augment(images, seeds(4), View(), 16, 1)).abs().mean() > 0.02
    later = torch.tensor([item_seed(0, 1, i) for i in range(4)])
    assert (first - augment(images, later, View(), 16, 0)).abs().mean() > 0.02


def test_byols_views_are_not_alike() -> None:
    first, second = PRESETS["byol"]
    assert (first.blur, first.solarize, second.blur, second.solarize) == (1.0, 0.0, 0.1, 0.2)
    assert first.jitter == second.jitter == (0.4, 0.4, 0.2, 0.1)


@pytest.mark.parametrize("view", [*(v for views in PRESETS.values() for v in views), View(rotate=15.0, solarize=0.5)])
@pytest.mark.parametrize("size", [16, 64])
def test_augmentation_never_waits(view: View, size: int) -> None:
    images, seeds = torch.rand(2, 3, size, size), torch.arange(2)
    augment(images, seeds, view, 16, 0)  # constants are put on a device once
    with HostWaits() as waits:
        augment(images, seeds, view, 16, 0)
    assert waits.found == []


# The data module ------------------------------------------------------------------------------------------------------


def train_views(folder: Path, **options: object) -> dict[int, tuple[Tensor, ...]]:
    """index → views, over an epoch."""
    data = Images(str(folder), image_size=12, batch_size=4, **options)  # type: ignore[arg-type]
    data.serve(Request(views="simclr"))
    found = {}
    for batch in data.train_dataloader():
        batch = data.finish(batch)
        assert len(batch.views) == 2
        found |= {int(i): tuple(v[row] for v in batch.views) for row, i in enumerate(batch.index)}
    return found


def test_views_do_not_depend_on_the_number_of_workers(tmp_path: Path, pictures: Callable[..., Path]) -> None:
    folder = pictures(tmp_path, 6)
    none, two = (train_views(folder, num_workers=n) for n in (0, 2))
    assert none.keys() == two.keys()
    for index, views in none.items():
        for mine, other in zip(views, two[index], strict=True):
            assert mine.shape == (3, 12, 12)
            torch.testing.assert_close(mine, other, atol=1e-6, rtol=0)
        assert not torch.equal(*views)


def test_a_view_of_ones_own(tmp_path: Path, pictures: Callable[..., Path]) -> None:
    views = train_views(pictures(tmp_path, 4), view=PLAIN)
    for a, b in views.values():
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_the_number_of_views_must_fit(tmp_path: Path, pictures: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match="contrasts 2 views, 3 were given"):
        train_views(pictures(tmp_path, 4), view=[PLAIN] * 3)


def test_an_augmentation_that_does_not_exist(tmp_path: Path, pictures: Callable[..., Path]) -> None:
    data = Images(str(pictures(tmp_path, 4)))
    with pytest.raises(UserError, match=r"No augmentation 'simclrr'\. Did you mean simclr\?"):
        data.serve(Request(views="simclrr"))
