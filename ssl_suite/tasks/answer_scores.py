"""How answers are scored: exact match and F1 as the official scripts of SQuAD 1.1 and 2.0, CMRC 2018, and MLQA.

Pure functions on text; figures between 0 and 1.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import pairwise
from typing import Literal

Scoring = Literal["squad", "cmrc", "mlqa"]

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = set(string.punctuation)
CHINESE_PUNCTUATION = set("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
"""Of CMRC's script, less its two-character ellipsis, which no single character ever equals."""


def normalize(text: str) -> str:
    """SQuAD's: lower case, no punctuation, no articles, single spaces."""
    kept = "".join(c for c in text.lower() if c not in PUNCTUATION)
    return " ".join(ARTICLES.sub(" ", kept).split())


def normalize_chinese(text: str) -> str:
    """CMRC's: lower case, no outer spaces, none of its punctuation."""
    return "".join(c for c in text.lower().strip() if c not in CHINESE_PUNCTUATION)


def normalize_mlqa(text: str) -> str:
    """MLQA's for English and Chinese at once: no punctuation of any script, no articles, each Chinese character apart.

    Its script takes the language as an option and drops English articles in English alone.
    """
    kept = "".join(c for c in text.lower() if c not in PUNCTUATION and not unicodedata.category(c).startswith("P"))
    return " ".join(re.sub(r"([\u4e00-\u9fa5])", r" \1 ", ARTICLES.sub(" ", kept)).split())


NORMALIZE = {"squad": normalize, "cmrc": normalize_chinese, "mlqa": normalize_mlqa}


def segment(text: str) -> list[str]:
    """CMRC's mixed segmentation of normalised text: each Chinese character alone, the rest in words.

    The official script cuts the rest with NLTK; here words and marks are told apart by their characters.
    """
    return re.findall(r"[\u4e00-\u9fa5]|[^\W\u4e00-\u9fa5]+(?:[.,]\d+)*|[^\w\s]", normalize_chinese(text))


def exact(prediction: str, gold: str, scoring: Scoring = "squad") -> float:
    same = NORMALIZE[scoring]
    return float(same(prediction) == same(gold))


def f1(prediction: str, gold: str, scoring: Scoring = "squad") -> float:
    """Of words in common (SQuAD), or of the longest run of characters in common (CMRC); nothing equals only nothing."""
    cut = segment if scoring == "cmrc" else (lambda text: NORMALIZE[scoring](text).split())
    said, right = cut(prediction), cut(gold)
    if not said or not right:
        return float(said == right)
    if scoring == "cmrc":
        common = SequenceMatcher(None, said, right, autojunk=False).find_longest_match().size
    else:
        common = sum((Counter(said) & Counter(right)).values())
    return 2 * common / (len(said) + len(right))


def score(prediction: str, golds: Sequence[str], scoring: Scoring = "squad") -> tuple[float, float]:
    """Exact match and F1, each the best over the right answers; none means that "" is right (SQuAD 2.0)."""
    right = golds or [""]
    return max(exact(prediction, g, scoring) for g in right), max(f1(prediction, g, scoring) for g in right)


def best_threshold(odds: Sequence[float], answered: Sequence[float], silent: Sequence[float]) -> tuple[float, float]:
    """The threshold on the odds of "no answer" with the best mean score, as SQuAD 2.0's script finds it.

    Args:
        odds: of each question: score of no answer less score of the best answer.
        answered: score of each question if its answer is given, which it is where odds ≤ threshold.
        silent: score of each question if none is given.

    Returns:
        the mean score at the best threshold, and that threshold: halfway between two odds, so that rounding does not
        decide about the question it was found at.
    """
    order = sorted(range(len(odds)), key=odds.__getitem__)
    total = sum(silent)
    best, threshold = total, odds[order[0]] - 1
    for i, after in pairwise([*order, -1]):
        total += answered[i] - silent[i]
        if total > best and (after < 0 or odds[after] > odds[i]):
            best, threshold = total, odds[i] + 1 if after < 0 else (odds[i] + odds[after]) / 2
    return best / len(odds), threshold
