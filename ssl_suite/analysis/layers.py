"""How alike layers are, of one encoder and of several: centred kernel alignment (CKA), linear kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_suite.analysis.figures import heatmap
from ssl_suite.analysis.findings import Exhibit, Findings
from ssl_suite.analysis.states import Items, described, named_encoders
from ssl_suite.core.errors import UserError

if TYPE_CHECKING:
    from markupsafe import Markup

BATCH = 256
"""Examples whose Gram matrices are made together."""
ROUNDING = 1e-5
"""Size of what varies, over that of all, up to which a state does not vary but for rounding."""


def linear_cka(states: Sequence[Tensor]) -> Tensor:
    """Linear CKA of every pair of states (Kornblith et al. 2019, arXiv:1905.00414, equation 4 with HSIC of its eq. 3).

    ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖) for columns of mean 0, in double precision. Biased towards 1 where N is not far above D.

    Args:
        states: S tensors (N, D), of any widths.

    Returns:
        (S, S); NaN for a state that does not vary.
    """
    centred = [x.double() - x.double().mean(0) for x in states]
    cross = torch.stack([torch.stack([(y.T @ x).square().sum() for y in centred]) for x in centred])
    own = cross.diagonal().sqrt().where(varies(states), torch.nan)
    return cross / (own[:, None] * own[None])


def varies(states: Sequence[Tensor]) -> Tensor:
    """(S,): whether the rows of each state (N, D) differ by more than rounding."""
    wide = [x.double() for x in states]
    return torch.stack([(x - x.mean(0)).norm() > ROUNDING * x.norm() for x in wide])


def unbiased_hsic(states: Sequence[Tensor]) -> Tensor:
    """HSIC₁ of every pair of states, without bias (Song et al. 2012; arXiv:2010.15327, equation 3), linear kernel.

    It is the mean product of the Gram matrices after U-centring (Székely and Rizzo 2014), which equals
    [tr(K̃L̃) + 1ᵀK̃1 1ᵀL̃1 / ((n−1)(n−2)) − 2 · 1ᵀK̃L̃1 / (n−2)] / (n(n−3)), where K̃ is K without its diagonal.

    Args:
        states: S tensors (n, D), n above 3.

    Returns:
        (S, S).
    """
    n = len(states[0])
    flat = torch.stack([_u_centred(x.double() @ x.double().T).flatten() for x in states])  # (S, n²)
    return flat @ flat.T / (n * (n - 3))


def _u_centred(gram: Tensor) -> Tensor:
    n = len(gram)
    bare = gram - gram.diag().diag()
    rows = bare.sum(1)
    centred = bare - (rows[:, None] + rows[None]) / (n - 2) + rows.sum() / ((n - 1) * (n - 2))
    return centred - centred.diag().diag()


def unbiased_cka(states: Sequence[Tensor], batch: int = BATCH) -> Tensor:
    """CKA of every pair of states by HSIC₁ averaged over batches (arXiv:2010.15327, equation 2): no bias from few rows.

    Args:
        states: S tensors (N, D), the same N examples in the same order.
        batch: examples a batch; a last one of fewer than 4 is left out.

    Returns:
        (S, S); NaN for a state that does not vary.
    """
    parts = zip(*(x.split(batch) for x in states), strict=True)
    hsic = torch.stack([unbiased_hsic(part) for part in parts if len(part[0]) > 3]).mean(0)
    own = hsic.diagonal().clamp(min=0).sqrt().where(varies(states), torch.nan)
    return hsic / (own[:, None] * own[None])


def layers(sources: Sequence[str], items: Items, positions: bool = False) -> Findings:
    """Compares every layer of the encoders with every other.

    Args:
        sources: encoders.
        items: what they see.
        positions: compare single positions (tokens, patches, frames) instead of the items' means; of several encoders
            they must be the same ones.

    Raises:
        UserError: encoders whose positions differ in number.
    """
    encoders = named_encoders(sources)
    states = {name: items.states(encoder, positions) for name, encoder in encoders.items()}
    counts = {name: len(own[0]) for name, own in states.items()}
    if len(set(counts.values())) > 1:
        raise UserError(f"These encoders do not have the same positions ({counts}); leave --positions out.")
    keys = [(name, k) for name, own in states.items() for k in range(len(own))]
    every = [state for own in states.values() for state in own]
    unbiased, biased = unbiased_cka(every).numpy(), linear_cka(every).numpy()
    rows = [
        {"encoder": a, "layer": i, "other": b, "other_layer": j, "measure": measure, "value": float(matrix[p, q])}
        for measure, matrix in (("cka", unbiased), ("cka_biased", biased))
        for p, (a, i) in enumerate(keys)
        for q, (b, j) in enumerate(keys)
        if p <= q
    ]
    place = {key: p for p, key in enumerate(keys)}
    names = list(encoders)
    exhibits = [
        Exhibit(
            f"{a} × {b}" if a != b else a,
            _map(unbiased, place, states, a, b, f"cka-{names.index(a)}-{names.index(b)}"),
            "Unbiased linear CKA; state 0 is the input embedding, the last one the output.",
        )
        for i, a in enumerate(names)
        for b in names[i:]
    ]
    what = "positions" if positions else "items"
    return Findings(
        "layers",
        "How alike are the layers?",
        _answer(unbiased, place, states),
        rows,
        exhibits,
        {**described(encoders), "data": str(items)},
        [
            f"CKA (arXiv:1905.00414) with the unbiased HSIC (arXiv:2010.15327) over batches of {BATCH}, over "
            f"{counts[names[0]]} {what}; `cka_biased` in the rows is the estimate of the former paper.",
            "1: the same up to rotation and scale. 0: unrelated. Without bias it may leave [0, 1] a little.",
        ],
    )


def _map(
    matrix: NDArray[Any],
    place: Mapping[tuple[str, int], int],
    states: Mapping[str, list[Tensor]],
    a: str,
    b: str,
    name: str,
) -> Markup:
    up, across = ([place[e, k] for k in range(len(states[e]))] for e in (a, b))
    rows, columns = ([str(k) for k in range(len(states[e]))] for e in (a, b))
    cell = 34 if len(columns) <= 14 else 18
    return heatmap(matrix[np.ix_(up, across)], rows, columns, name, f"CKA of the layers of {a} and {b}", cell=cell)


def _answer(matrix: NDArray[Any], place: Mapping[tuple[str, int], int], states: Mapping[str, list[Tensor]]) -> str:
    """Of two encoders, how alike their outputs are; of one, how far its output is from its input."""
    names = list(states)
    last = {name: place[name, len(own) - 1] for name, own in states.items()}
    if len(names) > 1:
        a, b = names[:2]
        if np.isnan(matrix[last[a], last[b]]):
            return f"The outputs of {a} and {b} cannot be compared: one of them is the same for all."
        return (
            f"The outputs of {a} and {b} are alike to {matrix[last[a], last[b]]:.2f} (CKA; 1: the same up to rotation)."
        )
    (name,) = names
    if np.isnan(matrix[place[name, 0], last[name]]):
        return f"The input embedding and the output of {name} cannot be compared: one of them is the same for all."
    return (
        f"From its input embedding to its output {name} keeps {matrix[place[name, 0], last[name]]:.2f} (CKA; 1: all)."
    )
