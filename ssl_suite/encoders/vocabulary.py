"""Vocabularies learned from text: the same texts give the same one, in any process and for any number of threads.

The `tokenizers` library counts words in hash maps whose order differs from process to process, and lets that order
decide: about ids of what continues a word (WordPiece), between characters as frequent as each other, and, through sums
in another order, about the last digits of scores and so about pieces (Unigram, which is therefore learned here).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from tokenizers import Tokenizer, models, trainers

from ssl_suite.encoders.unigram import learn_pieces

LEARNING = 3
"""Version of what this file makes; kept tokenizers of another one are trained again."""
DIGITS = 6
"""Of scores: more than two machines' logarithms may differ in."""
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
    """Pieces and their log-probabilities, see `unigram`; arguments as of `learn_wordpiece`."""
    count: Counter[str] = Counter()
    for text in texts:
        count.update(
            word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
        )
    pieces = [(piece, round(score, DIGITS)) for piece, score in learn_pieces(count, max(1, size - len(special)))]
    return models.Unigram([*((name, 0.0) for name in special), *pieces], special.index("[UNK]"), False)
