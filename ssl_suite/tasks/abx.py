"""ABX: is a sound closer to one of its kind than to one of another kind? Asked of frozen states; nothing is trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import mean
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from ssl_suite.core.check import one_of, within
from ssl_suite.core.encoder import Encoder
from ssl_suite.core.errors import UserError
from ssl_suite.core.outcomes import Example
from ssl_suite.core.random import run_seed
from ssl_suite.tasks.abx_items import Cell, Label, Mode, cells, read_cuts
from ssl_suite.tasks.dtw import DISTANCES, Distance, Pieces, pair_distances
from ssl_suite.tasks.layerwise import Judged, Layers, Layerwise, Protocol

PAIRS = 1_000_000
"""Distances that are looked up at once, about."""


class ABX(Layerwise):
    """Error of ABX discrimination (Schatz et al. 2013), as in libri-light and fastabx; chance is 0.5.

    A and X are of one kind (`of`), B is of another, all in one context (`by`). Within: the three are of one speaker
    (`across`); across: A and B are, and X is of another. The error is the share of triples whose X is closer to B than
    to A, ties counting half; it is averaged over contexts, then over speakers, then over the pairs of kinds. How close
    two pieces are is their `dtw`. `abx_within` and `abx_across` are fractions.

    Pieces are cut from recordings by an official item file (a state belongs to a piece if its middle does); or they are
    the items of the data, whose columns `of`, `by` and `across` name, or `data.target` in their place.

    Args:
        encoder: an encoder, or where to find it.
        of: what is told apart.
        by: what A, B and X share.
        across: the speaker, or whatever else X may differ in; None: within alone.
        modes: which errors; the first is the main one.
        items: an item file (`#file onset offset #phone prev-phone next-phone speaker`) of the test split, or one for
            each: `{validation: FILE, test: FILE}`.
        kind: what the column `of` holds: `name`, labels as they are; `transcript`, words, to be normalised.
        distance: between states: `angular`; `kl`, both ways, of distributions; `different`, 0 or 1, of units.
        most: pieces of a kind, context and speaker that are looked at, drawn by the run's seed; None: all.
        others: speakers X is taken from, for an A and a B, drawn likewise; None: all.
        most_seconds: longer items of a table are left out, that words are not told from sentences by their length.
        splits: those whose pieces are compared with each other when the test split is judged; of unlabelled recordings
            that an encoder has learned from, results are to be read with care.
        layers: which states: 0 is what enters the first block, -1 the output.
        protocol: `strict`: the layer is chosen on the validation split; `compat`: on the one that is scored.
    """

    mode = "abx"
    less_is_better = frozenset({"abx_within", "abx_across"})

    def __init__(
        self,
        encoder: Encoder | str,
        of: str = "phone",
        by: Sequence[str] = ("prev-phone", "next-phone"),
        across: str | None = "speaker",
        modes: Sequence[Mode] = ("within", "across"),
        items: dict[str, str] | str | None = None,
        kind: Literal["name", "transcript"] = "name",
        distance: Literal["angular", "kl", "different"] = "angular",
        most: int | None = 10,
        others: int | None = 5,
        most_seconds: float | None = None,
        splits: Sequence[str] = ("test",),
        layers: Layers = "all",
        protocol: Protocol = "strict",
    ) -> None:
        super().__init__(encoder, layers, protocol)
        one_of("model.kind", kind, ("name", "transcript"))
        one_of("model.distance", distance, tuple(DISTANCES))
        for asked in modes:
            one_of("model.modes", asked, ("within", "across"))
        if not modes or ("across" in modes and across is None):
            raise UserError("model.modes is of within and across, of which across needs --model.across: a column.")
        for name, value, low in (("most", most, 2), ("others", others, 1)):
            if value is not None:
                within(f"model.{name}", value, low=low, whole=True)
        if most_seconds is not None:
            within("model.most_seconds", most_seconds, above=0)
        self.of, self.by, self.across, self.modes, self.kind = of, tuple(by), across, tuple(modes), kind
        self.distance, self.most, self.others, self.most_seconds = DISTANCES[distance], most, others, most_seconds
        if "test" not in splits:
            raise UserError("model.splits is of the splits that are judged together: test, and others beside it.")
        self.splits = tuple(splits)
        files = {"test": items} if isinstance(items, str) else items or {}
        self.cuts = {split: read_cuts(file, self._columns) for split, file in files.items()}

    @property
    def _columns(self) -> list[str]:
        return [self.of, *self.by, *([self.across] if self.across else ())]

    @property
    def main(self) -> str:
        return f"abx_{self.modes[0]}"

    @property
    def protocol(self) -> str:
        return super().protocol if self.splits == ("test",) else f"{super().protocol} of {'+'.join(self.splits)}"

    @property
    def target(self) -> dict[str, str] | None:
        return None if self.cuts else dict.fromkeys(self._columns, "name") | {self.of: self.kind}

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self._ids = {split: self.data.ids(split) for split in self.cuts}
        for split, cuts in self.cuts.items():
            cuts.expect(self._ids[split], f"the {split} split of {self.data.source_name}")

    def item(self, split: str, batch: Any, row: int, states: list[Tensor]) -> list[tuple[Label, list[Tensor]]]:
        """The pieces of an item, each with its label and its states in each layer."""
        if not self.cuts:
            if self.most_seconds is not None and float(batch.lengths[row]) / batch.rate > self.most_seconds:
                return []
            return [(self._label(self.labels(batch, row)), states)]
        if split not in self.cuts:
            raise UserError(
                f"model.items names no item file of the {split} split; give one for each: {{{split}: FILE}}."
            )
        rate = batch.rate / self.encoder.stride
        cuts = self.cuts[split].of(self._ids[split][int(batch.index[row])])
        return [(self._label(cut.columns), [values[cut.states(rate)] for values in states]) for cut in cuts]

    def _label(self, columns: Mapping[str, str]) -> Label:
        return Label(columns[self.of], tuple(columns[n] for n in self.by), columns[self.across] if self.across else "")

    def judge(self, split: str, number: int, tuned: Mapping[str, float] | None) -> Judged:
        splits = self.splits if split == "test" else (split,)
        found = [piece for name in splits for item in self.items(name) for piece in item]
        held = [(label, states[number]) for label, states in found if len(states[number])]
        if number == 0 and len(held) < len(found):
            rank_zero_warn(f"{len(found) - len(held)} of {len(found)} pieces are too short for a state: left out.")
        labels = [label for label, _ in held]
        pieces = Pieces.of([states for _, states in held] or [torch.empty(0, 1)], self.distance.prepare).to(self.device)
        figures: dict[str, float] = {}
        examples: list[Example] = []
        for mode in self.modes:
            chosen = cells(labels, mode, self.most, self.others, run_seed())
            of_pairs = averaged(cell_errors(pieces, chosen, self.distance))
            if not of_pairs:
                raise UserError(
                    f"{self.data.source_name}: no two pieces of one {self.of} in the {split} split are of "
                    f"{'one and the same' if mode == 'within' else 'different'} {self.across or 'context'}, beside one "
                    f"of another {self.of}, so there is no error {mode} (--model.modes says which are asked for)."
                )
            figures[f"abx_{mode}"] = mean(of_pairs.values())
            examples = examples or [(f"{a}|{b}", error, 1.0) for (a, b), error in of_pairs.items()]
        return Judged(figures, examples)


def cell_errors(pieces: Pieces, all_cells: Iterable[Cell], distance: Distance) -> Iterator[tuple[Cell, float]]:
    """The error of each cell; each distance that several of them need is computed once, a million or so at a time."""
    waiting: list[Cell] = []
    size = 0
    for cell in all_cells:
        waiting.append(cell)
        size += len(cell.x) * (len(cell.a) + len(cell.b))
        if size > PAIRS:
            yield from _errors(pieces, waiting, distance)
            waiting, size = [], 0
    if waiting:
        yield from _errors(pieces, waiting, distance)


def _errors(pieces: Pieces, some: list[Cell], distance: Distance) -> Iterator[tuple[Cell, float]]:
    codes = [np.add.outer(cell.x * len(pieces.starts), np.concatenate([cell.a, cell.b])) for cell in some]
    unique, where = np.unique(np.concatenate([code.ravel() for code in codes]), return_inverse=True)
    first, second = (torch.from_numpy(n).to(pieces.states.device) for n in divmod(unique, len(pieces.starts)))
    found = pair_distances(pieces, first, second, distance).cpu().numpy()[where.ravel()]
    ends = np.cumsum([code.size for code in codes])
    for cell, code, row in zip(some, codes, np.split(found, ends[:-1]), strict=True):
        to_a, to_b = np.split(row.reshape(code.shape), [len(cell.a)], axis=1)
        yield cell, cell_error(to_a, to_b, cell.x is cell.a)


def cell_error(to_a: NDArray[np.float32], to_b: NDArray[np.float32], same: bool) -> float:
    """1 − the share of triples whose X is closer to A than to B; ties count half.

    Args:
        to_a: (X, A) distances.
        to_b: (X, B).
        same: whether X and A are the same pieces, none of which is compared with itself.
    """
    closer = (np.sign(to_b[:, None] - to_a[:, :, None]) + 1) / 2  # (X, A, B)
    return 1 - float((closer[~np.eye(len(to_a), dtype=bool)] if same else closer).mean(dtype=np.float64))


def averaged(errors: Iterable[tuple[Cell, float]]) -> dict[tuple[str, str], float]:
    """The error of each pair of kinds: the mean over its speakers of the mean over the contexts of each."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for cell, error in errors:
        found.setdefault(cell.pair, {}).setdefault(cell.across, []).append(error)
    return {pair: mean(map(mean, speakers.values())) for pair, speakers in found.items()}
