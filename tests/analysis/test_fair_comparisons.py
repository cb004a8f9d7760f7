"""Analyses where a comparison could be unfair: means of what is judged, weights that changed, a single label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_text_encoder
from tokenizers import Tokenizer
from tokenizers.models import BPE

from ssl_suite.analysis.embryology import probe_layers
from ssl_suite.analysis.landscape import encoder_part
from ssl_suite.analysis.language_shift import means_of_others, nearest_mean
from ssl_suite.analysis.runs import made
from ssl_suite.analysis.words import Reader, Sentences
from ssl_suite.core.errors import UserError
from ssl_suite.core.folder import save_encoder
from ssl_suite.data.text.text import Text
from ssl_suite.encoders.tokenizer import train_tokenizer


def test_what_does_not_differ_is_told_apart_by_chance_alone() -> None:
    torch.manual_seed(0)
    shares = []
    for _ in range(20):
        one, other = torch.randn(20, 256), torch.randn(20, 256)
        assert nearest_mean(one, other, [one.mean(0), other.mean(0)]) > 0.95  # each is part of its own mean
        shares.append(nearest_mean(one, other, means_of_others([one, other])))
    assert np.mean(shares) == pytest.approx(0.5, abs=0.05)
    right = 0
    for own, side in enumerate((one, other)):
        for i, row in enumerate(side):
            means = [torch.cat([x[:i], x[i + 1 :]]).mean(0) for x in (one, other)]
            right += bool((row - means[own]).norm() < (row - means[1 - own]).norm())
    assert shares[-1] == pytest.approx(right / 40)


class Fake:
    """A command line that only counts its runs, of an encoder folder and a table."""

    runs = 0
    broken = False

    def __init__(self, folder: Path) -> None:
        self.encoder, self.table, self.tokenizer = (folder / name for name in ("encoder", "train.csv", "t.json"))

    def dumped(self) -> dict[str, Any]:
        return {"model": {"class_path": "Finetune", "init_args": {"encoder": str(self.encoder)}}}

    def resolve(self, arguments: list[str]) -> Fake:
        return self

    def make(self, part: str) -> Text:
        return Text(source=str(self.table), tokenizer=str(self.tokenizer) if self.tokenizer.exists() else "wordpiece")

    def run(self, arguments: list[str]) -> None:
        if self.broken:
            raise UserError("The disk is full.")
        self.runs += 1


def test_a_run_is_made_again_from_other_weights_data_and_tokenizers(tmp_path: Path) -> None:
    fake: Any = Fake(tmp_path)
    torch.manual_seed(0)
    encoder, counts = tiny_text_encoder(), []
    for text in ("one", "other"):
        fake.table.write_text(f"text,label\n{text},1\n{text},0\n")
        for scale in (1.0, 1.0, 2.0):
            encoder.tokens.weight.data.fill_(scale)
            save_encoder(encoder, fake.encoder)
            made(["fit"], tmp_path / "run", 0, fake)
            counts.append(fake.runs)
    assert counts == [1, 1, 2, 3, 3, 4]
    for letters in ("ab", "ab", "abc"):
        Tokenizer(BPE({letter: i for i, letter in enumerate(letters)}, [])).save(str(fake.tokenizer))
        made(["fit"], tmp_path / "run", 0, fake)
        counts.append(fake.runs)
    assert counts[-3:] == [5, 5, 6]


def test_a_run_that_fails_is_not_taken_for_the_one_before(tmp_path: Path) -> None:
    fake: Any = Fake(tmp_path)
    fake.table.write_text("text\na\n")
    encoders = [tiny_text_encoder(), tiny_text_encoder()]
    save_encoder(encoders[0], fake.encoder)
    made(["fit"], tmp_path / "run", 0, fake)
    save_encoder(encoders[1], fake.encoder)
    fake.broken = True
    with pytest.raises(UserError):
        made(["fit"], tmp_path / "run", 0, fake)
    fake.broken = False
    save_encoder(encoders[0], fake.encoder)
    made(["fit"], tmp_path / "run", 0, fake)
    assert fake.runs == 2


def test_buffers_are_no_direction() -> None:
    state = {"encoder.conv.weight": torch.ones(2), "encoder.bn.running_mean": torch.ones(2), "head.bias": torch.ones(2)}
    assert encoder_part(state, {"encoder.conv.weight": torch.ones(2)}).keys() == {"encoder.conv.weight"}


@pytest.fixture
def reader() -> Reader:
    encoder = tiny_text_encoder(dropout=0.0)
    encoder.tokenizer = train_tokenizer(["the cat sat on the mat"], "wordpiece", 30)
    return Reader(encoder)


def test_one_label_is_no_probe(reader: Reader) -> None:
    some = Sentences([["the", "cat"], ["on", "the"]], ["news", "news"])
    with pytest.raises(UserError, match="all that it learns from are 'news'"):
        next(probe_layers(reader, some, some))
