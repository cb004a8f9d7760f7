"""What an encoder makes of a whole data set, in memory or as a parquet file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_suite.core.check import within
from ssl_suite.core.data import DataModule, Loader, Request
from ssl_suite.core.encoder import Encoder
from ssl_suite.core.errors import UserError
from ssl_suite.core.files import check_target
from ssl_suite.core.load import load_encoder
from ssl_suite.core.pace import told
from ssl_suite.core.readout import Readout
from ssl_suite.data.common.given import given
from ssl_suite.data.common.layout import SPLIT_OF
from ssl_suite.data.common.source import Rows
from ssl_suite.data.common.source_data import SourceData
from ssl_suite.data.embedding_table import holds_embeddings, write_table
from ssl_suite.plugins import load_all


@dataclass(frozen=True)
class Written:
    """What `write_embeddings` wrote.

    Attributes:
        rows: how many.
        dim: width of an embedding.
        skipped: samples that could not be read.
    """

    rows: int
    dim: int
    skipped: int


def data_for(encoder: Encoder, source: str | Rows, **options: Any) -> DataModule:
    """The data module that reads a source for this encoder's modality: nothing held out, packed or cropped.

    Args:
        encoder: what it learned from (`Encoder.preprocess`) is what it is given.
        source: as a data module's; or rows, which become its test split.
        options: of the data module; None is its own default.

    Raises:
        UserError: of images, neither the encoder nor the options say which size they are of.
    """
    from ssl_suite.data.image.images import Images
    from ssl_suite.data.speech.speech import Speech
    from ssl_suite.data.text.text import Text

    chosen = {name: value for name, value in options.items() if value is not None}
    if encoder.modality == "image" and "image_size" not in encoder.preprocess | chosen:
        raise UserError(f"{type(encoder).__name__} does not say of which size its images are; give an image_size.")
    if encoder.modality == "text" and encoder.tokenizer is None:
        raise UserError(f"{type(encoder).__name__} has no tokenizer, so that it cannot read text; load a trained one.")
    classes: dict[str, type[SourceData]] = {"image": Images, "speech": Speech, "text": Text}
    data = classes[encoder.modality](source if isinstance(source, str) else source.name, **chosen)
    data.holds_out = False
    if not isinstance(source, str):
        data.take({"test": source})
    if isinstance(data, Text):
        data.max_length = getattr(encoder, "max_length", data.max_length)
    data.serve(Request.of(encoder, aligned=True))
    return data


@torch.no_grad()
def encode(
    encoder: Encoder, data: DataModule, batches: Loader, readout: Readout
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Runs the encoder over the batches of a split, in whatever order they come.

    Yields:
        (B,) positions in the split and, on the host, of each the (T, D) states at real positions; T is 1 where the
        readout has no time axis.
    """
    device = next(encoder.parameters(), torch.empty(0)).device
    encoder.eval()
    for batch in batches:
        values, mask = readout(readout.select(encoder(data.finish(batch.to(device)))))
        yield batch.index, [v[m].float().cpu() for v, m in zip(values, mask, strict=True)]


def untaught(name: str, encoder: Encoder, sequence: bool = False) -> Readout:
    """A readout before any task; raises UserError for one that a task has to teach."""
    if name == "weighted_sum":
        raise UserError("The readout weighted_sum has weights only once a task has learnt them; use last or mean.")
    return Readout(name, encoder, sequence)


def embeddings(encoder: Encoder, data: DataModule, split: str, readout: str = "last") -> tuple[list[str], Tensor]:
    """Ids and (N, D) embeddings of a split, in its order, of any data module that was served."""
    seen = untaught(readout, encoder)
    batches = list(encode(encoder, data, data.eval_dataloader(split), seen))
    index = torch.cat([places for places, _ in batches])
    vectors, order, ids = torch.cat([v for _, values in batches for v in values]), index.argsort(), data.ids(split)
    return [ids[i] for i in index[order].tolist()], vectors[order]


def embed(
    encoder: Encoder | str | Path,
    inputs: Iterable[Any],
    readout: str = "last",
    batch_size: int = 64,
    image_size: int | None = None,
) -> NDArray[np.float32]:
    """See `ssl_suite.embed`."""
    within("batch_size", batch_size, low=1, whole=True)
    model = load_encoder(encoder)
    if not isinstance(encoder, Encoder):
        model.to(fastest_device())
    rows, training = given(inputs, model.modality), model.training
    size = {"image_size": image_size} if model.modality == "image" else {}
    _, vectors = embeddings(model, data_for(model, rows, batch_size=batch_size, **size), "test", readout)
    model.train(training)
    return vectors.numpy()


def fastest_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def write_embeddings(
    encoder: str,
    source: str,
    out: Path,
    split: str = "train",
    readout: str = "last",
    frames: bool = False,
    column: str | None = None,
    batch_size: int = 64,
    workers: int = 0,
    on_error: Literal["raise", "skip"] = "raise",
    image_size: int | None = None,
) -> Written:
    """Writes the columns `id` and `embedding` in the order of the split; memory holds a few batches of them.

    Args:
        encoder: folder or URI.
        source: as a data module's.
        out: parquet file; `embedding` is D numbers a row, or with `frames` a list of T times D numbers.
        split: of the source.
        readout: last, cls, mean or layer:K; weighted_sum has nothing to weigh by before a task.
        frames: keep the time axis.
        column: of the input; None: the data module's own.
        batch_size: items the encoder sees together.
        workers: processes that read.
        on_error: `raise` at the first unreadable sample, or leave it out and count it.
        image_size: side in pixels, for images.

    Raises:
        UserError: the encoder, the data, or the split is not there, or an option does not fit.
    """
    check_target(out)
    if out.exists() and not holds_embeddings(out):
        raise UserError(f"{out} exists and holds no embeddings of this suite; choose another --out.")
    within("--batch_size", batch_size, low=1, whole=True)
    within("--workers", workers, low=0, whole=True)
    split = SPLIT_OF.get(split, split)
    load_all()
    model = load_encoder(encoder)
    if image_size is not None and model.modality != "image":
        raise UserError("--image_size is for images.")
    seen = untaught(readout, model, sequence=frames)
    reading = {"batch_size": batch_size, "num_workers": workers, "column": column, "image_size": image_size}
    data = data_for(model, source, **reading, **({"on_error": on_error} if on_error != "raise" else {}))
    loader = data.eval_dataloader(split)
    ids = data.ids(split)
    model.to(fastest_device())
    metadata = {"encoder": encoder, "source": source, "split": split, "readout": readout, "stride": str(model.stride)}
    found = told(encode(model, data, loader, seen), f"Encoding {split}", len(ids), lambda part: len(part[0]))
    rows = write_table(out, found, ids, seen.dim, frames, metadata)
    return Written(rows, seen.dim, data.skipped.value)
