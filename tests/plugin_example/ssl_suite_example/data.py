"""A data module says how many items a split has, which targets they have, reads one, and makes a batch of some."""

import torch

from ssl_suite.core.batch import ImageBatch
from ssl_suite.core.data import DataModule, Request


class Stripes(DataModule):
    """Noisy stripes, drawn on the spot: along or across is the class."""

    modality = "image"

    @classmethod
    def kinds(cls) -> list[str]:
        return ["class"]

    def prepare(self, request: Request) -> None:
        self.labels = ["across", "along"]

    def splits(self) -> list[str]:
        return ["train", "validation", "test"]

    def size(self, split: str) -> int:
        return 16

    def target(self, split: str, index: int) -> torch.Tensor:
        return torch.tensor(index % 2)

    def read(self, split: str, index: int, seed: int) -> tuple[int, int, torch.Tensor, torch.Tensor]:
        own = torch.Generator().manual_seed(index + 16 * self.splits().index(split))
        image = torch.rand(3, 16, 16, generator=own) / 2 + (torch.arange(16) % 4 == 0) / 2
        return index, seed, image if index % 2 else image.mT, self.target(split, index)

    def collate(self, items: list[tuple[int, int, torch.Tensor, torch.Tensor]]) -> ImageBatch:
        index, seed, images, targets = zip(*items, strict=True)
        return ImageBatch(torch.tensor(index), torch.tensor(seed), torch.stack(targets), torch.stack(images))

    def fingerprint(self, split: str) -> str:
        return f"Stripes, {split}"
