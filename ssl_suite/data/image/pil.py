"""The same views by lightly's transforms, an image at a time, from its full resolution."""

from __future__ import annotations

from functools import cache
from typing import Any

from lightly.transforms.gaussian_blur import GaussianBlur
from lightly.transforms.solarize import RandomSolarization
from torchvision.transforms import v2

from ssl_suite.data.image.augment import View


@cache
def pil_transform(view: View, size: int) -> Any:
    """Returns PIL image → (3, size, size) float in [0, 1]."""
    sigmas = (view.sigma[0] * size / 224, view.sigma[1] * size / 224)
    steps = [
        v2.RandomRotation(view.rotate) if view.rotate else v2.Identity(),
        v2.RandomResizedCrop(size, view.crop, view.ratio),
        v2.RandomHorizontalFlip(view.flip),
        v2.RandomApply([v2.ColorJitter(*view.jitter)], view.jitter_p),
        v2.RandomGrayscale(view.grey),
        GaussianBlur(prob=view.blur, sigmas=sigmas),
        RandomSolarization(prob=view.solarize),
    ]
    from torchvision.transforms import ToTensor

    return v2.Compose([*steps, ToTensor()])
