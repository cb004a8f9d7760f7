"""The equal error rate of many trials, against scikit-learn's ROC and SciPy's root of it, as SUPERB computes it."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import side_by_side
import torch
from side_by_side import Case, arguments, compare

from ssl_suite.tasks.trials import eer

PEER = "roc_curve and brentq"


def peer_eer(scores: torch.Tensor, same: torch.Tensor) -> float:
    from scipy.interpolate import interp1d
    from scipy.optimize import brentq
    from sklearn.metrics import roc_curve

    alarms, hits, _ = roc_curve(same.numpy(), scores.numpy())
    return brentq(lambda x: 1 - x - interp1d(alarms, hits)(x), 0, 1)


def equal_error_rate(args: argparse.Namespace) -> Case:
    """Trials a second; one in ten is of one identity."""
    torch.manual_seed(0)
    same = torch.rand(1000 if args.tiny else 10_000_000) < 0.1
    scores = torch.randn(len(same)) + 2 * same

    def timed(compute: Callable[[torch.Tensor, torch.Tensor], object]) -> Callable[[int], float]:
        def side(steps: int) -> float:
            begun = side_by_side.timer()
            for _ in range(steps):
                compute(scores, same)
            return steps * len(same) / (side_by_side.timer() - begun)

        return side

    return Case("EER", "trials", PEER, {"ours": timed(eer), "peer": timed(peer_eer)})


if __name__ == "__main__":
    compare([equal_error_rate], arguments(__doc__ or "", rounds=3, steps=1).parse_args())
