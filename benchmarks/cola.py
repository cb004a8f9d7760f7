"""Speed of fine-tuning on CoLA, batched by length, against Hugging Face's Trainer with run_glue.py's padding to 128."""

from __future__ import annotations

import argparse
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from side_by_side import WARM_UP, Case, Clock, arguments, compare, fit

from ssl_suite.core.data import Request
from ssl_suite.core.finetune import Finetune
from ssl_suite.core.optim import Optim
from ssl_suite.data.text.glue import GLUE
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
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments
    from transformers.trainer_callback import PrinterCallback

    shape = {"dim": 32, "layers": 1, "heads": 2} if args.tiny else {"dim": 256, "layers": 4, "heads": 4}
    batch, folder = 4 if args.tiny else 32, Path(tempfile.mkdtemp())
    data = sentences(args.data, batch)
    encoder = TextEncoder(VOCAB, **shape, max_length=LENGTH, norm="post", eps=1e-12, dropout=0.1, segments=2)
    ours = Finetune(encoder, Classify(dropout=0.1), readout="cls", mode="finetune", optim=OPTIM)
    config = BertConfig(
        vocab_size=VOCAB,
        hidden_size=shape["dim"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        intermediate_size=4 * shape["dim"],
        max_position_embeddings=LENGTH,
        attention_probs_dropout_prob=0.0,
        num_labels=2,
    )
    theirs = BertForSequenceClassification(config)

    class Watch(TrainerCallback):
        def __init__(self, clock: Clock) -> None:
            self.clock = clock

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            self.clock.step(batch)

    def peer(steps: int) -> float:
        clock = Clock()
        options = TrainingArguments(
            str(folder),
            per_device_train_batch_size=batch,
            max_steps=WARM_UP + steps,
            learning_rate=OPTIM.lr,
            weight_decay=OPTIM.weight_decay,
            use_cpu=True,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = Trainer(theirs, options, train_dataset=padded(args.data, batch), callbacks=[Watch(clock)])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return clock.rate()

    def side(steps: int) -> float:
        return fit(ours, steps, len, folder, datamodule=data, gradient_clip_val=1.0)

    name = "CoLA" if args.data else "sentences"
    return Case(f"fine-tuning, {name}", "examples", "transformers Trainer, BERT", {"ours": side, "peer": peer})


if __name__ == "__main__":
    parser = arguments(__doc__ or "", rounds=5, steps=15)
    parser.add_argument("--data", help="GLUE's official folder, with CoLA/train.tsv; default: the embedded sentences")
    compare([cola], parser.parse_args())
