"""What is made of a picture at its own size, before it is in a batch: random crops and the augmentation of training.

All draws come from the item's seed, so that they are the same for any number of workers and after a resume.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, Literal

from PIL import Image

from ssl_suite.core.random import draw, drawn_from
from ssl_suite.data.image.augment import PLACES, TRIES, View

Training = Literal["none", "crop", "randaugment"]
"""How images of the training split are augmented where no method makes views of them."""


def crop_box(seed: int, view: View, width: int, height: int, stream: int) -> tuple[int, int, int, int]:
    """Draws a random resized crop over the whole picture, as torchvision's RandomResizedCrop does.

    Args:
        seed: of the item.
        view: its `crop` and `ratio` count.
        width: of the picture in pixels.
        height: likewise.
        stream: number of the view.

    Returns:
        left, top, right and bottom: of ten drawn crops the first that fits, else the greatest one in the middle.
    """
    low, high = (math.log(r) for r in view.ratio)
    for n in range(10):
        area = (view.crop[0] + (view.crop[1] - view.crop[0]) * draw(seed, n, TRIES + stream)) * width * height
        ratio = math.exp(low + (high - low) * draw(seed, 10 + n, TRIES + stream))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left = int(draw(seed, 2, PLACES + stream) * (width - w + 1))
            top = int(draw(seed, 3, PLACES + stream) * (height - h + 1))
            return left, top, left + w, top + h
    ratio = min(max(width / height, view.ratio[0]), view.ratio[1])
    w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def cut(picture: Image.Image, seed: int, view: View, size: int, stream: int) -> Image.Image:
    """Cuts a random crop and makes it (size, size), bicubic and antialiased, as SimCLR, BYOL and DINO do."""
    box = crop_box(seed, view, *picture.size, stream)
    return picture.crop(box).resize((size, size), Image.Resampling.BICUBIC)


def train_picture(picture: Image.Image, seed: int, how: Training, view: View, size: int) -> Image.Image:
    """What supervised training sees of a picture: a crop, perhaps flipped, and RandAugment (arXiv:1909.13719).

    Args:
        picture: at its own size.
        seed: of the item.
        how: `crop` or `randaugment`, which is both.
        view: its `crop`, `ratio` and `flip` count.
        size: side of the result.
    """
    picture = cut(picture, seed, view, size, 0)
    if draw(seed, 4, PLACES) < view.flip:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if how == "randaugment":
        with drawn_from(seed):
            picture = rand_augment()(picture)
    return picture


@cache
def rand_augment() -> Any:
    """Two operations at magnitude 9."""
    from torchvision.transforms.v2 import RandAugment

    return RandAugment(num_ops=2, magnitude=9)


def fit(picture: Image.Image, size: int) -> Image.Image:
    """Resizes the shorter side to `size` and cuts the centre."""
    w, h = picture.size
    if (w, h) == (size, size):
        return picture
    scale = size / min(w, h)
    picture = picture.resize((max(size, round(w * scale)), max(size, round(h * scale))), Image.Resampling.BICUBIC)
    left, top = (picture.width - size) // 2, (picture.height - size) // 2
    return picture.crop((left, top, left + size, top + size))
