"""Hugging Face's side of the text benchmarks: a BERT of our shape, and a Trainer that trains and does nothing else."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

from side_by_side import WARM_UP, Clock

from ssl_suite.core.optim import Optim
from ssl_suite.data.text.text import Text
from ssl_suite.encoders.tokenizer import SPECIAL


def bert(shape: dict[str, int], vocab: int, length: int, dropout: float, attention_dropout: float, **more: Any) -> Any:
    """A `BertConfig` of our shape."""
    from transformers import BertConfig

    return BertConfig(
        vocab_size=vocab,
        hidden_size=shape["dim"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        intermediate_size=4 * shape["dim"],
        max_position_embeddings=length,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=attention_dropout,
        **more,
    )


def wrapped(tokenizer: Any) -> Any:
    """Our tokenizer as theirs."""
    from transformers import PreTrainedTokenizerFast

    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def blocks(data: Text, most: int | None = None) -> Any:
    """The packed training rows of our data as `run_mlm.py` would have them: a `datasets.Dataset`."""
    from datasets import Dataset

    rows = [data.read("train", i, 0).ids.tolist() for i in range(data.size("train"))[:most]]
    special = [[int(t < len(SPECIAL)) for t in row] for row in rows]
    ones = [[1] * len(row) for row in rows]
    return Dataset.from_dict({"input_ids": rows, "attention_mask": ones, "special_tokens_mask": special})


def rate(
    model: Any,
    steps: int,
    units: Callable[[int], float],
    rows: Any,
    optim: Optim,
    batch: int,
    collator: Any = None,
    **options: Any,
) -> float:
    """Trains, see `train`, a step of warm-up and so many measured ones.

    Args:
        model: to train.
        steps: measured, after the warm-up.
        units: number of a step, from 0 → what it has processed.
        rows: a `datasets.Dataset`.
        optim: rate and decay, as on our side.
        batch: rows a step.
        collator: of transformers, or None for its default.
        options: more of `TrainingArguments`.

    Returns:
        Units a second.
    """
    clock = Clock()
    train(model, WARM_UP + steps, rows, optim, batch, collator, lambda step: clock.step(units(step - 1)), **options)
    return clock.rate()


def train(
    model: Any,
    steps: int,
    rows: Any,
    optim: Optim,
    batch: int,
    collator: Any,
    after_step: Callable[[int], None],
    **options: Any,
) -> None:
    """Trains by the recommended path: a data collator, the Trainer's own AdamW and schedule; nothing logged or saved.

    Args:
        model: to train.
        steps: in all.
        rows: a `datasets.Dataset`.
        optim: of which the rate and the decay are taken.
        batch: rows a step.
        collator: of transformers, or None for its default.
        after_step: called with the number of each step, from 1, when it is done.
        options: more of `TrainingArguments`.
    """
    from transformers import Trainer, TrainerCallback, TrainingArguments
    from transformers.trainer_callback import PrinterCallback

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
            after_step(state.global_step)

    arguments = TrainingArguments(
        tempfile.mkdtemp(),
        per_device_train_batch_size=batch,
        max_steps=steps,
        learning_rate=optim.lr,
        weight_decay=optim.weight_decay,
        use_cpu=True,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **options,
    )
    trainer = Trainer(model, arguments, collator, rows, callbacks=[Watch()])
    trainer.remove_callback(PrinterCallback)
    trainer.train()
