"""Speed of MaskedLM and CausalLM against Hugging Face's Trainer with BERT and GPT-2 of the same size."""

from __future__ import annotations

import argparse
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import hugging_face
from side_by_side import Case, arguments, compare, fit

from ssl_suite.core.data import Request
from ssl_suite.core.optim import Optim
from ssl_suite.data.text.text import Text
from ssl_suite.encoders.text import TextEncoder
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
    """The same blocks on their side."""
    return hugging_face.blocks(corpus(batch_size), 4096)


def trainer(model: Any, mlm: bool, size: int) -> Any:
    def side(steps: int) -> float:
        from transformers import DataCollatorForLanguageModeling

        tokenizer = hugging_face.wrapped(corpus(size).tokenizer)
        collator = DataCollatorForLanguageModeling(tokenizer, mlm=mlm, mlm_probability=0.15 if mlm else None)
        rows = blocks(size) if mlm else blocks(size).remove_columns("special_tokens_mask")
        return hugging_face.rate(model, steps, lambda _: size * LENGTH, rows, OPTIM, size, collator)

    return side


def lightning(method: Any, size: int, folder: Path) -> Any:
    def side(steps: int) -> float:
        return fit(method, steps, lambda b: b.ids.numel(), folder, datamodule=corpus(size), gradient_clip_val=1.0)

    return side


def masked_lm(args: argparse.Namespace) -> Case:
    """BERT's objective."""
    from transformers import BertForMaskedLM

    s, size, folder = shape(args), batch(args), Path(tempfile.mkdtemp())
    config = hugging_face.bert(s, VOCAB, LENGTH, args.dropout, args.attention_dropout)
    ours = MaskedLM(TextEncoder(VOCAB, **s, max_length=LENGTH, dropout=args.dropout), optim=OPTIM)
    theirs = trainer(BertForMaskedLM(config), True, size)
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
    theirs = trainer(GPT2LMHeadModel(config), False, size)
    name = f"CausalLM, dropout {args.dropout}, peer's attention dropout {args.attention_dropout}"
    return Case(name, "tokens", "transformers Trainer, GPT-2", {"ours": lightning(ours, size, folder), "peer": theirs})


if __name__ == "__main__":
    parser = arguments(__doc__ or "", rounds=5, steps=5)
    parser.add_argument("--dropout", type=float, default=0.1, help="of both sides, on residuals and embeddings")
    help = "of the peer's attention weights; 0.1 is its default, ours drops none"
    parser.add_argument("--attention_dropout", type=float, default=0.1, help=help)
    compare([masked_lm, causal_lm], parser.parse_args())
