"""Speed of SimCLR against lightly's recipe, and of two views against its PIL transform: of pictures of the size of a
view, which are augmented as a batch, and of larger ones, from which each view is cut first.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import cache
from pathlib import Path

import pytorch_lightning as pl
import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms import SimCLRTransform
from PIL import Image
from side_by_side import Case, arguments, compare, fit, loop
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models import resnet18

from ssl_suite.core.batch import ImageBatch
from ssl_suite.core.data import Request
from ssl_suite.core.optim import Optim
from ssl_suite.data.image.augment import View, augment
from ssl_suite.data.image.images import Images
from ssl_suite.encoders.image import ImageEncoder
from ssl_suite.methods.image.simclr import SimCLR

SIZE = 32
VIEW = View(blur=0.0)


@cache
def emoji(batch_size: int) -> Images:
    data = Images("samples:emoji", image_size=SIZE, view=VIEW, batch_size=batch_size)
    data.serve(Request(views="simclr"))
    return data


class LightlyDataset(Dataset[list[Tensor]]):
    """Decoded pictures as PIL, at the size of `data`, under lightly's two-view transform."""

    def __init__(self, data: Images) -> None:
        pixels = (data.read("train", i, 0).image.permute(1, 2, 0).numpy() for i in range(data.size("train")))
        self.images = [Image.fromarray(p) for p in pixels]
        self.transform = SimCLRTransform(input_size=SIZE, gaussian_blur=0.0)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> list[Tensor]:
        return self.transform(self.images[index])


class LightlySimCLR(pl.LightningModule):
    """https://docs.lightly.ai/self-supervised-learning/examples/simclr.html, with the small-image stem."""

    def __init__(self) -> None:
        super().__init__()
        resnet = resnet18()
        resnet.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        resnet.maxpool, resnet.fc = nn.Identity(), nn.Identity()
        self.backbone = resnet
        self.projection_head = SimCLRProjectionHead(512, 512, 128)
        self.criterion = NTXentLoss(temperature=0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection_head(self.backbone(x).flatten(start_dim=1))

    def training_step(self, batch: list[Tensor], batch_index: int) -> Tensor:
        loss = self.criterion(self.forward(batch[0]), self.forward(batch[1]))
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.06)


def simclr(args: argparse.Namespace) -> Case:
    """A training step with its data."""
    size, folder = (4 if args.tiny else 64), Path(tempfile.mkdtemp())
    data, theirs = emoji(size), LightlySimCLR()
    loader = DataLoader(
        LightlyDataset(data), size, shuffle=True, drop_last=True, num_workers=0 if args.clock == "cpu" else args.workers
    )
    ours = SimCLR(ImageEncoder("resnet18", small_images=True), optim=Optim("sgd", lr=0.06, momentum=0.0))
    return Case(
        "SimCLR, ResNet-18",
        "images",
        "lightly's recipe",
        {
            "ours": lambda steps: fit(ours, steps, len, folder, datamodule=data),
            "peer": lambda steps: fit(theirs, steps, lambda b: len(b[0]), folder, train_dataloaders=loader),
        },
    )


def augmentation(args: argparse.Namespace) -> Case:
    """Two views of decoded pictures of their size, one process; ours on all its threads, as in training."""
    size = 16 if args.tiny else 256
    data = emoji(size)
    items = [data.read("train", i, i) for i in range(size)]
    batch, peer = data.collate(items), LightlyDataset(data)

    def ours(batch: ImageBatch) -> None:
        images = batch.images.float() / 255
        for number in range(2):
            augment(images, batch.seed, VIEW, SIZE, number)

    def theirs(batch: ImageBatch) -> None:
        for i in range(size):
            peer[i]

    return Case(
        "two views, 32 px, of 32 px",
        "images",
        "lightly SimCLRTransform (PIL)",
        {
            "ours": lambda steps: loop(ours, [batch], steps, len),
            "peer": lambda steps: loop(theirs, [batch], steps, len),
        },
    )


def cutting(args: argparse.Namespace) -> Case:
    """Two views cut from decoded pictures of twice their side, one process, as the loader and the device make them."""
    size = 16 if args.tiny else 256
    data, twice = emoji(size), Images("samples:emoji", image_size=2 * SIZE, batch_size=size)
    twice.serve(Request(pretrains=True))
    peer = LightlyDataset(twice)
    for i in range(size):  # decodes them
        data.read("train", i, i)

    def ours(indices: range) -> None:
        data.finish(data.collate([data.read("train", i, i) for i in indices]))

    def theirs(indices: range) -> None:
        for i in indices:
            peer[i]

    return Case(
        "two views, 32 px, of 64 px",
        "images",
        "lightly SimCLRTransform (PIL)",
        {
            "ours": lambda steps: loop(ours, [range(size)], steps, len),
            "peer": lambda steps: loop(theirs, [range(size)], steps, len),
        },
    )


if __name__ == "__main__":
    parser = arguments(__doc__ or "", rounds=5, steps=3)
    parser.add_argument(
        "--workers", type=int, default=2, help="of the peer's loader; ours augments in the main process"
    )
    compare([simclr, augmentation, cutting], parser.parse_args())
