"""A data module says how many items a split has, reads one, and makes a batch of some."""

import torch
from torch import Tensor

from ssl_suite.core.batch import ImageBatch
from ssl_suite.core.data import DataModule, Request
from ssl_suite.core.random import uniform

SIZES = {"train": 32, "validation": 16, "test": 16}


class Stripes(DataModule):
    """Noisy stripes, drawn on the spot: along or across is the class."""

    modality = "image"

    def prepare(self, request: Request) -> None:
        self.labels = ["across", "along"]

    def splits(self) -> list[str]:
        return list(SIZES)

    def size(self, split: str) -> int:
        return SIZES[split]

    def target(self, split: str, index: int) -> Tensor:
        return torch.tensor(index % 2)

    def read(self, split: str, index: int, seed: int) -> tuple[int, int, Tensor, Tensor]:
        image = uniform(torch.tensor([index + 100 * self.splits().index(split)]), 768).view(3, 16, 16) / 2
        image[:, ::4] += 0.5
        return index, seed, image.mT if index % 2 else image, self.target(split, index)

    def collate(self, items: list[tuple[int, int, Tensor, Tensor]]) -> ImageBatch:
        index, seed, images, targets = zip(*items, strict=True)
        return ImageBatch(torch.tensor(index), torch.tensor(seed), torch.stack(targets), torch.stack(images))

    def fingerprint(self, split: str) -> str:
        return f"Stripes, {split}"
