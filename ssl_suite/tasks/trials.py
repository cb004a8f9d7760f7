"""Trials of verification: are these two of one identity? Which are posed, and how well scores tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ssl_suite.core.errors import UserError
from ssl_suite.core.reading import a_file

MOST = 2_000_000
"""Pairs that a split poses; of more, half as many of one identity and half of two are drawn."""


class Trials(NamedTuple):
    """Pairs of items of a split.

    Attributes:
        first: (N,) number of an item.
        second: (N,) number of the other.
        same: (N,) bool, whether they are of one identity.
    """

    first: Tensor
    second: Tensor
    same: Tensor

    def among(self, there: Tensor) -> Trials:
        """Those of which both items are there, (items,) bool."""
        return self.where(there[self.first] & there[self.second])

    def where(self, chosen: Tensor) -> Trials:
        return Trials(*(part[chosen] for part in self))


def every_pair(identity: Tensor) -> Trials:
    """All pairs of items, each once; where that is too many, `MOST` of them, the same ones at every call.

    Args:
        identity: (items,) of each.
    """
    n = len(identity)
    if n * (n - 1) // 2 <= MOST:
        first, second = torch.triu_indices(n, n, 1, device=identity.device)
        return Trials(first, second, identity[first] == identity[second])
    generator = torch.Generator().manual_seed(0)

    def numbers(size: int = MOST // 2) -> Tensor:
        return torch.rand(size, generator=generator, dtype=torch.float64).to(identity.device)

    order = identity.argsort(stable=True)
    _, group, sizes = identity[order].unique_consecutive(return_inverse=True, return_counts=True)
    place = (numbers() * n).long()  # in `order`; its partner is another of its group, or itself where there is none
    size, start = sizes[group[place]], (sizes.cumsum(0) - sizes)[group[place]]
    step = 1 + (numbers() * (size - 1)).long()
    same = Trials(order[place], order[start + (place - start + step) % size], torch.ones_like(place, dtype=torch.bool))
    first, second = (numbers() * n).long(), (numbers() * n).long()
    other = Trials(first, second, torch.zeros_like(same.same))
    parts = same.where(size > 1), other.where(identity[first] != identity[second])
    return Trials(*(torch.cat(both) for both in zip(*parts, strict=True)))


class Listed(NamedTuple):
    """A line of a list of trials: its number, whether both are of one identity, and their names."""

    line: int
    same: bool
    first: str
    second: str


def read_trials(path: Path) -> list[Listed]:
    """Reads VoxCeleb's format, a trial a line: `1 FIRST SECOND` for one identity, `0 FIRST SECOND` for two.

    Raises:
        UserError: there is no such file, or a line is none; names it.
    """
    found = []
    for number, line in enumerate(a_file(path).read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        same, *names = line.split() or ["blank"]
        if same == "blank":
            continue
        if same not in ("0", "1") or len(names) != 2:
            raise UserError(f"{path}, line {number}: {line[:60]!r} is no trial; one is `1 FIRST SECOND`, or 0 for two.")
        found.append(Listed(number, same == "1", *names))
    if not found:
        raise UserError(f"{path} holds no trial.")
    return found


def located(listed: Sequence[Listed], ids: Sequence[str], source: str, among: str) -> Trials:
    """Finds the items that trials name: by their whole id, or by its last parts (`speaker/video/0001.wav`).

    Args:
        listed: the trials.
        ids: of the items.
        source: what a message calls the list.
        among: what it calls the items.

    Raises:
        UserError: a name is that of no item, or of several; names file and line.
    """
    named: dict[int, dict[str, int]] = {}  # parts of a name → name → item; −1: of several
    for parts in {name.count("/") for trial in listed for name in (trial.first, trial.second)}:
        table = named[parts] = {}
        for i, full in enumerate(ids):
            short = "/".join(full.split("/")[-parts - 1 :])
            table[short] = -1 if short in table else i

    def find(name: str, line: int) -> int:
        item = named[name.count("/")].get(name)
        if item is None or item < 0:
            what = f"no item of {among} is" if item is None else f"several items of {among} are"
            raise UserError(f"{source}, line {line}: {what} called {name!r}.")
        return item

    first, second = ([find(getattr(trial, side), trial.line) for trial in listed] for side in ("first", "second"))
    return Trials(torch.tensor(first), torch.tensor(second), torch.tensor([trial.same for trial in listed]))


class Curve(NamedTuple):
    """The corners of a ROC, from accepting every trial to accepting none.

    Attributes:
        cuts: (K,) thresholds.
        strict: (K,) bool, whether a score has to be above its threshold, or may be equal to it.
        misses: (K,) share of the trials of one identity that are rejected.
        alarms: (K,) share of the others that are accepted.
    """

    cuts: Tensor
    strict: Tensor
    misses: Tensor
    alarms: Tensor


def curve(scores: Tensor, same: Tensor) -> Curve:
    """The ROC of (N,) scores; it turns only at the scores of trials of one identity, which mostly are the fewer."""
    mine, others = scores[same].sort().values, scores[~same].sort().values
    values = mine.unique_consecutive()
    ends = torch.cat([values.new_tensor([-torch.inf]), values.repeat_interleave(2), values.new_tensor([torch.inf])])
    strict = torch.zeros(len(ends), dtype=torch.bool, device=scores.device)
    strict[2:-1:2] = True

    def below(among: Tensor) -> Tensor:
        """(K,) how many of them are rejected at each corner."""
        at, above = (torch.searchsorted(among, values, right=right) for right in (False, True))
        inner = torch.stack([at, above], 1).flatten()
        return torch.cat([inner.new_zeros(1), inner, inner.new_full((1,), len(among))])

    misses, rejected = below(mine).double() / len(mine), below(others).double() / len(others)
    return Curve(ends, strict, misses, 1 - rejected)


def errors(scores: Tensor, same: Tensor) -> Tensor:
    """How wrong each trial is where misses and false alarms are equally frequent.

    Between two corners of the ROC, where that usually is, a trial counts by how near each is: so the mean over the
    trials of one identity, and that over the others, are the root of 1 − x − TPR(x) on the interpolated ROC.

    Args:
        scores: (N,) the higher, the likelier of one identity.
        same: (N,) bool.

    Returns:
        (N,) between 0 and 1; NaN where there are no trials of one of both kinds.
    """
    if bool(same.all()) or not bool(same.any()):
        return torch.full_like(scores, torch.nan, dtype=torch.float64)
    roc = curve(scores, same)
    after = int((roc.misses >= roc.alarms).int().argmax())  # the last corner misses everything
    gap = (roc.alarms - roc.misses)[[after - 1, after]]
    weight = float(gap[0] / (gap[0] - gap[1]))

    def wrong(corner: int) -> Tensor:
        cut = roc.cuts[corner]
        accepted = scores > cut if roc.strict[corner] else scores >= cut
        return (accepted != same).double()

    return (1 - weight) * wrong(after - 1) + weight * wrong(after)


def eer(scores: Tensor, same: Tensor) -> Tensor:
    """Equal error rate of (N,) scores, () in float64; NaN without trials of both kinds."""
    return errors(scores, same)[same].mean()


def min_dcf(scores: Tensor, same: Tensor, target: float) -> Tensor:
    """Least detection cost over all thresholds, divided by that of the better constant answer; both costs are 1.

    Args:
        scores: (N,).
        same: (N,) bool.
        target: prior probability of one identity.
    """
    if bool(same.all()) or not bool(same.any()):
        return scores.new_tensor(torch.nan, dtype=torch.float64)
    roc = curve(scores, same)
    return (target * roc.misses + (1 - target) * roc.alarms).min() / min(target, 1 - target)
