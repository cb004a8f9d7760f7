"""Embeddings of a data set in a parquet file: `ssl-suite embed`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ssl_suite.core.data import DataModule, Request
from ssl_suite.core.encoder import Encoder
from ssl_suite.core.errors import UserError
from ssl_suite.core.folder import load_encoder, replacing
from ssl_suite.core.readout import Readout
from ssl_suite.plugins import load_all


def data_for(encoder: Encoder, source: str, **options: Any) -> DataModule:
    """The data module that reads all of `source` for this encoder's modality: nothing held out, packed or cropped."""
    from ssl_suite.data.image.images import Images
    from ssl_suite.data.speech.speech import Speech
    from ssl_suite.data.text.text import Text

    classes: dict[str, type[DataModule]] = {"image": Images, "speech": Speech, "text": Text}
    data = classes[encoder.modality](source, **{k: v for k, v in options.items() if v is not None})  # type: ignore[arg-type]
    data.holds_out = False  # type: ignore[attr-defined]
    if isinstance(data, Text):
        data.pack, data.split_long, data.max_length = False, False, getattr(encoder, "max_length", data.max_length)
    if isinstance(data, Speech):
        data.max_seconds = None
    vocab = encoder.config.get("vocab_size")
    data.serve(Request(tokenizer=encoder.tokenizer, vocab_size=vocab))
    return data


@torch.no_grad()
def embeddings(encoder: Encoder, data: DataModule, split: str, readout: str = "last") -> tuple[list[str], torch.Tensor]:
    """Ids and (N, D) embeddings of a split, in its order."""
    select = Readout(readout, encoder.eval(), sequence=False)
    device = next(encoder.parameters(), torch.empty(0)).device
    index, vectors = [], []
    for batch in data.eval_dataloader(split):
        encoded = select.select(encoder(data.finish(batch.to(device))))
        vectors.append(select(encoded)[0][:, 0].cpu())
        index.append(batch.index)
    order = torch.cat(index).argsort()
    ids = data.ids(split)
    return [ids[i] for i in torch.cat(index)[order].tolist()], torch.cat(vectors)[order]


def write_embeddings(
    encoder: str, source: str, out: Path, split: str, readout: str, batch_size: int, image_size: int | None
) -> tuple[int, int]:
    """Writes columns `id` and `embedding`; returns how many and how wide.

    Raises:
        UserError: the encoder, the data, or the split is not there.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    load_all()
    model = load_encoder(encoder)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    if image_size is not None and model.modality != "image":
        raise UserError("--image_size is for images.")
    options = {"image_size": image_size} if image_size else {}
    data = data_for(model, source, batch_size=batch_size, **options)
    ids, vectors = embeddings(model, data, split, readout)
    width = vectors.shape[1]
    values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.numpy().ravel()), width)
    with replacing(out) as temporary:
        pq.write_table(pa.table({"id": ids, "embedding": values}), temporary)
    return len(ids), width
