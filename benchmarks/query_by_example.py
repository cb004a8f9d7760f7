"""Query by example: pairs of query and utterance a second, against SciPy and dtw-python, one pair after the other."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import side_by_side
import torch
from side_by_side import Case, arguments, compare

from ssl_suite.core.request import Request
from ssl_suite.data.speech.speech import Speech
from ssl_suite.tasks.query_by_example import search_scores

RATE = 50
"""States a second."""
PEER = "SciPy's cdist and dtw-python, as SUPERB"


def peer_scores(queries: list[torch.Tensor], utterances: list[torch.Tensor]) -> None:
    from dtw import dtw
    from scipy.spatial.distance import cdist

    every = torch.cat([*queries, *utterances])
    mean, deviation = every.mean(0), every.std(0)
    asked, there = ([((s - mean) / deviation).numpy() for s in some] for some in (queries, utterances))
    for query in asked:
        for utterance in there:
            cost = np.exp(cdist(query, utterance, "cosine")) - 1
            low, high = cost.min(1, keepdims=True), cost.max(1, keepdims=True)
            scaled = (cost - low) / np.clip(high - low, 1e-9, None)
            dtw(scaled, step_pattern="asymmetric", open_begin=True, open_end=True, distance_only=True)


def search(name: str, seconds: tuple[list[float], list[float]], args: argparse.Namespace) -> Case:
    """The peer is timed on a few of the pairs."""
    torch.manual_seed(0)
    dim = 16 if args.tiny else args.dim
    queries, utterances = ([torch.randn(max(5, int(n * RATE)), dim) for n in some] for some in seconds)

    def timed(
        compute: Callable[[list[torch.Tensor], list[torch.Tensor]], object], every: int
    ) -> Callable[[int], float]:
        def side(steps: int) -> float:
            asked, there = queries[::every], utterances[::every]
            begun = side_by_side.timer()
            compute(asked, there)
            return len(asked) * len(there) / (side_by_side.timer() - begun)

        return side

    ours = timed(lambda asked, there: search_scores(asked, there, torch.device("cpu")), 1)
    return Case(f"{name}, {dim} wide", "pairs", PEER, {"ours": ours, "peer": timed(peer_scores, 10)})


def counts(args: argparse.Namespace) -> tuple[int, int]:
    return (10, 20) if args.tiny else (100, 1000)


def prompts(args: argparse.Namespace) -> Case:
    """Lengths of the embedded recordings: the shortest against some."""
    data = Speech("samples:prompts")
    data.serve(Request())
    queries, utterances = counts(args)
    lengths = list(data.lengths("train"))
    return search("the prompts' lengths", (sorted(lengths)[:queries], lengths[:utterances]), args)


def quesst(args: argparse.Namespace) -> Case:
    """Lengths as in QUESST 2014: utterances of 6.6 s and queries of 1.4 s, on average."""
    draw = np.random.default_rng(0)
    queries, utterances = counts(args)
    return search(
        "QUESST's lengths", (draw.uniform(0.5, 2.3, queries).tolist(), draw.uniform(2, 11.2, utterances).tolist()), args
    )


if __name__ == "__main__":
    parser = arguments(__doc__ or "", rounds=1, steps=1)
    parser.add_argument("--dim", type=int, default=768, help="width of the states")
    compare([prompts, quesst], parser.parse_args())
