"""What was said against what should have been: exact match, BLEU and ROUGE."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from ssl_suite.core.errors import UserError


@dataclass(frozen=True)
class Comparison:
    """Two texts.

    Attributes:
        said: by a model.
        true: what it should have said.
    """

    said: str
    true: str


def compared(metric: str, rows: Sequence[Comparison]) -> float:
    """One figure of several rows: exact_match, bleu, rouge1, rouge2 or rougeL."""
    if metric == "bleu":
        return bleu(rows)
    if metric == "exact_match":
        return fmean(map(exact, rows))
    return fmean(rouge_l(row) if metric == "rougeL" else rouge_n(row, int(metric[-1])) for row in rows)


def exact(row: Comparison) -> float:
    """1 if both texts are the same but for spaces, which tokenizers keep each in its way; else 0."""
    return float("".join(row.said.split()) == "".join(row.true.split()))


def bleu(rows: Sequence[Comparison]) -> float:
    """BLEU of 0 to 100 over all rows, by sacrebleu with its own settings (Post 2018, arXiv:1804.08771).

    Raises:
        UserError: it is not installed.
    """
    try:
        import sacrebleu
    except ImportError:
        raise UserError("BLEU is sacrebleu's; `pip install ssl_suite[bleu]` brings it.") from None
    return float(sacrebleu.corpus_bleu([row.said for row in rows], [[row.true for row in rows]]).score)


def words(text: str) -> list[str]:
    """Runs of letters and digits in small letters, as the authors' ROUGE has them; of other scripts too."""
    return re.findall(r"[^\W_]+", text.lower())


def rouge_n(row: Comparison, n: int) -> float:
    """F1 of the n-grams of two texts (Lin 2004, section 2)."""
    said, true = (
        Counter(zip(*(text[i:] for i in range(n)), strict=False)) for text in map(words, (row.said, row.true))
    )
    return f_score((said & true).total(), said.total(), true.total())


def rouge_l(row: Comparison) -> float:
    """F1 of the longest common subsequence of words of two texts (Lin 2004, section 3)."""
    said, true = words(row.said), words(row.true)
    best = [0] * (len(true) + 1)  # of what was read of `said` and each beginning of `true`
    for word in said:
        before = best.copy()
        for j, other in enumerate(true):
            best[j + 1] = before[j] + 1 if word == other else max(before[j + 1], best[j])
    return f_score(best[-1], len(said), len(true))


def f_score(common: int, said: int, true: int) -> float:
    """2PR / (P + R) of counts; 0 where nothing is common."""
    return 2 * common / (said + true) if common else 0.0
