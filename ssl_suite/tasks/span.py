"""Span: the first and last token of an answer inside its input, as BERT does SQuAD (arXiv:1810.04805, section 4.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection
from torchmetrics.utilities import dim_zero_cat

from ssl_suite.core.batch import IGNORE
from ssl_suite.core.check import within
from ssl_suite.core.data import DataModule
from ssl_suite.core.errors import UserError
from ssl_suite.core.outcomes import Example
from ssl_suite.core.task import Task
from ssl_suite.tasks.answer_scores import Scoring, best_threshold, score
from ssl_suite.tasks.head import check_head, head
from ssl_suite.tasks.spans import Asked, Asking, SpanTarget

LOWEST = -1e9
"""Score where no start fits any end."""


@dataclass(frozen=True)
class Answer:
    """What the windows of one question say together.

    Attributes:
        question: its number in the split.
        text: of the best span over all windows.
        odds: score of "no answer", the least over all windows, less the score of that span.
    """

    question: int
    text: str
    odds: float


class Span(Task):
    """Two scores a position, of the answer's first and last token; position 0 stands for "no answer".

    The best span is searched jointly among the `n_best` starts and ends, inside the context alone, over all windows of
    a question. Where the training split has questions without an answer (SQuAD 2.0), none is given if the score of "no
    answer" exceeds the best span's by more than a threshold: the given one, else the one with the best F1 on the
    validation split, found anew at each validation and kept in the checkpoint for `test` and `predict`.

    Args:
        scoring: `squad`; `cmrc` for Chinese: characters, no articles; or `mlqa` for both English and Chinese.
        max_tokens: longest answer.
        n_best: starts and ends considered in each window.
        null_threshold: of "no answer"; None for the best on the validation split.
        hidden: width of a hidden layer; 0 for a linear head.
        dropout: before the last layer.
    """

    sequence = True
    target = "span"
    main = "f1"
    threshold: Tensor

    def __init__(
        self,
        scoring: Scoring = "squad",
        max_tokens: int = 30,
        n_best: int = 20,
        null_threshold: float | None = None,
        hidden: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        within("task.max_tokens", max_tokens, low=1, whole=True)
        within("task.n_best", n_best, low=1, whole=True)
        if null_threshold is not None:
            within("task.null_threshold", null_threshold)
        self.scoring, self.max_tokens, self.n_best = scoring, max_tokens, n_best
        self.null_threshold = null_threshold
        check_head(hidden, dropout)
        self.hidden, self.dropout = hidden, dropout
        self.register_buffer("threshold", torch.zeros(()))

    def build(self, dim: int, labels: list[str]) -> None:
        self.labels = labels
        self.head = head(dim, self.hidden, 2, self.dropout)

    @property
    def may_be_silent(self) -> bool:
        """Whether some questions have no answer."""
        return len(self.labels) > 1

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        return self.head(features)  # (B, T, 2)

    def loss(self, output: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        """Mean of the cross-entropies of start and end, over the context and "no answer"."""
        span = SpanTarget(*target.unbind(1))
        allowed = inside(output, span)
        allowed[:, 0] = True
        logits = output.float().masked_fill(~allowed[..., None], -torch.inf)
        start, end = (F.cross_entropy(logits[..., i], span[i], ignore_index=IGNORE, reduction="sum") for i in range(2))
        return (start + end) / (2 * (span.start != IGNORE).sum().clamp(min=1))

    def search(self, output: Tensor, span: SpanTarget) -> tuple[Tensor, Tensor]:
        """The best span of each window.

        Returns:
            (B, 3) window, start and end; (B, 2) scores of that span and of "no answer".
        """
        scores = output.float().masked_fill(~inside(output, span)[..., None], LOWEST)
        best = scores.topk(min(self.n_best, output.shape[1]), 1)  # (B, K, 2)
        starts, ends = best.indices.unbind(-1)
        joint = best.values[:, :, None, 0] + best.values[:, None, :, 1]  # (B, K, K)
        length = ends[:, None] - starts[:, :, None] + 1
        value, place = joint.masked_fill((length < 1) | (length > self.max_tokens), LOWEST).flatten(1).max(1)
        row, k = torch.arange(len(output), device=output.device), starts.shape[1]
        start, end = starts[row, place // k], ends[row, place % k]
        return torch.stack([span.window, start, end], 1), torch.stack([value, output[:, 0].float().sum(-1)], 1)

    def metrics(self) -> MetricCollection:
        return MetricCollection({"found": Found()})

    def update(self, metrics: MetricCollection, output: Tensor, mask: Tensor, target: Tensor) -> None:
        metrics["found"].update(*self.search(output, SpanTarget(*target.unbind(1))))

    def compute(self, metrics: MetricCollection, data: DataModule, split: str) -> Mapping[str, Tensor]:
        found, asked = metrics.compute(), questions(data, split)
        if asked.answers is None:
            raise UserError(f"{data.source_name}: the questions of split {split!r} have no answers; use `predict`.")
        answers = join(asked, found["places"], found["scores"])
        figures = self.figures(answers, [asked.answers[a.question] for a in answers], split == "validation")
        return {name: torch.tensor(value, device=self.threshold.device) for name, value in figures.items()}

    def figures(self, answers: list[Answer], golds: list[list[str]], tune: bool) -> dict[str, float]:
        """Exact match and F1; where questions may have no answer, of both kinds apart and at the best threshold."""
        figures = {}
        if tune and self.may_be_silent:
            odds = [a.odds for a in answers]
            answered = [score(a.text, g, self.scoring) for a, g in zip(answers, golds, strict=True)]
            silent = [score("", g, self.scoring) for g in golds]
            for i, name in enumerate(("exact_match", "f1")):
                best, threshold = best_threshold(odds, [s[i] for s in answered], [s[i] for s in silent])
                figures[f"best_{name}"] = best
            figures["best_f1_threshold"] = threshold
            self.threshold.fill_(threshold)
        given = [score(self.said(a), g, self.scoring) for a, g in zip(answers, golds, strict=True)]
        figures |= means("", given)
        if self.may_be_silent:
            figures |= means("has_answer_", [s for s, g in zip(given, golds, strict=True) if g])
            figures |= means("no_answer_", [s for s, g in zip(given, golds, strict=True) if not g])
        return figures

    def said(self, answer: Answer) -> str:
        """The text that is given, "" for no answer."""
        threshold = float(self.threshold) if self.null_threshold is None else self.null_threshold
        return "" if self.may_be_silent and answer.odds > threshold else answer.text

    def decode(self, output: Tensor, mask: Tensor) -> list[Any]:
        """The best (start, end) anywhere in each input."""
        nowhere, window = torch.zeros_like(mask[:, 0], dtype=torch.long), torch.arange(len(mask), device=mask.device)
        places, _ = self.search(output, SpanTarget(nowhere, nowhere, nowhere, mask.sum(1) - 1, window))
        return [(start, end) for _, start, end in places.tolist()]

    def predict(self, output: Tensor, mask: Tensor, target: Tensor | None) -> list[Any]:
        """Place and scores of the best span of each window; `files` joins them."""
        assert target is not None
        places, scores = self.search(output, SpanTarget(*target.unbind(1)))
        return list(zip(places.tolist(), scores.tolist(), strict=True))

    def outcomes(self, output: Tensor, mask: Tensor, target: Tensor) -> list[Any]:
        return self.predict(output, mask, target)

    def examples(self, rows: list[tuple[int, Any]], data: DataModule, split: str) -> list[Example]:
        """F1 of each question."""
        asked = questions(data, split)
        if asked.answers is None or not rows:
            return []
        places, scores = (torch.tensor([row[i] for _, row in rows]) for i in range(2))
        given = [(a.question, self.said(a)) for a in join(asked, places, scores)]
        return [(asked.ids[q], score(text, asked.answers[q], self.scoring)[1], 1.0) for q, text in given]

    def files(self, rows: list[tuple[int, Any]], data: DataModule, split: str) -> dict[str, Any]:
        """`predictions.json` and, for SQuAD 2.0, `null_odds.json`, as the official scripts read them."""
        asked = questions(data, split)
        places, scores = (torch.tensor([row[i] for _, row in rows]) for i in range(2))
        answers = join(asked, places, scores)
        files: dict[str, Any] = {"predictions.json": {asked.ids[a.question]: self.said(a) for a in answers}}
        if self.may_be_silent:
            files["null_odds.json"] = {asked.ids[a.question]: a.odds for a in answers}
        return files


class Found(Metric):
    """Keeps the best span of each window until the windows of all ranks are there."""

    places: list[Tensor]
    scores: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("places", [], dist_reduce_fx="cat")
        self.add_state("scores", [], dist_reduce_fx="cat")

    def update(self, places: Tensor, scores: Tensor) -> None:
        self.places.append(places)
        self.scores.append(scores)

    def compute(self) -> dict[str, Tensor]:
        return {"places": dim_zero_cat(self.places), "scores": dim_zero_cat(self.scores)}


def questions(data: DataModule, split: str) -> Asked:
    if not isinstance(data, Asking):
        raise UserError(f"Span answers questions, and {type(data).__name__} asks none; use --data Questions.")
    return data.asked(split)


def inside(output: Tensor, span: SpanTarget) -> Tensor:
    """(B, T): positions where an answer may lie."""
    position = torch.arange(output.shape[1], device=output.device)
    return (position >= span.first[:, None]) & (position <= span.last[:, None])


def join(asked: Asked, places: Tensor, scores: Tensor) -> list[Answer]:
    """One answer a question: the best span over its windows, against the least score of "no answer" among them."""
    best: dict[int, tuple[float, list[int]]] = {}
    null: dict[int, float] = {}
    for place, (value, none) in zip(places.tolist(), scores.tolist(), strict=True):
        number = asked.question[place[0]]
        if number not in best or (value, -place[0]) > (best[number][0], -best[number][1][0]):  # ties: first window
            best[number] = value, place
        null[number] = min(none, null.get(number, none))
    return [
        Answer(number, asked.read(*place) if value > LOWEST else "", null[number] - value)
        for number, (value, place) in sorted(best.items())
    ]


def means(prefix: str, scores: list[tuple[float, float]]) -> dict[str, float]:
    """Mean exact match and F1; nothing where there is nothing to score."""
    if not scores:
        return {}
    return {f"{prefix}{name}": sum(s[i] for s in scores) / len(scores) for i, name in enumerate(("exact_match", "f1"))}
