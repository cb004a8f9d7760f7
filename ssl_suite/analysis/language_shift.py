"""Where is language? The mean vector of each, what is left without it, and translation by it (arXiv:2010.10041)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from ssl_suite.analysis.alignment import Sides, expect_tokens, mean_reciprocal_rank, read_sides
from ssl_suite.analysis.figures import Curve, lines
from ssl_suite.analysis.findings import Exhibit, Findings, Row
from ssl_suite.analysis.states import described, named_encoders
from ssl_suite.analysis.words import BATCH, Reader
from ssl_suite.core.check import within
from ssl_suite.core.encoder import Encoder
from ssl_suite.core.errors import UserError
from ssl_suite.encoders.tokenizer import special_ids
from ssl_suite.methods.text.masked_lm import MaskedLM

SHOWN = 6
"""Texts whose translations the page shows."""


def language_shift(
    source: str, pairs: str, languages: Sequence[str], layer: int | None = None, alphas: Sequence[float] = (1, 2, 3)
) -> Findings:
    """Measures language means on one half of a parallel list, and what they do on the other.

    Args:
        source: text encoder of both languages.
        pairs: TSV of texts, the second the translation of the first.
        languages: their two names.
        layer: state to which the difference of the means is added; None: the middle one.
        alphas: how many times; 0, no shift, is always shown beside them.

    Raises:
        UserError: the list is too short, an option does not fit, or the encoder reads no text.
    """
    if len(languages) != 2:
        raise UserError(f"--languages are the two of the list, not {len(languages)}: --languages en zh.")
    for alpha in alphas:
        within("--alphas", alpha)
    if len(set(alphas)) < len(alphas) or not any(alphas):
        raise UserError(f"--alphas are numbers, one that is not 0 at least, each once, not {list(alphas)}.")
    ((name, encoder),) = named_encoders([source]).items()
    layer = (encoder.num_states - 1) // 2 if layer is None else layer
    within("--layer", layer, low=0, high=encoder.num_states - 1, whole=True)
    reader, sides = Reader(encoder), read_sides(pairs)
    expect_tokens(reader, sides, pairs)
    learned, judged = ((sides[0][half::2], sides[1][half::2]) for half in (0, 1))
    means = [reader.token_means(side) for side in learned]
    rows = list(distances(reader, judged, means))
    exhibits = [_curves(rows, languages)]
    if "head.bias" in encoder.heads:
        shift = means[1][layer] - means[0][layer]
        more, table = _translations(
            reader, learned, judged, shift, layer, sorted({0.0, *map(float, alphas)}), languages
        )
        rows, exhibits = [*rows, *more], [*exhibits, *table]
        answer = _said({r["alpha"]: r["value"] for r in more if r["measure"] == "target_share"}, languages[1])
    else:
        at = {(r["state"], r["measure"]): r["value"] for r in rows}
        answer = (
            f"In state {layer} the nearest mean tells the language of {100 * at[layer, 'accuracy']:.0f} % of texts, "
        )
        answer += f"without the means {100 * at[layer, 'accuracy_without']:.0f} %."
    return Findings(
        "language-shift",
        "Where is language?",
        answer,
        rows,
        exhibits,
        {**described({name: encoder}), "pairs": f"{pairs}: {len(sides[0])}", "languages": ", ".join(languages)},
        [
            "R, the mean word vector of a language in a state, is measured on every other pair, all else on the rest "
            "(arXiv:2010.10041). Without R, the nearest mean is of the rest, but for the text and its translation.",
            "Translation by mean shift: α(R₂ − R₁) is added to each position of a state of texts of the first one, "
            "the remaining layers run on, and the head says the likeliest token at each place; nothing is masked.",
            "A token is of the language in whose texts it is the more frequent. In the reference: the share of the "
            "predicted kinds of token that the true translation has.",
        ],
    )


def _said(share: Mapping[float, float], language: str) -> str:
    """The best of the shifts, and whether it raised the share of the other language.

    Args:
        share: α → of the predicted tokens, those of `language`; of 0 too, which is no shift.
        language: name of the second one.
    """
    top = max((a for a in share if a), key=lambda a: share[a])
    answer = f"Shifted {top:g} times by the difference of the means, {100 * share[top]:.0f} % of the predicted tokens "
    answer += f"are of {language}, unshifted {100 * share[0.0]:.0f} %"
    return f"{answer}." if share[top] > share[0.0] else f"{answer}: no shift raised the share."


def distances(reader: Reader, texts: Sides, means: Sequence[Sequence[Tensor]]) -> Iterator[Row]:
    """For each state: how far apart languages and translations are, with the language means and without."""
    for state, vectors in enumerate(zip(*(reader.sentences(side) for side in texts), strict=True)):
        centres = [own[state] for own in means]
        bare = [v - centre for v, centre in zip(vectors, centres, strict=True)]
        spread = torch.cat([b.norm(dim=1) for b in bare]).mean()
        yield {"state": state, "measure": "gap", "value": float((centres[0] - centres[1]).norm() / spread)}
        for suffix, (one, other), ends in (("", vectors, centres), ("_without", bare, means_of_others(bare))):
            apart = float((one - other).norm(dim=1).mean() / spread)
            yield {"state": state, "measure": f"to_translation{suffix}", "value": apart}
            yield {"state": state, "measure": f"accuracy{suffix}", "value": nearest_mean(one, other, ends)}
            yield {"state": state, "measure": f"mrr{suffix}", "value": mean_reciprocal_rank(one, other)}


def means_of_others(sides: Sequence[Tensor]) -> list[Tensor]:
    """For each row the mean of all other rows of its side, (N, D): every row is near a mean that it is part of."""
    return [(side.sum(0) - side) / (len(side) - 1) for side in sides]


def nearest_mean(one: Tensor, other: Tensor, means: Sequence[Tensor]) -> float:
    """Share of the rows of two languages that are nearer to the mean of their own than to the other's.

    Args:
        one: (N, D).
        other: (N, D), translations.
        means: of both, (D,), or (N, D): those that each row and its translation are compared with.
    """
    right = [
        (side - means[own]).norm(dim=1) < (side - means[1 - own]).norm(dim=1) for own, side in enumerate((one, other))
    ]
    return float(torch.cat(right).float().mean())


@contextmanager
def shifted(encoder: Encoder, layer: int, by: Tensor) -> Iterator[None]:
    """Adds `by` (D,) to what block `layer` (from 0) reads at every position.

    Raises:
        UserError: the encoder has no blocks of its own for each layer.
    """
    blocks = encoder.blocks()
    if len(blocks) != encoder.num_states - 1:
        raise UserError(f"This {type(encoder).__name__} has no block for each layer, so that no state can be shifted.")
    handle = blocks[layer].register_forward_pre_hook(lambda module, inputs: (inputs[0] + by, *inputs[1:]))
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def predicted(
    method: MaskedLM, reader: Reader, texts: Sequence[Sequence[str]], layer: int, by: Tensor
) -> list[list[int]]:
    """The likeliest token at every place of each text but those of special tokens, with a state shifted."""
    method.to(reader.device).eval()
    encoder, by = method.encoder, by.to(reader.device)
    special = torch.tensor(special_ids(reader.tokenizer), device=reader.device)
    ids, _ = reader.encode(texts)
    found: list[list[int]] = []
    for first in range(0, len(ids), BATCH):
        batch = reader.batch(ids[first : first + BATCH])
        last = layer == encoder.num_states - 1
        with nullcontext() if last else shifted(encoder, layer, by):
            output = encoder(batch).states[-1] + (by if last else 0)
        for states, row, mask in zip(output, batch.ids, batch.mask, strict=True):
            found.append(method.head(states[mask & ~torch.isin(row, special)]).argmax(1).tolist())
    return found


def _translations(
    reader: Reader,
    learned: Sides,
    judged: Sides,
    shift: Tensor,
    layer: int,
    alphas: Sequence[float],
    languages: Sequence[str],
) -> tuple[list[Row], list[Exhibit]]:
    method = MaskedLM(reader.encoder)
    target = tokens_of(reader, learned)
    references = [set(ids) for ids in reader.encode(judged[1])[0]]
    said = {alpha: predicted(method, reader, judged[0], layer, alpha * shift) for alpha in alphas}
    rows: list[Row] = []
    for alpha, texts in said.items():
        every = [token for text in texts for token in text]
        rows.append({"alpha": alpha, "measure": "target_share", "value": sum(t in target for t in every) / len(every)})
        hits = [
            len(set(text) & reference) / len(set(text))
            for text, reference in zip(texts, references, strict=True)
            if text
        ]
        rows.append({"alpha": alpha, "measure": "in_reference", "value": sum(hits) / len(hits)})
    names = {"target_share": f"tokens of {languages[1]}", "in_reference": "in the reference"}
    values = {m: [r["value"] for r in rows if r["measure"] == m] for m in names}
    curves = {text: Curve(list(alphas), values[m]) for m, text in names.items()}
    figure, legend = lines(curves, "shift", "Shifted by α", "α", "share of predicted tokens")
    decode = reader.tokenizer.decode
    body = [
        [" ".join(judged[0][i]), *(decode(said[a][i]) for a in alphas), " ".join(judged[1][i])]
        for i in range(min(SHOWN, len(judged[0])))
    ]
    head = [languages[0], *(f"α = {a:g}" for a in alphas), f"{languages[1]}, reference"]
    shown = Exhibit("What is said at each place", head=head, body=body, prose=True)
    return rows, [Exhibit(f"State {layer} shifted by α(R₂ − R₁)", figure, legend=legend), shown]


def tokens_of(reader: Reader, texts: Sides) -> set[int]:
    """Tokens that are the more frequent, as a share of all, in the second language."""
    one, other = (Counter(token for ids in reader.encode(side)[0] for token in ids) for side in texts)
    special = set(special_ids(reader.tokenizer))
    return {t for t, n in other.items() if t not in special and n / other.total() > one[t] / one.total()}


def _curves(rows: Sequence[Row], languages: Sequence[str]) -> Exhibit:
    names = {"to_translation": "distance to the translation", "accuracy": "language told", "mrr": "translation found"}
    curves: dict[str, Curve] = {}
    for measure, label in names.items():
        for suffix, dashed in (("", False), ("_without", True)):
            own = [r for r in rows if r["measure"] == measure + suffix]
            name = f"{label}, without means" if dashed else label
            curves[name] = Curve([r["state"] for r in own], [r["value"] for r in own], dashed=dashed)
    title = f"{languages[0]} and {languages[1]}, state by state"
    figure, legend = lines(curves, "language", title, "state", "share, or distance over spread")
    caption = "Distances over the mean distance of a text to its language’s mean; found: MRR. Dashed: means subtracted."
    return Exhibit(title, figure, caption, legend)
