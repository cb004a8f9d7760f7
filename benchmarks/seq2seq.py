"""Speed of T5's span corruption and BART's infilling against Hugging Face's Trainer with T5 and BART of the same size.

The peer gets its pairs ready made, once; ours corrupts every row as it is read.
"""

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
from ssl_suite.core.seq2seq import Seq2SeqBatch
from ssl_suite.data.text.text import Text
from ssl_suite.encoders.encoder_decoder import EncoderDecoder
from ssl_suite.encoders.seq2seq_layers import Shape
from ssl_suite.methods.text.denoise import Denoise
from ssl_suite.methods.text.seq2seq import Seq2Seq

VOCAB = 8192
LENGTH: dict[Shape, int] = {"t5": 569, "bart": 128}
"""Of a row; T5's own, of which 512 tokens are read and 114 said (arXiv:1910.10683, section 3.1.4)."""
BATCH: dict[Shape, int] = {"t5": 8, "bart": 32}
OPTIM = Optim(lr=1e-4, weight_decay=0.01, schedule="linear")
HOW = {"t5": Denoise(), "bart": Denoise("bart")}


def shape(args: argparse.Namespace) -> dict[str, int]:
    return {"dim": 32, "layers": 1, "heads": 2} if args.tiny else {"dim": 256, "layers": 4, "heads": 4}


def batch(kind: Shape, args: argparse.Namespace) -> int:
    return 4 if args.tiny else BATCH[kind]


@cache
def corpus(kind: Shape, size: int) -> Text:
    """The sample corpus in blocks of our own 8192-entry tokenizer, corrupted as T5 or BART does."""
    data = Text("samples:corpus", tokenizer="wordpiece", vocab_size=VOCAB, max_length=LENGTH[kind], batch_size=size)
    data.serve(Request(pretrains=True, vocab_size=VOCAB, corruption=HOW[kind], start_id=0))
    return data


def tokens(batch: Seq2SeqBatch) -> float:
    """Tokens that are read and said."""
    return float(batch.mask.sum() + batch.decoder.mask.sum())


def trainer(model: Any, kind: Shape, size: int) -> Any:
    def side(steps: int) -> float:
        from datasets import Dataset
        from transformers import DataCollatorForSeq2Seq

        data = corpus(kind, size)
        pairs = [data.read("train", i, i).pairs[0] for i in range((steps + 1) * size)]  # type: ignore[union-attr]
        rows = Dataset.from_dict({"input_ids": [p.inputs for p in pairs], "labels": [p.targets for p in pairs]})
        mean = sum(len(p.inputs) + len(p.targets) for p in pairs) / len(pairs)
        collator = DataCollatorForSeq2Seq(hugging_face.wrapped(data.tokenizer), model)
        return hugging_face.rate(model, steps, lambda _: size * mean, rows, OPTIM, size, collator)

    return side


def lightning(method: Any, kind: Shape, size: int, folder: Path) -> Any:
    def side(steps: int) -> float:
        return fit(method, steps, tokens, folder, datamodule=corpus(kind, size), gradient_clip_val=1.0)

    return side


def ours(kind: Shape, args: argparse.Namespace, **options: Any) -> Any:
    encoder = EncoderDecoder(
        VOCAB, **shape(args), max_length=LENGTH[kind] + 2, shape=kind, dropout=args.dropout, **options
    )
    return lightning(Seq2Seq(encoder, HOW[kind], OPTIM), kind, batch(kind, args), Path(tempfile.mkdtemp()))


def t5(args: argparse.Namespace) -> Case:
    """Spans of three tokens, 15 % of all."""
    from transformers import T5Config, T5ForConditionalGeneration

    s = shape(args)
    config = T5Config(
        vocab_size=VOCAB,
        d_model=s["dim"],
        d_kv=s["dim"] // s["heads"],
        d_ff=4 * s["dim"],
        num_layers=s["layers"],
        num_heads=s["heads"],
        dropout_rate=args.dropout,
        decoder_start_token_id=0,
    )
    theirs = trainer(T5ForConditionalGeneration(config), "t5", batch("t5", args))
    name = f"T5, 512 + 114 tokens, dropout {args.dropout}"
    return Case(name, "tokens", "transformers Trainer, T5", {"ours": ours("t5", args), "peer": theirs})


def bart(args: argparse.Namespace) -> Case:
    """Infilled words and permuted sentences."""
    from transformers import BartConfig, BartForConditionalGeneration

    s = shape(args)
    sides = ("encoder", "decoder")
    config = BartConfig(
        vocab_size=VOCAB,
        d_model=s["dim"],
        max_position_embeddings=LENGTH["bart"] + 2,
        dropout=args.dropout,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        decoder_start_token_id=0,
        forced_eos_token_id=None,
        **{f"{side}_layers": s["layers"] for side in sides},
        **{f"{side}_ffn_dim": 4 * s["dim"] for side in sides},
        **{f"{side}_attention_heads": s["heads"] for side in sides},
    )
    theirs = trainer(BartForConditionalGeneration(config), "bart", batch("bart", args))
    own = ours("bart", args, activation="gelu")
    name = f"BART, 128 tokens, dropout {args.dropout}"
    return Case(name, "tokens", "transformers Trainer, BART", {"ours": own, "peer": theirs})


if __name__ == "__main__":
    parser = arguments(__doc__ or "", rounds=3, steps=5)
    parser.add_argument("--dropout", type=float, default=0.1, help="of both sides; T5's peer drops attention too")
    compare([t5, bart], parser.parse_args())
