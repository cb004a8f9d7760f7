"""Images: a folder, a table or a hub data set of images, with or without labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from ssl_suite.core.batch import Batch, ImageBatch
from ssl_suite.core.check import within
from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError, nearest
from ssl_suite.core.random import seed_all
from ssl_suite.data.common.module import SourceData
from ssl_suite.data.common.source import FolderReader
from ssl_suite.data.image.augment import PRESETS, View, augment
from ssl_suite.data.image.reading import list_images, load_image

SIZE = 224
"""Of ImageNet's encoders, in pixels a side."""


@dataclass
class Item:
    """One image as read: uint8 (3, H, W), its views if made on the host, and where it belongs."""

    index: int
    seed: int
    image: Tensor
    views: list[Tensor]
    target: Tensor | None


class Images(SourceData):
    """Images from a folder (one subfolder a class, or none), parquet, jsonl, csv, `samples:NAME` or `hf:NAME`.

    Args:
        source: where the images are.
        image_size: side in pixels of what the encoder sees; None: of what it learned from, else 224.
        column: of the image.
        target: column of the label; a folder's subfolders are `label`.
        where: keep only rows with these values.
        labels: number of labelled training images to use.
        augment: where views are made: `batched`, on the device, all at once; `pil`, by lightly's transforms in the
            loader's workers.
        view: what a view is, instead of the method's own; one for all views or one each.
        orient: turn pictures as their EXIF orientation says; otherwise they stay as they are stored.
        in_memory: keep decoded images (uint8) in memory; None: where all of a split take less than 1 GB.
        batch_size: images a step and rank.
        eval_batch_size: for validation, test and frozen features.
        num_workers: loader processes.
        on_error: `raise` at the first unreadable image, or `skip` and count it.
        cache_features: keep frozen features on disk.
        files: `train`, `validation`, `test`, `delimiter` and `header` of `SourceData`.
    """

    modality = "image"

    def __init__(
        self,
        source: str,
        image_size: int | None = None,
        column: str = "image",
        target: str = "label",
        where: dict[str, str] | None = None,
        labels: int | None = None,
        augment: Literal["batched", "pil"] = "batched",
        view: View | list[View] | None = None,
        orient: bool = True,
        in_memory: bool | None = None,
        batch_size: int = 256,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        on_error: Literal["raise", "skip"] = "raise",
        cache_features: bool = True,
        **files: Any,
    ) -> None:
        super().__init__(
            source,
            target,
            where,
            labels,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            on_error=on_error,
            cache_features=cache_features,
            **files,
        )
        if image_size is not None:
            within("data.image_size", image_size, low=2, whole=True)
        self.input_column = column
        self.wanted_size, self.image_size = image_size, image_size or SIZE
        self.augment, self.view, self.in_memory = augment, view, in_memory
        self.orient = orient
        self._decoded: dict[tuple[str, int], Tensor] = {}

    def folder_reader(self) -> FolderReader:
        return list_images

    def prepare(self, request: Request) -> None:
        super().prepare(request)
        self._decoded.clear()
        self.image_size = self.preprocess(request)["image_size"]
        if (own := request.preprocess.get("image_size", self.image_size)) != self.image_size:
            rank_zero_warn(
                f"data.image_size is {self.image_size}, but the encoder is of images of {own} pixels; leave it out to "
                "take that size."
            )
        self.views: tuple[View, ...] = ()
        if request.views:
            if request.views not in PRESETS:
                raise UserError(f"No augmentation {request.views!r}.{nearest(request.views, PRESETS)}")
            self.views = PRESETS[request.views]
        if self.views and self.view is not None:
            given = self.view if isinstance(self.view, list) else [self.view] * len(self.views)
            if len(given) != len(self.views):
                raise UserError(f"view: the method contrasts {len(self.views)} views, {len(given)} were given.")
            self.views = tuple(given)
        total = sum(self.size(s) for s in self.splits()) * 3 * self.image_size**2
        self._keep = self.in_memory if self.in_memory is not None else self.num_workers == 0 and total < 1e9

    def preprocess(self, request: Request | None) -> dict[str, Any]:
        own = request.preprocess.get("image_size") if request else None
        return {"image_size": self.wanted_size or own or SIZE}

    def read(self, split: str, index: int, seed: int) -> Item:
        views: list[Tensor] = []
        if self.views and self.augment == "pil":
            picture = self._open(split, index)
            views = self._pil_views(picture, seed)
            image = to_uint8(fit(picture, self.image_size))
        else:
            image = self._pixels(split, index)
        target = self.target(split, index) if self.has_targets(split) else None
        return Item(index, seed, image, views, target)

    def _open(self, split: str, index: int) -> Image.Image:
        rows = self.rows[split]
        return load_image(rows[index][self.input_column], rows.where(index), self.orient)

    def _pixels(self, split: str, index: int) -> Tensor:
        if (split, index) in self._decoded:
            return self._decoded[split, index]
        image = to_uint8(fit(self._open(split, index), self.image_size))
        if self._keep:
            self._decoded[split, index] = image
        return image

    def _pil_views(self, picture: Image.Image, seed: int) -> list[Tensor]:
        from ssl_suite.data.image.pil import pil_transform

        views = []
        for number, view in enumerate(self.views):
            seed_all(seed + number)
            views.append(pil_transform(view, self.image_size)(picture))
        return views

    def collate(self, items: list[Item]) -> ImageBatch:
        views = tuple(torch.stack(v) for v in zip(*(i.views for i in items), strict=True))
        return ImageBatch(
            torch.tensor([i.index for i in items]),
            torch.tensor([i.seed for i in items]),
            None if items[0].target is None else torch.stack([i.target for i in items if i.target is not None]),
            torch.stack([i.image for i in items]),
            views,
        )

    def finish(self, batch: Batch) -> Batch:
        """uint8 → [0, 1], and the batched views."""
        if not isinstance(batch, ImageBatch):
            return batch
        images = batch.images.float() / 255 if batch.images.dtype == torch.uint8 else batch.images
        views = batch.views or tuple(
            augment(images, batch.seed, view, self.image_size, number) for number, view in enumerate(self.views)
        )
        return ImageBatch(batch.index, batch.seed, batch.target, images, views)

    def fingerprint(self, split: str) -> str:
        return f"{super().fingerprint(split)}|{self.image_size}|{self.orient}"


def fit(picture: Image.Image, size: int) -> Image.Image:
    """Resizes the shorter side to `size` and cuts the centre."""
    w, h = picture.size
    if (w, h) == (size, size):
        return picture
    scale = size / min(w, h)
    picture = picture.resize((max(size, round(w * scale)), max(size, round(h * scale))), Image.Resampling.BICUBIC)
    left, top = (picture.width - size) // 2, (picture.height - size) // 2
    return picture.crop((left, top, left + size, top + size))


def to_uint8(picture: Image.Image) -> Tensor:
    """PIL → (3, H, W) uint8."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()
