"""Pretraining on sentences of mixed length: real tokens a second with length buckets, against padding to 128."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import hugging_face
import numpy as np
import torch
from side_by_side import Case, arguments, compare, fit
from text import LENGTH, OPTIM, VOCAB, batch, shape

from ssl_suite.core.batch import TextBatch
from ssl_suite.core.data import Request
from ssl_suite.core.sampler import plain_batches
from ssl_suite.data.text.items import TextItem
from ssl_suite.data.text.text import Text
from ssl_suite.encoders.text import TextEncoder
from ssl_suite.encoders.tokenizer import SPECIAL
from ssl_suite.methods.text.masked_lm import MaskedLM

SOURCE = "samples:sentences"


class Padded(Text):
    """Batches at random, each row padded to the window: what is usual."""

    def train_batches(self, epoch: int) -> list[list[int]]:
        return plain_batches(self.size("train"), self.batch_size, 0, epoch, drop_last=True)

    def collate(self, items: list[TextItem]) -> TextBatch:
        made = super().collate(items)
        missing = LENGTH - made.ids.shape[1]
        made.ids = torch.nn.functional.pad(made.ids, (0, missing), value=SPECIAL.index("[PAD]"))
        made.mask, made.dense = torch.nn.functional.pad(made.mask, (0, missing)), False
        return made


@cache
def data(kind: type[Text], size: int) -> Text:
    made = kind(SOURCE, vocab_size=VOCAB, max_length=LENGTH, pack=False, batch_size=size)
    made.serve(Request(vocab_size=VOCAB))
    return made


def ours(kind: type[Text], args: argparse.Namespace) -> Callable[[int], float]:
    encoder = TextEncoder(VOCAB, **shape(args), max_length=LENGTH, dropout=args.dropout)
    method, folder = MaskedLM(encoder, optim=OPTIM), Path(tempfile.mkdtemp())

    def side(steps: int) -> float:
        made = data(kind, batch(args))
        return fit(method, steps, lambda b: int(b.mask.sum()), folder, datamodule=made, gradient_clip_val=1.0)

    return side


def trainer(by_length: bool, args: argparse.Namespace) -> Callable[[int], float]:
    """The Trainer on the same rows: padded to the window, or by its own buckets (`group_by_length`)."""
    from datasets import Dataset
    from transformers import BertForMaskedLM, DataCollatorForLanguageModeling

    size, made, s = batch(args), data(Text, batch(args)), shape(args)
    tokenizer = hugging_face.wrapped(made.tokenizer)
    order = np.random.default_rng(0).permutation(made.size("train"))[:4096]
    rows = [made.read("train", int(i), 0).ids.tolist() for i in order]
    width = 0 if by_length else LENGTH

    def column(values: Callable[[list[int]], list[int]], filling: int) -> list[list[int]]:
        return [values(row) + [filling] * (width - len(row)) for row in rows]

    columns = {
        "input_ids": column(list, 0),
        "attention_mask": column(lambda row: [1] * len(row), 0),
        "special_tokens_mask": column(lambda row: [int(t < len(SPECIAL)) for t in row], 1),
    }
    model = BertForMaskedLM(hugging_face.bert(s, VOCAB, LENGTH, args.dropout, 0.0))

    class Counting(DataCollatorForLanguageModeling):
        """Remembers the real tokens of the batches; without workers and prefetch, the last one is being trained on."""

        real: list[int] = []

        def torch_call(self, examples: list[Any]) -> Any:
            made = super().torch_call(examples)
            self.real.append(int(made["attention_mask"].sum()))
            return made

    def side(steps: int) -> float:
        collator = Counting(tokenizer, mlm_probability=0.15)
        collator.real = []
        sampling = "group_by_length" if by_length else "random"
        rows, real = Dataset.from_dict(columns), collator.real.__getitem__
        return hugging_face.rate(model, steps, real, rows, OPTIM, size, collator, train_sampling_strategy=sampling)

    return side


def padding(args: argparse.Namespace) -> Case:
    """Ours both ways."""
    return Case(
        "buckets, padding", "tokens", "ours, padded to 128", {"ours": ours(Text, args), "peer": ours(Padded, args)}
    )


def trainer_padding(args: argparse.Namespace) -> Case:
    sides = {"ours": ours(Text, args), "peer": trainer(False, args)}
    return Case("buckets, padding", "tokens", "transformers Trainer, padded to 128", sides)


def trainer_buckets(args: argparse.Namespace) -> Case:
    sides = {"ours": ours(Text, args), "peer": trainer(True, args)}
    return Case("buckets, buckets", "tokens", "transformers Trainer, group_by_length", sides)


if __name__ == "__main__":
    parser = arguments(__doc__ or "", rounds=3, steps=20)
    parser.add_argument("--dropout", type=float, default=0.1, help="of both sides")
    compare([padding, trainer_padding, trainer_buckets], parser.parse_args())
