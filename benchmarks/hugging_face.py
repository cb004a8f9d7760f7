"""Hugging Face's side of the text benchmarks: a BERT of our shape, and a Trainer that trains and does nothing else."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

from side_by_side import WARM_UP, Clock

from ssl_suite.core.optim import Optim
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
    """Trains by the recommended path: a data collator, the Trainer's own AdamW and schedule; nothing logged or saved.

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
    from transformers import Trainer, TrainerCallback, TrainingArguments
    from transformers.trainer_callback import PrinterCallback

    clock = Clock()

    class Watch(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.step(units(len(clock.marks)))

    arguments = TrainingArguments(
        tempfile.mkdtemp(),
        per_device_train_batch_size=batch,
        max_steps=WARM_UP + steps,
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
    return clock.rate()
