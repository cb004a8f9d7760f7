"""`ssl-suite prepare tokenizer` and `ssl-suite prepare tokens`: what a text run needs beforehand."""

from __future__ import annotations

import argparse

from ssl_suite.cli.parser import Parser, place

ABOUT = "train a tokenizer, or tokenise a corpus ahead of training"


def command(arguments: list[str]) -> None:
    parser = Parser("ssl-suite prepare", description=ABOUT)
    parts = parser.add_subparsers(dest="what", required=True, parser_class=Parser, metavar="tokenizer or tokens")
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
    options = vars(parser.parse_args(arguments))
    from ssl_suite.data.text.prepare import prepare_tokenizer, prepare_tokens

    make = prepare_tokenizer if options.pop("what") == "tokenizer" else prepare_tokens
    print("\n".join(make(**options)))
