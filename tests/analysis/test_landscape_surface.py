"""Loss surfaces of fine-tuning, against the loss evaluated by hand and the whole Hessian."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_text_encoder
from torch import Tensor
from torch.nn import functional as F

from ssl_suite.analysis.landscape import width
from ssl_suite.analysis.surface import Surface, difference, moved, projected
from ssl_suite.core.finetune import Finetune
from ssl_suite.data.image.images import Images
from ssl_suite.data.text.text import Text
from ssl_suite.encoders.simple import RawPixels
from ssl_suite.tasks.classify import Classify


@pytest.fixture(scope="module")
def surface() -> Surface:
    """Softmax regression on 24 digits of 4 × 4 pixels: 490 weights at most, so that its Hessian can be written out."""
    data = Images("samples:digits", image_size=4, batch_size=7, labels=24)
    model = Finetune(RawPixels(size=4), Classify(), mode="finetune")
    model.meet(data)
    return Surface(model, data, wanted=24)


def point(surface: Surface, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(p.shape, generator=generator) * 0.3 for n, p in surface.model.named_parameters()}


def by_hand(surface: Surface, weights: dict[str, Tensor]) -> Tensor:
    """Mean cross-entropy over all items at once, with weights that are given."""
    pixels = torch.cat([surface.model.encoder(batch).pooled for batch in surface.batches])
    target = torch.cat([batch.target for batch in surface.batches])  # type: ignore[arg-type]
    (weight,), (bias,) = ([w for w in weights.values() if w.ndim == n] for n in (2, 1))
    return F.cross_entropy(pixels @ weight.T + bias, target)


def test_the_loss_at_a_point_is_that_of_a_model_with_its_weights(surface: Surface) -> None:
    start, one, two = (point(surface, seed) for seed in range(3))
    assert surface.items == 24
    for a, b in ((0.0, 0.0), (1.0, 0.0), (-0.5, 1.25)):
        there = {n: start[n] + a * one[n] + b * two[n] for n in start}
        assert surface.at(start, (one, two), (a, b)) == pytest.approx(float(by_hand(surface, there)), rel=1e-5)
    assert surface.along(start, difference(one, start), [1.0]) == [
        pytest.approx(float(by_hand(surface, one)), rel=1e-5)
    ]
    values = surface.over(start, (one, two), [0.0, 1.0], [0.0, 0.5, 1.0])
    assert values.shape == (3, 2)
    assert values[2, 1] == pytest.approx(float(by_hand(surface, moved(start, (one, two), (1.0, 1.0)))), rel=1e-5)


def test_sharpness_is_the_largest_eigenvalue_of_the_hessian(surface: Surface) -> None:
    weights = point(surface, 0)
    shapes = {n: w.shape for n, w in weights.items()}

    def loss(flat: Tensor) -> Tensor:
        parts = flat.split([shape.numel() for shape in shapes.values()])
        return by_hand(surface, {n: p.view(s) for (n, s), p in zip(shapes.items(), parts, strict=True)})

    hessian = torch.autograd.functional.hessian(loss, torch.cat([w.flatten() for w in weights.values()]))
    expected = float(torch.linalg.eigvalsh(hessian)[-1])  # type: ignore[arg-type]
    assert surface.sharpness(weights, rounds=200, tolerance=1e-6) == pytest.approx(expected, rel=1e-2)


def test_a_way_is_projected_onto_directions_that_are_not_orthogonal(surface: Surface) -> None:
    start, one, two, beside = (point(surface, seed) for seed in range(4))
    there = moved(start, (one, two), (0.7, -0.2))
    assert projected(there, start, (one, two)) == pytest.approx([0.7, -0.2], abs=1e-5)
    off = projected(moved(there, (beside,), (0.1,)), start, (one, two))
    columns = torch.stack([torch.cat([d[n].flatten() for n in start]) for d in (one, two)], 1).double()
    way = torch.cat([(moved(there, (beside,), (0.1,))[n] - start[n]).flatten() for n in start]).double()
    assert off == pytest.approx(torch.linalg.lstsq(columns, way[:, None]).solution[:, 0].numpy(), abs=1e-5)


def test_a_direction_may_leave_out_the_head(surface: Surface) -> None:
    start = point(surface, 0)
    first = next(iter(start))
    there = moved(start, ({first: torch.ones_like(start[first])},), (2.0,))
    assert torch.equal(there[first], start[first] + 2)
    assert all(there[n] is start[n] for n in start if n != first)


def test_width_is_measured_at_half_height_and_ends_where_the_curve_does() -> None:
    steps = np.linspace(-0.5, 1.5, 21).tolist()
    assert width(steps, [abs(a - 1) for a in steps]) == pytest.approx(
        1.0, abs=2e-3
    )  # to 0.5, and to 1.5, where it ends
    assert width(steps, [(a - 1) ** 2 * 4 if a > 1 else (a - 1) ** 2 for a in steps]) == pytest.approx(
        0.707 + 0.354, abs=0.02
    )


@pytest.mark.parametrize("options", [{}, {"rms_norm": True}, {"attention": "local", "window": 2}], ids=str)
def test_products_with_the_hessian_hold_for_kernels_that_have_no_second_derivative(
    options: Any, tmp_path: Path
) -> None:
    """Against differences in double precision, where the suite's own kernels give way to torch's."""
    rows = [{"text": f"a {w} row of text", "label": w} for w in ("red", "blue") * 4]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    torch.manual_seed(0)
    data = Text(str(tmp_path), tokenizer="byte", vocab_size=261, max_length=16, batch_size=8)
    encoder = tiny_text_encoder(positions="rotary", dropout=0.0, **options)
    model = Finetune(encoder, Classify(), mode="finetune")
    model.meet(data)
    surface = Surface(model, data, wanted=8)
    weights = list(model.parameters())
    vector = [torch.randn_like(w) for w in weights]
    size = sum(float(v.square().sum()) for v in vector) ** 0.5
    vector = [v / size for v in vector]
    found = surface._hessian_times(weights, vector)
    model.double()
    slopes, step = [], 1e-2
    for sign in (1.0, -2.0):
        with torch.no_grad():
            for w, v in zip(weights, vector, strict=True):
                w.add_(v.double(), alpha=sign * step)
        slopes.append(torch.autograd.grad(surface.loss(), weights, allow_unused=True))
    wanted = [
        torch.zeros_like(w) if a is None else (a - b) / (2 * step) for w, a, b in zip(weights, *slopes, strict=True)
    ]
    ours, theirs = (torch.cat([p.double().flatten() for p in parts]) for parts in (found, wanted))
    assert float((ours - theirs).norm() / theirs.norm()) < 5e-3
