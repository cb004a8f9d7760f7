"""Speed of MaskedLM and CausalLM against Hugging Face's Trainer with BERT and GPT-2 of the same size."""

from __future__ import annotations

import argparse
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from side_by_side import WARM_UP, Case, Clock, arguments, compare, fit

from ssl_suite.core.data import Request
from ssl_suite.core.optim import Optim
from ssl_suite.data.text.text import Text
from ssl_suite.encoders.text import TextEncoder
from ssl_suite.encoders.tokenizer import SPECIAL
from ssl_suite.methods.text.causal_lm import CausalLM
from ssl_suite.methods.text.masked_lm import MaskedLM

VOCAB, LENGTH = 8192, 128
OPTIM = Optim(lr=1e-4, weight_decay=0.01, schedule="linear")


def shape(args: argparse.Namespace) -> dict[str, int]:
    return {"dim": 32, "layers": 1, "heads": 2} if args.tiny else {"dim": 256, "layers": 4, "heads": 4}


def batch(args: argparse.Namespace) -> int:
    return 4 if args.tiny else 32


@cache
def corpus(batch_size: int) -> Text:
    """The sample corpus in blocks of 128 of our own 8192-entry tokenizer; both sides read these blocks."""
    data = Text("samples:corpus", tokenizer="wordpiece", vocab_size=VOCAB, max_length=LENGTH, batch_size=batch_size)
    data.serve(Request(vocab_size=VOCAB))
    return data


@cache
def blocks(batch_size: int) -> Any:
    """The same blocks as `run_mlm.py` would have them: a `datasets.Dataset`."""
    from datasets import Dataset

    data = corpus(batch_size)
    rows = [data.read("train", i, 0).ids.tolist() for i in range(min(data.size("train"), 4096))]
    special = [[int(t < len(SPECIAL)) for t in row] for row in rows]
    ones = [[1] * len(row) for row in rows]
    return Dataset.from_dict({"input_ids": rows, "attention_mask": ones, "special_tokens_mask": special})


def hugging_face(model: Any, mlm: bool, size: int, folder: Path) -> Any:
    """The Trainer's recommended path: a data collator, its own AdamW and schedule, nothing logged or saved."""
    from transformers import (
        DataCollatorForLanguageModeling,
        PreTrainedTokenizerFast,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=corpus(size).tokenizer, **names)
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=mlm, mlm_probability=0.15 if mlm else None)

    class Watch(TrainerCallback):
        def __init__(self, clock: Clock) -> None:
            self.clock = clock

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            self.clock.step(size * LENGTH)

    def side(steps: int) -> float:
        clock = Clock()
        options = TrainingArguments(
            str(folder),
            per_device_train_batch_size=size,
            max_steps=WARM_UP + steps,
            learning_rate=OPTIM.lr,
            weight_decay=OPTIM.weight_decay,
            use_cpu=True,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        columns = blocks(size) if mlm else blocks(size).remove_columns("special_tokens_mask")
        trainer = Trainer(model, options, collator, columns, processing_class=tokenizer, callbacks=[Watch(clock)])
        from transformers.trainer_callback import PrinterCallback

        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return clock.rate()

    return side


def lightning(method: Any, size: int, folder: Path) -> Any:
    def side(steps: int) -> float:
        return fit(method, steps, lambda b: b.ids.numel(), folder, datamodule=corpus(size), gradient_clip_val=1.0)

    return side


def masked_lm(args: argparse.Namespace) -> Case:
    """BERT's objective."""
    from transformers import BertConfig, BertForMaskedLM

    s, size, folder = shape(args), batch(args), Path(tempfile.mkdtemp())
    config = BertConfig(
        vocab_size=VOCAB,
        hidden_size=s["dim"],
        num_hidden_layers=s["layers"],
        num_attention_heads=s["heads"],
        intermediate_size=4 * s["dim"],
        max_position_embeddings=LENGTH,
        hidden_dropout_prob=args.dropout,
        attention_probs_dropout_prob=args.attention_dropout,
    )
    ours = MaskedLM(TextEncoder(VOCAB, **s, max_length=LENGTH, dropout=args.dropout), optim=OPTIM)
    theirs = hugging_face(BertForMaskedLM(config), True, size, folder)
    name = f"MaskedLM, dropout {args.dropout}, peer's attention dropout {args.attention_dropout}"
    return Case(name, "tokens", "transformers Trainer, BERT", {"ours": lightning(ours, size, folder), "peer": theirs})


def causal_lm(args: argparse.Namespace) -> Case:
    """GPT's objective."""
    from transformers import GPT2Config, GPT2LMHeadModel

    s, size, folder = shape(args), batch(args), Path(tempfile.mkdtemp())
    config = GPT2Config(
        vocab_size=VOCAB,
        n_positions=LENGTH,
        n_embd=s["dim"],
        n_layer=s["layers"],
        n_head=s["heads"],
        embd_pdrop=args.dropout,
        attn_pdrop=args.attention_dropout,
        resid_pdrop=args.dropout,
        bos_token_id=2,
        eos_token_id=3,
    )
    encoder = TextEncoder(VOCAB, **s, max_length=LENGTH, causal=True, dropout=args.dropout, activation="gelu_tanh")
    ours = CausalLM(encoder, optim=OPTIM)
    theirs = hugging_face(GPT2LMHeadModel(config), False, size, folder)
    name = f"CausalLM, dropout {args.dropout}, peer's attention dropout {args.attention_dropout}"
    return Case(name, "tokens", "transformers Trainer, GPT-2", {"ours": lightning(ours, size, folder), "peer": theirs})


if __name__ == "__main__":
    parser = arguments(__doc__ or "", rounds=5, steps=5)
    parser.add_argument("--dropout", type=float, default=0.1, help="of both sides, on residuals and embeddings")
    help = "of the peer's attention weights; 0.1 is its default, ours drops none"
    parser.add_argument("--attention_dropout", type=float, default=0.1, help=help)
    compare([masked_lm, causal_lm], parser.parse_args())
