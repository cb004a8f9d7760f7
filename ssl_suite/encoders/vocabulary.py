"""Vocabularies learned from text: the same texts give the same one, in any process and for any number of threads.

The `tokenizers` library counts words in hash maps whose order differs from process to process, and lets that order
decide: about ids of what continues a word (WordPiece), between characters as frequent as each other, and, through sums
in another order, about the last digits of scores (Unigram).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from tokenizers import Tokenizer, models, trainers

LEARNING = 2
"""Version of what this file makes; kept tokenizers of another one are trained again."""
DIGITS = 6
"""Of scores: what a sum in another order leaves alone."""
CONTINUES = "##"
"""WordPiece's mark of what continues a word."""


class Again(Iterable[str]):
    """Texts that are read anew each time."""

    def __init__(self, read: Callable[[], Iterator[str]]) -> None:
        self.read = read

    def __iter__(self) -> Iterator[str]:
        return self.read()


def learn_wordpiece(tokenizer: Tokenizer, texts: Iterable[str], size: int, special: Sequence[str]) -> models.WordPiece:
    """Merges the most frequent pairs (Wu et al. 2016, arXiv:1609.08144, section 4.1), ties by id.

    A first reading finds the characters that continue words, so that they are given to the second in their order.

    Args:
        tokenizer: with the normalizer and pre-tokenizer to use.
        texts: the corpus.
        size: most entries, `special` included.
        special: first entries.
    """
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.normalizer, learner.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    learner.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=0, show_progress=False))
    inside = sorted(token for token in learner.get_vocab() if len(token) == 3 and token.startswith(CONTINUES))
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=[*special, *inside], show_progress=False)
    learner.train_from_iterator(texts, trainer)
    return models.WordPiece(learner.get_vocab(), unk_token="[UNK]")


def learn_characters(tokenizer: Tokenizer, texts: Iterable[str], size: int, special: Sequence[str]) -> models.BPE:
    """The most frequent characters, ties by code, as a vocabulary with nothing to merge; see `learn_wordpiece`."""
    normalizer, count = tokenizer.normalizer, Counter[str]()
    for text in texts:
        count.update(normalizer.normalize_str(text) if normalizer else text)
    kept = sorted(count, key=lambda c: (-count[c], c))[: max(1, size - len(special))]
    vocabulary = {token: i for i, token in enumerate([*special, *sorted(kept)])}
    return models.BPE(vocabulary, [], unk_token="[UNK]")


def learn_unigram(tokenizer: Tokenizer, texts: Iterable[str], size: int, special: Sequence[str]) -> models.Unigram:
    """Pieces and their log-probabilities (Kudo 2018, arXiv:1804.10959, section 3.2); see `learn_wordpiece`."""
    learner = Tokenizer(models.Unigram())
    learner.normalizer, learner.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    trainer = trainers.UnigramTrainer(
        vocab_size=size, special_tokens=list(special), unk_token="[UNK]", show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    pieces = [(piece, round(score, DIGITS)) for piece, score in json.loads(learner.to_str())["model"]["vocab"]]
    learned = sorted(pieces[len(special) :], key=lambda entry: (-entry[1], entry[0]))
    return models.Unigram([*pieces[: len(special)], *learned], special.index("[UNK]"), False)
