"""Images: a folder, a table or a hub data set of images, with or without labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from ssl_suite.core.batch import Batch, ImageBatch, Target, stacked
from ssl_suite.core.check import within
from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError, nearest
from ssl_suite.data.common.source import FolderReader
from ssl_suite.data.common.source_data import SourceData
from ssl_suite.data.image.augment import PRESETS, View, augment
from ssl_suite.data.image.crop import Training, cut, fit, train_picture
from ssl_suite.data.image.reading import list_images, load_image

SIZE = 224
"""Of ImageNet's encoders, in pixels a side."""
IN_MEMORY = 1e9
"""Bytes of decoded images that are kept unasked."""


@dataclass
class ImageItem:
    """One image as read: uint8 (3, H, W), what its views are made of unless it is that itself, and where it belongs."""

    index: int
    seed: int
    image: Tensor
    crops: list[Tensor]
    target: Target | None


class Images(SourceData):
    """Images from a folder (one subfolder a class, or none), parquet, jsonl, csv, `samples:NAME` or `hf:NAME`.

    Args:
        source: where the images are.
        image_size: side in pixels of what the encoder sees; None: of what it learned from, else 224.
        column: of the image.
        target: column of the label, or one for each slot of the task; a folder's subfolders are `label`.
        where: keep only rows with these values.
        labels: number of labelled training images to use.
        augment: what training sees where no method makes views: `none`, images as in evaluation; `crop`, random resized
            crops and flips; `randaugment`, those and RandAugment.
        view: what a view is, instead of the method's own; one for all views or one each. Of `augment`: its crop, ratio
            and flip.
        orient: turn pictures as their EXIF orientation says; otherwise they stay as they are stored.
        in_memory: keep decoded images (uint8) in memory; None: up to 1 GB of them, if there are no workers.
        batch_size: images a step and rank.
        eval_batch_size: for validation, test and frozen features.
        num_workers: loader processes.
        on_error: `raise` at the first unreadable image, or `skip` and count it.
        files: `train`, `validation`, `test`, `delimiter`, `header` and `apart` of `SourceData`.
    """

    modality = "image"

    def __init__(
        self,
        source: str,
        image_size: int | None = None,
        column: str = "image",
        target: str | dict[str, str] = "label",
        where: dict[str, str] | None = None,
        labels: int | None = None,
        augment: Training = "none",
        view: View | list[View] | None = None,
        orient: bool = True,
        in_memory: bool | None = None,
        batch_size: int = 256,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        on_error: Literal["raise", "skip"] = "raise",
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
            **files,
        )
        if image_size is not None:
            within("data.image_size", image_size, low=2, whole=True)
        self.input_column = column
        self.wanted_size, self.image_size = image_size, image_size or SIZE
        self.augment, self.view, self.in_memory = augment, view, in_memory
        self.views: tuple[View, ...] = ()
        self.orient = orient
        self._kept: dict[tuple[str, int], Tensor | Image.Image] = {}

    def folder_reader(self) -> FolderReader:
        return list_images

    def prepare(self, request: Request) -> None:
        super().prepare(request)
        self._kept.clear()
        self.image_size = self.preprocess(request)["image_size"]
        if (own := request.preprocess.get("image_size", self.image_size)) != self.image_size:
            rank_zero_warn(
                f"data.image_size is {self.image_size}, but the encoder is of images of {own} pixels; leave it out to "
                "take that size."
            )
        self.views = self._views(request.views) if request.views else ()
        self._room = float("inf") if self.in_memory else 0.0
        if self.in_memory is None and self.num_workers == 0:
            self._room = IN_MEMORY

    def _views(self, preset: str) -> tuple[View, ...]:
        """The views of a method, or those given instead."""
        if preset not in PRESETS:
            raise UserError(f"No augmentation {preset!r}.{nearest(preset, PRESETS)}")
        if self.augments:
            raise UserError("data.augment is for training without views; the method's own are given by data.view.")
        views = PRESETS[preset]
        if self.view is None:
            return views
        given = self.view if isinstance(self.view, list) else [self.view] * len(views)
        if len(given) != len(views):
            raise UserError(f"view: the method contrasts {len(views)} views, {len(given)} were given.")
        return tuple(given)

    def preprocess(self, request: Request | None) -> dict[str, Any]:
        own = request.preprocess.get("image_size") if request else None
        return {"image_size": self.wanted_size or own or SIZE}

    @property
    def augments(self) -> bool:
        return self.augment != "none"

    def read(self, split: str, index: int, seed: int) -> ImageItem:
        """Views of a picture of another size are cut here, from all of it; of `image_size` they are cut by `finish`."""
        image, crops = self._decoded(split, index), []
        if isinstance(image, Image.Image) or any(self._side(view) != self.image_size for view in self.views):
            picture = to_picture(image)
            crops = [to_uint8(cut(picture, seed, v, self._side(v), n)) for n, v in enumerate(self.views)]
            image = to_uint8(fit(picture, self.image_size))
        return ImageItem(index, seed, image, crops, self._target(split, index))

    def read_for_training(self, index: int, seed: int) -> ImageItem:
        if not self.augments:
            return self.read("train", index, seed)
        view = self.view if isinstance(self.view, View) else View()
        picture = to_picture(self._decoded("train", index))
        image = to_uint8(train_picture(picture, seed, self.augment, view, self.image_size))
        return ImageItem(index, seed, image, [], self._target("train", index))

    def _side(self, view: View) -> int:
        return view.size or self.image_size

    def _target(self, split: str, index: int) -> Target | None:
        return self.target(split, index) if self.has_targets(split) else None

    def _decoded(self, split: str, index: int) -> Tensor | Image.Image:
        """A picture at its own size; as uint8 (3, H, W) where that is `image_size`, or where nothing is cut from it."""
        if (split, index) in self._kept:
            return self._kept[split, index]
        rows, size = self.rows[split], self.image_size
        picture = load_image(rows[index][self.input_column], rows.where(index), self.orient)
        if not self.views and not self.augments:
            picture = fit(picture, size)
        decoded = to_uint8(picture) if picture.size == (size, size) else picture
        n_bytes = picture.width * picture.height * (3 if isinstance(decoded, Tensor) else 4)  # PIL pads to 4
        if n_bytes <= self._room:
            self._kept[split, index] = decoded
            self._room -= n_bytes
        return decoded

    def collate(self, items: list[ImageItem]) -> ImageBatch:
        crops = [item.crops or [item.image] * len(self.views) for item in items]
        some = any(item.crops for item in items)
        return ImageBatch(
            torch.tensor([i.index for i in items]),
            torch.tensor([i.seed for i in items]),
            stacked([i.target for i in items if i.target is not None]),
            torch.stack([i.image for i in items]),
            tuple(torch.stack(view) for view in zip(*crops, strict=True)) if some else (),
            torch.tensor([bool(item.crops) for item in items]) if some else None,
        )

    def finish(self, batch: Batch) -> Batch:
        """uint8 → [0, 1], and the views."""
        if not isinstance(batch, ImageBatch):
            return batch
        images = unit(batch.images)
        sources = [images] * len(self.views) if batch.cut is None else [unit(crops) for crops in batch.views]
        views = tuple(
            augment(source, batch.seed, view, self._side(view), number, batch.cut)
            for number, (source, view) in enumerate(zip(sources, self.views, strict=True))
        )
        return ImageBatch(batch.index, batch.seed, batch.target, images, views)

    def fingerprint(self, split: str) -> str:
        return f"{super().fingerprint(split)}|{self.image_size}|{self.orient}"


def unit(images: Tensor) -> Tensor:
    """uint8 → float in [0, 1]."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


def to_uint8(picture: Image.Image) -> Tensor:
    """PIL → (3, H, W) uint8."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def to_picture(image: Tensor | Image.Image) -> Image.Image:
    """The opposite; a picture stays one."""
    return Image.fromarray(image.permute(1, 2, 0).numpy()) if isinstance(image, Tensor) else image
