"""Speed of fine-tuning on CoLA, batched by length, against Hugging Face's Trainer with run_glue.py's padding to 128."""

from __future__ import annotations

import argparse
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import hugging_face
from side_by_side import Case, arguments, compare, fit

from ssl_suite.core.data import Request
from ssl_suite.core.finetune import Finetune
from ssl_suite.core.optim import Optim
from ssl_suite.data.text.sequences.glue import GLUE
from ssl_suite.data.text.text import Text
from ssl_suite.encoders.text import TextEncoder
from ssl_suite.tasks.classify import Classify

VOCAB, LENGTH = 8192, 128
OPTIM = Optim(lr=2e-5, weight_decay=0.01, warmup_ratio=0.1, schedule="linear")


@cache
def sentences(source: str | None, batch: int) -> Text:
    """CoLA's training rows, or the embedded sentences; both sides read these, cut by one tokenizer."""
    data = (
        GLUE("cola", source, vocab_size=VOCAB, max_length=LENGTH, batch_size=batch)
        if source
        else Text("samples:sentences", vocab_size=VOCAB, max_length=LENGTH, batch_size=batch)
    )
    data.serve(Request(target="class", vocab_size=VOCAB))
    return data


@cache
def padded(source: str | None, batch: int) -> Any:
    """The same rows as run_glue.py has them by default: each padded to 128."""
    from datasets import Dataset

    data = sentences(source, batch)
    rows = [data.read("train", i, 0) for i in range(data.size("train"))]
    filling = [LENGTH - len(row.ids) for row in rows]
    return Dataset.from_dict(
        {
            "input_ids": [row.ids.tolist() + [0] * n for row, n in zip(rows, filling, strict=True)],
            "attention_mask": [[1] * len(row.ids) + [0] * n for row, n in zip(rows, filling, strict=True)],
            "label": [int(row.target) for row in rows],
        }
    )


def cola(args: argparse.Namespace) -> Case:
    """The whole encoder, one label a sentence."""
    from transformers import BertForSequenceClassification

    shape = {"dim": 32, "layers": 1, "heads": 2} if args.tiny else {"dim": 256, "layers": 4, "heads": 4}
    batch, folder = 4 if args.tiny else 32, Path(tempfile.mkdtemp())
    data = sentences(args.data, batch)
    encoder = TextEncoder(VOCAB, **shape, max_length=LENGTH, norm="post", eps=1e-12, dropout=0.1, segments=2)
    ours = Finetune(encoder, Classify(dropout=0.1), readout="cls", mode="finetune", optim=OPTIM)
    theirs = BertForSequenceClassification(hugging_face.bert(shape, VOCAB, LENGTH, 0.1, 0.0, num_labels=2))

    def peer(steps: int) -> float:
        return hugging_face.rate(theirs, steps, lambda _: batch, padded(args.data, batch), OPTIM, batch)

    def side(steps: int) -> float:
        return fit(ours, steps, len, folder, datamodule=data, gradient_clip_val=1.0)

    name = "CoLA" if args.data else "sentences"
    return Case(f"fine-tuning, {name}", "examples", "transformers Trainer, BERT", {"ours": side, "peer": peer})


if __name__ == "__main__":
    parser = arguments(__doc__ or "", rounds=5, steps=15)
    parser.add_argument("--data", help="GLUE's official folder, with CoLA/train.tsv; default: the embedded sentences")
    compare([cola], parser.parse_args())
