"""How far units agree with labels that people gave: purities, and what a unit tells of a label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ssl_suite.core.errors import UserError
from ssl_suite.data.common.kinds import is_empty, spelled
from ssl_suite.data.common.source import Rows
from ssl_suite.data.speech.units import UnitFile


@dataclass(frozen=True, eq=False)
class Agreement:
    """Units and labels that occur together (HuBERT, arXiv:2106.07447, section IV.F).

    Attributes:
        counts: (k, C) frames with each unit and label.
        column: of the labels.
        aligned: whether a label is one of a moment (a phone), rather than of a whole recording (its language).
    """

    counts: NDArray[np.int64]
    column: str
    aligned: bool

    @classmethod
    def of(cls, file: UnitFile, rows: Rows, column: str) -> Self:
        """Counts over a split.

        Args:
            file: its units.
            rows: its recordings.
            column: of the labels; a list is spread evenly over its recording. Recordings without any are left out.

        Raises:
            UserError: there is no such column, or nothing in it.
        """
        names: dict[str, int] = {}
        units, starts = file.units.numpy(), file.starts.tolist()
        met: dict[int, NDArray[np.int64]] = {}  # label → how often each unit occurs with it
        lists = 0
        for i, value in enumerate(rows.column(column)):
            mine = units[starts[i] : starts[i + 1]]
            if is_empty(value) or (isinstance(value, (list, tuple)) and not value) or not len(mine):
                continue
            lists += (several := isinstance(value, (list, tuple)))
            labels = [names.setdefault(spelled(v), len(names)) for v in (value if several else [value])]
            at = np.array(labels)[np.arange(len(mine)) * len(labels) // len(mine)]
            for label in np.unique(at).tolist():
                found = np.bincount(mine[at == label])
                before = met.get(label, np.zeros(0, np.int64))
                met[label] = np.zeros(max(len(before), len(found)), np.int64)
                met[label][: len(before)] += before
                met[label][: len(found)] += found
        if not met:
            raise UserError(f"{rows.name}: no recording has anything in {column!r} to compare its units with.")
        counts = np.zeros((max(map(len, met.values())), len(names)), np.int64)
        for label, found in met.items():
            counts[: len(found), label] = found
        return cls(counts, column, lists > 0)

    def figures(self) -> dict[str, float]:
        """`purity`: mean over frames of how likely the likeliest label of their unit is (phone purity).

        `unit_purity`: how likely the likeliest unit of their label is (cluster purity); `pnmi`: the share of the
        labels' entropy that units take away; `chance`: the purity of a single unit.
        """
        joint = self.counts / self.counts.sum()
        unit, label = joint.sum(1, keepdims=True), joint.sum(0, keepdims=True)
        told = (joint * np.log(np.where(joint > 0, joint, 1) / np.where(joint > 0, unit * label, 1))).sum()
        entropy = -(label * np.log(label)).sum()
        return {
            "purity": float(joint.max(1).sum()),
            "unit_purity": float(joint.max(0).sum()),
            "pnmi": float(told / entropy) if entropy > 0 else 0.0,
            "chance": float(label.max()),
        }

    def __str__(self) -> str:
        f, (_, classes) = self.figures(), self.counts.shape
        of = "phone purity" if self.aligned else "purity"
        per = "aligned with the frames" if self.aligned else "one a recording, so that it says nothing of phones"
        return (
            f"{of} {f['purity']:.3f} (chance {f['chance']:.3f}), cluster purity {f['unit_purity']:.3f}, PNMI "
            f"{f['pnmi']:.3f} with {self.column!r}: {classes} labels, {per}"
        )
