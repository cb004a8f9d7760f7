"""`ssl-suite prepare tokenizer`, `tokens`, `units` and `manifest`: what a run needs beforehand."""

from __future__ import annotations

import argparse
from pathlib import Path

from ssl_suite.cli.parser import Parser, place

ABOUT = "train a tokenizer, tokenise a corpus, make units of speech or list it, ahead of training"


def command(arguments: list[str]) -> None:
    parser = Parser("ssl-suite prepare", description=ABOUT)
    parts = parser.add_subparsers(
        dest="what", required=True, parser_class=Parser, metavar="tokenizer, tokens, units or manifest"
    )
    tokenizer = parts.add_parser("tokenizer", help="train one", description="train a tokenizer on the training split")
    tokens = parts.add_parser("tokens", help="tokenise", description="build the token files that training will use")
    for part in (tokenizer, tokens):
        part.add_argument("--source", required=True, help="as data.source: samples:NAME, a folder, a file, or hf:NAME")
        part.add_argument("--column", default="text", help="of the text")
        part.add_argument("--vocab_size", type=int, default=8192, help="most entries of a tokenizer to train")
        part.add_argument(
            "--cased", action=argparse.BooleanOptionalAction, help="keep capitals (default: not in wordpiece)"
        )
    kinds = ("wordpiece", "bpe", "unigram", "char", "byte")
    tokenizer.add_argument("--kind", choices=kinds, default="wordpiece")
    tokenizer.add_argument("--out", type=place, required=True, help="folder for tokenizer.json")
    tokens.add_argument("--tokenizer", default="wordpiece", help="tokenizer.json, its folder, or a kind to train")
    add_units(parts)
    add_manifest(parts)
    options = vars(parser.parse_args(arguments))
    what = options.pop("what")
    if what == "units":
        print("\n".join(units(**options)))
        return
    if what == "manifest":
        from ssl_suite.data.speech.manifest import prepare_manifest

        print("\n".join(prepare_manifest(**options)))
        return
    from ssl_suite.data.text.prepare import prepare_tokenizer, prepare_tokens

    make = prepare_tokenizer if what == "tokenizer" else prepare_tokens
    print("\n".join(make(**options)))


def add_units(parts: argparse._SubParsersAction[Parser]) -> None:
    about = "k-means over frames of speech, for HuBERT: data.units takes the folder; started again, it goes on"
    part = parts.add_parser("units", help="cluster speech", description=about)
    part.add_argument("--source", required=True, help="as data.source: samples:NAME, a folder, a file, or hf:NAME")
    part.add_argument("--column", default="audio", help="of the audio")
    part.add_argument("--encoder", default="mfcc", help="encoder folder or URI whose states are clustered, or mfcc")
    part.add_argument("--readout", default="last", help="of an encoder: last, or layer:K")
    part.add_argument("--units", type=int, default=100, help="k, how many")
    part.add_argument("--hours", type=float, default=3.0, help="of training speech that k-means looks at, in memory")
    part.add_argument("--seed", type=int, default=0)
    part.add_argument("--labels", help="column to compare with: an alignment (lists), or one label a recording")
    part.add_argument("--batch_seconds", type=float, default=120.0, help="of padded audio the encoder sees together")
    part.add_argument("--workers", type=int, default=0, help="processes that read")
    part.add_argument("--out", type=place, required=True, help="folder to write")


def add_manifest(parts: argparse._SubParsersAction[Parser]) -> None:
    about = "tables of recordings with their seconds; broken ones are named apart; started again, it goes on"
    part = parts.add_parser("manifest", help="list speech", description=about)
    part.add_argument("--source", required=True, help="as data.source: a folder, a table, or LAYOUT:FOLDER")
    part.add_argument("--column", default="audio", help="of the audio")
    part.add_argument("--headers", action="store_true", help="believe the files' headers instead of decoding all")
    part.add_argument("--workers", type=int, default=0, help="processes that read")
    part.add_argument("--out", type=place, required=True, help="folder to write; data.source takes it")


def units(out: Path, labels: str | None, batch_seconds: float, workers: int, **recipe: object) -> list[str]:
    from ssl_suite.data.speech.prepare import Recipe, prepare_units

    return prepare_units(Recipe(**recipe), out, labels, batch_seconds, workers)  # type: ignore[arg-type]
