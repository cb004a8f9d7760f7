"""Batches are moved whole, and from pinned memory without waiting; there is no GPU here, so a tensor notes the call."""

from __future__ import annotations

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tiny import image_batch, speech_batch, text_batch
from torch import Tensor

from ssl_suite.core.batch import Batch
from ssl_suite.core.features import FeatureBatch


class Noted(Tensor):
    """A tensor that may say it is pinned, and notes how it was copied."""

    pinned: bool
    copied: dict[str, Any]

    @staticmethod
    def of(tensor: Tensor, pinned: bool) -> Noted:
        made = tensor.as_subclass(Noted)
        made.pinned, made.copied = pinned, {}
        return made

    def is_pinned(self, *args: Any, **kwargs: Any) -> bool:
        return self.pinned

    def pin_memory(self, *args: Any) -> Tensor:
        return Noted.of(self.as_subclass(Tensor), True)

    def to(self, *args: Any, **kwargs: Any) -> Any:
        self.copied.update(kwargs, device=args[0])
        return self.as_subclass(Tensor).to(*args, **kwargs)


def feature_batch() -> FeatureBatch:
    index = torch.arange(3)
    return FeatureBatch(index, index, None, torch.rand(3, 1, 1, 4), torch.ones(3, 1, dtype=torch.bool))


def tensors(batch: Batch) -> list[Any]:
    """Every tensor of a batch, its views too."""
    parts = [value if isinstance(value, tuple) else (value,) for value in vars(batch).values()]
    return [tensor for part in parts for tensor in part if isinstance(tensor, Tensor)]


BATCHES = {
    "text": lambda: text_batch([5, 3]),
    "image": lambda: image_batch(2, views=2),
    "speech": lambda: speech_batch([400, 900]),
    "features": feature_batch,
}


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("pinned", [True, False])
def test_lightning_copies_a_pinned_batch_without_waiting(name: str, pinned: bool) -> None:
    batch = BATCHES[name]()._each(lambda tensor: Noted.of(tensor, False))
    batch = batch.pin_memory() if pinned else batch
    moved = pl.LightningDataModule().transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert type(moved) is type(batch)
    assert len(tensors(batch)) == len(tensors(moved)) >= 4
    assert all(tensor.device.type == "meta" for tensor in tensors(moved))
    for tensor in tensors(batch):
        assert tensor.copied == {"device": torch.device("meta"), "non_blocking": pinned}
