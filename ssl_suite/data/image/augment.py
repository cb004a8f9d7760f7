"""Augmentation of a whole batch on its device: every item with its own draws, two views in a few kernels.

The same distributions as torchvision's PIL transforms (tests compare them), but one affine grid, one colour matrix and
one grouped convolution a batch instead of a Python call an image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_suite.core.check import within
from ssl_suite.core.random import uniform

GREY = (0.299, 0.587, 0.114)
YIQ = (GREY, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
"""Rows: what each of luma and the two chroma axes takes of red, green and blue."""
PLACES, TRIES = 100, 200
"""Streams of a view's draws, to which its number is added: where and whether, and sizes of its crop."""


@dataclass(frozen=True)
class View:
    """How one view is made; the defaults are SimCLR's (arXiv:2002.05709, appendix A).

    Args:
        crop: least and greatest area of the crop.
        ratio: least and greatest aspect ratio of the crop.
        flip: probability of a horizontal flip.
        jitter: strengths of brightness, contrast, saturation and hue.
        jitter_p: probability of the colour jitter.
        grey: probability of dropping the colour.
        blur: probability of a Gaussian blur, σ uniform in `sigma` pixels per 224 of the side.
        sigma: range of σ at a side of 224.
        solarize: probability of inverting what is brighter than one half.
        rotate: greatest rotation in degrees.
        size: side of the result in pixels; None: `data.image_size`. Of multi-crop's views some are smaller.
    """

    crop: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: tuple[float, float, float, float] = (0.8, 0.8, 0.8, 0.2)
    jitter_p: float = 0.8
    grey: float = 0.2
    blur: float = 0.5
    sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0
    rotate: float = 0.0
    size: int | None = None

    def __post_init__(self) -> None:
        for name, most in (("crop", 1), ("ratio", None), ("sigma", None)):
            least, greatest = getattr(self, name)
            within(f"view.{name}[0]", least, above=0)
            within(f"view.{name}[1]", greatest, low=least, high=most)
        for name in ("flip", "jitter_p", "grey", "blur", "solarize"):
            within(f"view.{name}", getattr(self, name), low=0, high=1)
        for i, strength in enumerate(self.jitter):
            within(f"view.jitter[{i}]", strength, low=0, high=0.5 if i == 3 else None)
        within("view.rotate", self.rotate, low=0, high=180)
        if self.size is not None:
            within("view.size", self.size, low=2, whole=True)


PRESETS: dict[str, tuple[View, ...]] = {
    "simclr": (View(), View()),
    "byol": (
        View(jitter=(0.4, 0.4, 0.2, 0.1), blur=1.0),
        View(jitter=(0.4, 0.4, 0.2, 0.1), blur=0.1, solarize=0.2),
    ),
    "mae": (View(crop=(0.2, 1.0), jitter_p=0.0, grey=0.0, blur=0.0),),
}
"""By the name a method asks for."""


def augment(images: Tensor, seeds: Tensor, view: View, size: int, stream: int, cut: Tensor | None = None) -> Tensor:
    """Makes one view of each image.

    Args:
        images: (B, 3, H, W) in [0, 1].
        seeds: (B,) per-item seeds.
        view: what to do.
        size: side of the result.
        stream: number of the view, so that two views differ.
        cut: (B,) True where an image is the crop already; None: none is.

    Returns:
        (B, 3, size, size) in [0, 1].
    """
    u = uniform(seeds, 16, PLACES + stream)
    x = crop_flip(images, u, uniform(seeds, 20, TRIES + stream), view, size, cut)
    x = colour_jitter(x, u[:, 5:11], view)
    x = torch.where((u[:, 11] < view.grey)[:, None, None, None], luma(x).expand_as(x), x)
    if view.blur > 0:
        x = blur(x, u[:, 12], u[:, 13], view)
    if view.solarize > 0:
        inverted = torch.where(x >= 0.5, 1 - x, x)
        x = torch.where((u[:, 14] < view.solarize)[:, None, None, None], inverted, x)
    return x


def crop_flip(images: Tensor, u: Tensor, tries: Tensor, view: View, size: int, cut: Tensor | None) -> Tensor:
    """Random resized crop, flip and rotation as one affine resampling, area-averaged where it shrinks.

    As torchvision: of ten drawn crops (areas and ratios in `tries`, (B, 20)) the first that fits into the image.
    """
    h, w = images.shape[-2:]
    area = (view.crop[0] + (view.crop[1] - view.crop[0]) * tries[:, :10]) * h * w
    low, high = (math.log(r) for r in view.ratio)
    ratio = (low + (high - low) * tries[:, 10:]).exp()
    widths, heights = (area * ratio).sqrt() / w, (area / ratio).sqrt() / h  # as shares of the sides
    first = (torch.maximum(widths, heights) <= 1 + 1e-6).int().argmax(1, keepdim=True)
    width, height = (s.gather(1, first)[:, 0].clamp(max=1.0) for s in (widths, heights))
    if cut is not None:
        width, height = torch.where(cut, 1.0, width), torch.where(cut, 1.0, height)
    x0, y0 = (1 - width) * (2 * u[:, 2] - 1), (1 - height) * (2 * u[:, 3] - 1)  # centre, in [-1, 1]
    sign = 1 - 2 * (u[:, 4] < view.flip).float()
    angle = (2 * u[:, 15] - 1) * math.radians(view.rotate)
    cos, sin = angle.cos(), angle.sin()
    rows = [
        torch.stack([sign * width * cos, -sign * width * sin * h / w, x0], 1),
        torch.stack([height * sin * w / h, height * cos, y0], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), [len(images), 3, size, size], align_corners=False)
    source = images
    shrink = min(h, w) // (2 * size)
    if shrink > 1:  # bilinear sampling alone would alias
        source = F.avg_pool2d(images, shrink)
    return F.grid_sample(source, grid.to(images.dtype), padding_mode="reflection", align_corners=False)


@cache
def colours(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Returns `GREY`, `YIQ` and its inverse; put on a device once, because the host waits for each copy."""
    with torch.inference_mode(False):
        to = torch.tensor(YIQ, dtype=dtype)
        return torch.tensor(GREY, dtype=dtype).to(device), to.to(device), torch.linalg.inv(to).to(device)


def luma(x: Tensor) -> Tensor:
    """(B, 3, H, W) → (B, 1, H, W) grey."""
    return torch.einsum("bchw,c->bhw", x, colours(x.device, x.dtype)[0])[:, None]


def colour_jitter(x: Tensor, u: Tensor, view: View) -> Tensor:
    """Brightness, contrast, saturation (each a blend) and hue (a rotation about the grey axis in YIQ).

    The order is fixed, where torchvision draws it anew; hue by YIQ is the approximation of nvidia-DALI and kornia.
    """
    brightness, contrast, saturation, hue = view.jitter
    on = (u[:, 0] < view.jitter_p).float()[:, None, None, None]

    def factor(strength: float, draw: Tensor) -> Tensor:
        low = max(0.0, 1 - strength)
        return (low + (1 + strength - low) * draw)[:, None, None, None]

    y = (x * factor(brightness, u[:, 1])).clamp(0, 1)
    f = factor(contrast, u[:, 2])
    y = (f * y + (1 - f) * luma(y).mean((2, 3), keepdim=True)).clamp(0, 1)
    f = factor(saturation, u[:, 3])
    y = (f * y + (1 - f) * luma(y)).clamp(0, 1)
    if hue:
        y = rotate_hue(y, (2 * u[:, 4] - 1) * hue * 2 * math.pi).clamp(0, 1)
    return on * y + (1 - on) * x


def rotate_hue(x: Tensor, angle: Tensor) -> Tensor:
    """Turns the chroma plane of YIQ by (B,) radians."""
    _, to, back = colours(x.device, x.dtype)
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    turn = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], 1).view(-1, 3, 3).to(x.dtype)
    return torch.einsum("bij,bjhw->bihw", back @ turn @ to, x)


def blur(x: Tensor, chance: Tensor, strength: Tensor, view: View) -> Tensor:
    """Gaussian blur with a σ for each item, kernel about 10 % of the side; one grouped convolution an axis."""
    b, c, h, w = x.shape
    scale = h / 224
    radius = max(1, round(0.05 * h))
    sigma = ((view.sigma[0] + (view.sigma[1] - view.sigma[0]) * strength) * scale).clamp(min=0.05)
    offsets = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-(offsets**2) / (2 * sigma[:, None] ** 2))
    delta = (offsets == 0).to(x.dtype)
    kernel = torch.where((chance < view.blur)[:, None], kernel / kernel.sum(1, keepdim=True), delta)
    weight = kernel.repeat_interleave(c, 0)[:, None, None]  # (B·3, 1, 1, K)
    y = x.reshape(1, b * c, h, w)
    y = F.conv2d(F.pad(y, (radius, radius, 0, 0), "reflect"), weight, groups=b * c)
    y = F.conv2d(F.pad(y, (0, 0, radius, radius), "reflect"), weight.transpose(2, 3), groups=b * c)
    return y.view(b, c, h, w)
