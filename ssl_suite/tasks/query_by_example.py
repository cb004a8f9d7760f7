"""Query by example: in which utterances is what this recording says? Asked of frozen states; nothing is trained."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_suite.core.check import one_of, within
from ssl_suite.core.encoder import Encoder
from ssl_suite.core.errors import UserError
from ssl_suite.core.moments import Moments
from ssl_suite.core.outcomes import Example
from ssl_suite.core.reading import a_file
from ssl_suite.tasks.dtw import Pieces, subsequence_dtw
from ssl_suite.tasks.layerwise import Judged, Layers, Layerwise, Protocol
from ssl_suite.tasks.term_weighted import BETA, best_threshold, term_values

STATES = 1 << 10, 1 << 12
"""Of queries and of utterances, that are compared at once: a large product of matrices, and few MB."""
SHORT = 5
"""States that a query has at least (SUPERB); a shorter one is found nowhere."""
LETTERS = 3
"""Of a query whose words are looked up in transcripts: a letter's name is no word of one letter."""


@dataclass(frozen=True)
class Recording:
    """An item.

    Attributes:
        name: its id.
        said: what the data say of it, by slots.
        states: (T, D) of each layer.
    """

    name: str
    said: Mapping[str, Any]
    states: list[Tensor]


@dataclass(frozen=True)
class Search:
    """Queries, each of which is in an utterance and not in all; `found` (Q, U) says in which."""

    queries: list[Recording]
    utterances: list[Recording]
    found: Tensor


class QueryByExample(Layerwise):
    """Spoken term detection by example, as SUPERB's QbE does it; nothing is trained.

    States are normalised over all recordings; a query is looked for anywhere in each utterance by `subsequence_dtw` on
    exp(cosine distance) − 1, scaled to [0, 1] for each state of the query; its scores are normalised over utterances.
    `atwv` is the mean term-weighted value (`term_weighted`) at the threshold that was best on the validation split, and
    the main figure; `mtwv` is at the best threshold of the split itself, which SUPERB reports, and the main figure of
    `compat`. 1 is perfect, and 0 is to find nothing.

    Which query is in which utterance is told

    - by transcripts (`told: transcript`): the training split is searched for those recordings of the split that have a
      few words, which are in a transcript of the training split too;
    - by a column `occurs`, lists of ids, beside a column `role`, `query` or `utterance`, as `quesst14` has them;
    - by a table of `query,utterance` (`pairs`): ids of the split, and of the training split where there is one.

    Args:
        encoder: an encoder, or where to find it.
        told: `transcript` or `occurs`.
        text: the column of transcripts.
        by: columns in which query and utterance agree: the language, where words are spelled alike.
        most_words: of a query that is told by its transcript.
        pairs: a csv file of the test split, or one for each: `{validation: FILE, test: FILE}`.
        threshold: of `atwv`; None: chosen on the validation split.
        beta: weight of false alarms.
        layers: which states: 0 is what enters the first block, -1 the output.
        protocol: `strict`: layer and threshold are chosen on the validation split; `compat`: on the one that is scored.
    """

    mode = "qbe"

    def __init__(
        self,
        encoder: Encoder | str,
        told: Literal["transcript", "occurs"] = "transcript",
        text: str = "text",
        by: Sequence[str] = (),
        most_words: int = 3,
        pairs: dict[str, str] | str | None = None,
        threshold: float | None = None,
        beta: float = BETA,
        layers: Layers = "all",
        protocol: Protocol = "strict",
    ) -> None:
        super().__init__(encoder, layers, protocol)
        one_of("model.told", told, ("transcript", "occurs"))
        within("model.most_words", most_words, low=1, whole=True)
        within("model.beta", beta, above=0)
        if threshold is not None:
            within("model.threshold", threshold)
        self.told, self.text, self.by, self.most_words = told, text, tuple(by), most_words
        self.threshold, self.beta, self.tunes = threshold, beta, threshold is None
        files = {"test": pairs} if isinstance(pairs, str) else pairs or {}
        self.pairs = {split: read_pairs(file) for split, file in files.items()}

    @property
    def main(self) -> str:
        return "atwv" if self.strict else "mtwv"

    @property
    def target(self) -> dict[str, str] | None:
        if self.pairs:
            return None
        if self.told == "occurs":
            return {"role": "name", "occurs": "names"}
        return dict.fromkeys(self.by, "name") | {self.text: "transcript"}

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self._ids = {split: self.data.ids(split) for split in self.data.splits()}

    def item(self, split: str, batch: Any, row: int, states: list[Tensor]) -> Recording:
        said = self.labels(batch, row) if self.target else {}
        return Recording(self._ids[split][int(batch.index[row])], said, states)

    def search(self, split: str) -> Search:
        """What a split asks."""
        items = self.items(split)
        if self.pairs:
            if split not in self.pairs:
                raise UserError(f"model.pairs names no file of the {split} split; give one: {{{split}: FILE}}.")
            occurs = self.pairs[split]
            queries = [item for item in items if item.name in occurs or PurePath(item.name).stem in occurs]
            others = self.items("train") if self.data.has("train") else [item for item in items if item not in queries]
            occurs = {q.name: occurs.get(q.name) or occurs[PurePath(q.name).stem] for q in queries}
            found = named(queries, others, occurs)
        elif self.told == "occurs":
            queries = [item for item in items if item.said["role"] == "query"]
            others = [item for item in items if item.said["role"] == "utterance"]
            found = named(queries, others, {item.name: item.said["occurs"] for item in queries})
        else:
            queries = [item for item in items if self._is_query(item)]
            others = self.items("train")
            found = spoken(queries, others, self.text, self.by)
        kept = (found.any(1) & ~found.all(1)).nonzero()[:, 0].tolist() if found.numel() else []
        if not kept:
            raise UserError(
                f"{self.data.source_name}: no query of the {split} split is in an utterance and not in all."
            )
        return Search([queries[n] for n in kept], others, found[kept])

    def _is_query(self, item: Recording) -> bool:
        text = item.said[self.text]
        return len(text.split()) <= self.most_words and len(text) >= LETTERS

    def judge(self, split: str, number: int, tuned: Mapping[str, float] | None) -> Judged:
        search = self.search(split)
        queries, utterances = ([r.states[number] for r in some] for some in (search.queries, search.utterances))
        scores = search_scores(queries, utterances, self.device).cpu()
        mtwv, best = best_threshold(scores, search.found, self.beta)
        threshold = self.threshold if self.threshold is not None else tuned["threshold"] if tuned else best
        values = term_values(scores, search.found, threshold if self.strict else best, self.beta)
        figures = {"mtwv": mtwv} | ({"atwv": float(values.mean()), "threshold": threshold} if self.strict else {})
        examples: list[Example] = [
            (q.name, value, 1.0) for q, value in zip(search.queries, values.tolist(), strict=True)
        ]
        return Judged(figures, examples)


def read_pairs(path: str) -> dict[str, set[str]]:
    """A csv file with the columns `query` and `utterance`, a row for each utterance that a query is in.

    Returns:
        Query → its utterances.

    Raises:
        UserError: it has no such columns, or a row leaves one empty.
    """
    found: dict[str, set[str]] = {}
    with a_file(Path(path)).open(encoding="utf-8", newline="") as file:
        for line, row in enumerate(csv.DictReader(file), 2):
            query, utterance = row.get("query"), row.get("utterance")
            if not query or not utterance:
                raise UserError(f"{path}, line {line} lacks a query or an utterance; its columns are query,utterance.")
            found.setdefault(query, set()).add(utterance)
    if not found:
        raise UserError(f"{path} names no query; its columns are query,utterance.")
    return found


def named(queries: list[Recording], utterances: list[Recording], occurs: Mapping[str, Collection[str]]) -> Tensor:
    """(Q, U) whether an utterance is among those that a query is in, by its id or that without folder and ending.

    Raises:
        UserError: a query is in an utterance that is not there.
    """
    names = [{item.name, PurePath(item.name).stem} for item in utterances]
    there = {name for both in names for name in both}
    for query in queries:
        if missing := sorted(set(occurs[query.name]) - there):
            raise UserError(f"The query {query.name!r} is to be in {missing[0]!r}, which is no utterance of the data.")
    return torch.tensor([[bool(both & set(occurs[query.name])) for both in names] for query in queries])


def spoken(queries: list[Recording], utterances: list[Recording], text: str, by: Sequence[str]) -> Tensor:
    """(Q, U) whether the words of a query stand in the transcript of an utterance that has the same in columns `by`."""

    def is_in(query: Mapping[str, Any], utterance: Mapping[str, Any]) -> bool:
        return f" {query[text]} " in f" {utterance[text]} " and all(query[name] == utterance[name] for name in by)

    return torch.tensor([[is_in(query.said, other.said) for other in utterances] for query in queries])


def search_scores(queries: list[Tensor], utterances: list[Tensor], device: torch.device) -> Tensor:
    """(Q, U) how well each query matches somewhere in each utterance, normalised over the utterances of each query.

    Args:
        queries: Q tensors (T, D).
        utterances: U tensors (T, D).
        device: where it is computed.
    """
    moments = Moments.join([Moments.of(states[:, None]) for states in (*queries, *utterances)])
    mean, deviation = (values.float().to(device) for values in (moments.mean, moments.deviation.clamp(min=1e-9)))

    def directions(states: Tensor) -> Tensor:
        return F.normalize((states.to(device) - mean).div_(deviation), dim=-1)

    pieces = Pieces.of(utterances, directions).to(device)
    order = pieces.lengths.argsort().tolist()
    lengths = [len(utterances[n]) for n in order]
    scores = torch.zeros(len(queries), len(utterances), device=device)
    asked = [n for n, query in enumerate(queries) if len(query) >= SHORT]
    for some in together(asked, [len(queries[n]) for n in asked], STATES[0]):
        away = -directions(torch.cat([queries[n] for n in some]))  # (ΣT, D)
        for others in together(order, lengths, STATES[1]):
            states = pieces.padded(torch.tensor(others, device=device))  # (N, T, D)
            cost = scaled((away @ states.flatten(0, 1).T).exp_().view(-1, *states.shape[:2]))
            for n, part in zip(some, cost.split([len(queries[n]) for n in some]), strict=True):
                scores[n, others] = -subsequence_dtw(part)
    spread, middle = torch.std_mean(scores, dim=1, correction=0, keepdim=True)
    return (scores - middle) / spread.clamp(min=1e-9)


def scaled(cost: Tensor) -> Tensor:
    """(Q, N, T) with the values of each utterance, for each query state, from 0 to 1; in its place.

    So exp(1 − cosine) − 1 need be known but for a factor and a summand: exp(−cosine).
    """
    low, high = cost.amin(-1, keepdim=True), cost.amax(-1, keepdim=True)  # `aminmax` is slow
    return cost.sub_(low).div_((high - low).clamp(min=1e-9))


def together(numbers: list[int], lengths: list[int], most: int) -> Iterator[list[int]]:
    """Parts of some numbered sequences, in their order: one, or as many as have `most` states, all as long as the last.

    Args:
        numbers: of the sequences.
        lengths: of each.
        most: states of a part.
    """
    part: list[int] = []
    for number, length in zip(numbers, lengths, strict=True):
        if part and (len(part) + 1) * length > most:
            yield part
            part = []
        part.append(number)
    if part:
        yield part
