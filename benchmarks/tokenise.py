"""Tokenising a corpus for pretraining: speed, second run and disk, against `datasets.map` as in `run_mlm.py`."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import side_by_side
from side_by_side import Case, arguments, compare
from text import LENGTH, VOCAB

from ssl_suite.core.data import Request
from ssl_suite.data.common.source import open_source
from ssl_suite.data.text.text import Text
from ssl_suite.encoders.tokenizer import SPECIAL, train_tokenizer

PEER = "datasets.map, as run_mlm.py"


class Corpus:
    """The sample corpus, `copies` times over, in a parquet file, and a tokenizer trained on it."""

    def __init__(self, copies: int) -> None:
        from datasets import Dataset

        self.folder = Path(tempfile.mkdtemp())
        texts = open_source("samples:corpus")["train"].column("text")[: None if copies else 50]
        self.megabytes = sum(len(text.encode()) for text in texts) * max(1, copies) / 1e6
        self.parquet, self.vocabulary = str(self.folder / "train.parquet"), str(self.folder / "tokenizer.json")
        Dataset.from_dict({"text": texts * max(1, copies)}).to_parquet(self.parquet)
        train_tokenizer(texts, "wordpiece", VOCAB).save(self.vocabulary)

    def ours(self, cached: Path) -> int:
        """Opens the corpus as a run does; returns how many tokens there are."""
        os.environ["SSL_SUITE_CACHE"] = str(cached)
        data = Text(self.parquet, tokenizer=self.vocabulary, max_length=LENGTH)
        data.holds_out = False
        data.serve(Request())
        return len(data.token_file("train").tokens)

    def peer(self, cached: Path) -> int:
        """The same in the Hugging Face example: encode in batches of 1000, then join and cut in batches of 1000."""
        from datasets import Dataset
        from transformers import PreTrainedTokenizerFast

        names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=self.vocabulary, **names)

        def encode(rows: dict[str, list[str]]) -> Any:
            return tokenizer(rows["text"], return_special_tokens_mask=True)

        def group(rows: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
            joined = {name: [i for row in values for i in row] for name, values in rows.items()}
            total = len(joined["input_ids"]) // LENGTH * LENGTH
            return {name: [v[i : i + LENGTH] for i in range(0, total, LENGTH)] for name, v in joined.items()}

        raw = Dataset.from_parquet(self.parquet, cache_dir=str(cached))
        encoded = raw.map(encode, batched=True, remove_columns=raw.column_names)
        return len(encoded.map(group, batched=True)) * LENGTH


@cache
def corpus(tiny: bool) -> Corpus:
    return Corpus(0 if tiny else 1)


def timed(run: Callable[[Path], int], megabytes: float, again: bool) -> Callable[[int], float]:
    """MB of text a second, with an empty cache or with the one the run before has left."""

    def side(steps: int) -> float:
        cached = Path(tempfile.mkdtemp())
        if again:
            run(cached)
        begun = side_by_side.timer()
        run(cached)
        seconds = side_by_side.timer() - begun
        shutil.rmtree(cached)
        return megabytes / seconds

    return side


def first_run(args: argparse.Namespace) -> Case:
    c = corpus(args.tiny)
    sides = {"ours": timed(c.ours, c.megabytes, False), "peer": timed(c.peer, c.megabytes, False)}
    return Case("first run", "MB of text", PEER, sides)


def second_run(args: argparse.Namespace) -> Case:
    c = corpus(args.tiny)
    sides = {"ours": timed(c.ours, c.megabytes, True), "peer": timed(c.peer, c.megabytes, True)}
    return Case("second run", "MB of text", PEER, sides)


def disk(args: argparse.Namespace) -> Case:
    """Not a speed: how many tokens a kB of cache holds (500 would be two bytes each)."""

    def tokens_per_kb(run: Callable[[Path], int]) -> Callable[[int], float]:
        def side(steps: int) -> float:
            cached = Path(tempfile.mkdtemp())
            tokens = run(cached)
            size = sum(path.stat().st_size for path in cached.rglob("*") if path.is_file())
            shutil.rmtree(cached)
            return tokens / size * 1000

        return side

    c = corpus(args.tiny)
    return Case("disk", "tokens a kB", PEER, {"ours": tokens_per_kb(c.ours), "peer": tokens_per_kb(c.peer)})


if __name__ == "__main__":
    compare([first_run, second_run, disk], arguments(__doc__ or "", rounds=3, steps=1).parse_args())
