"""The loss as a function of all weights: its value at a point, along directions, and how sharp it is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_suite.analysis.states import spread
from ssl_suite.core.data import DataModule
from ssl_suite.core.finetune import Finetune

STEP = 1e-3
"""How far gradients are compared, as a share of the length of all weights together."""
Point = dict[str, Tensor]
"""All parameters of a model by name, on its device."""


class Surface:
    """J(θ): the loss of a fine-tuned model on some fixed items, without dropout.

    Args:
        model: whose parameters are set to each point; buffers stay as they are.
        data: of its task.
        split: whose items are used.
        wanted: at most so many, evenly over the split.
    """

    def __init__(self, model: Finetune, data: DataModule, split: str = "train", wanted: int = 256) -> None:
        self.model = model.eval()
        model.requires_grad_(True)
        chosen, size = spread(data.size(split), wanted), data.eval_batch_size
        parts = (chosen[i : i + size] for i in range(0, len(chosen), size))
        batches = (data.collate([data.read(split, i, seed=0) for i in part]) for part in parts)
        self.batches = [data.finish(batch.to(model.device)) for batch in batches]
        self.items = len(chosen)

    def set(self, point: Point) -> None:
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(point[name])

    def loss(self) -> Tensor:
        """J where the model stands: the mean of the task's loss over batches, weighted by their items."""
        total = torch.zeros((), device=self.model.device)
        for batch in self.batches:
            output, mask = self.model(batch)
            assert batch.target is not None
            total = total + self.model.task.loss(output, mask, batch.target) * len(batch)
        return total / self.items

    @torch.no_grad()
    def at(self, origin: Point, directions: Sequence[Point] = (), steps: Sequence[float] = ()) -> float:
        """J(θ₀ + Σ αᵢ δᵢ)."""
        self.set(moved(origin, directions, steps))
        return float(self.loss())

    def along(self, origin: Point, direction: Point, steps: Sequence[float]) -> list[float]:
        """f(α) = J(θ₀ + α δ)."""
        return [self.at(origin, [direction], [step]) for step in steps]

    def over(
        self, origin: Point, directions: tuple[Point, Point], across: Sequence[float], up: Sequence[float]
    ) -> NDArray[Any]:
        """f(α, β) = J(θ₀ + α δ₁ + β δ₂), (len(up), len(across))."""
        return np.array([[self.at(origin, directions, (a, b)) for a in across] for b in up])

    def sharpness(self, point: Point, rounds: int = 30, tolerance: float = 1e-2, seed: int = 0) -> float:
        """The eigenvalue of greatest size of J's Hessian, by power iteration on products of it and a vector.

        Args:
            point: where.
            rounds: products at most.
            tolerance: relative change at which it stops.
            seed: of the first vector.
        """
        self.set(point)
        weights = list(self.model.parameters())
        generator = torch.Generator().manual_seed(seed)
        vector = [torch.randn(w.shape, generator=generator).to(w) for w in weights]
        value = 0.0
        for _ in range(rounds):
            size = _norm(vector)
            vector = [v / size for v in vector]
            product = self._hessian_times(weights, vector)
            before, value = value, float(sum((v * p).sum() for v, p in zip(vector, product, strict=True)))
            if abs(value - before) <= tolerance * abs(value) or not _norm(product):
                break
            vector = product
        return value

    def _hessian_times(self, weights: list[Any], vector: list[Tensor]) -> list[Tensor]:
        """(∇J(θ + εv) − ∇J(θ − εv)) / 2ε of a unit vector v.

        By differences, as kernels with a backward of their own (SDPA's, the suite's on CPUs) have no second derivative,
        and autograd does not always say so. ε is a compromise of its error and of float32's.
        """
        step = STEP * max(_norm(weights), 1.0)
        slopes = []
        for sign in (1.0, -2.0):
            with torch.no_grad():
                for w, v in zip(weights, vector, strict=True):
                    w.add_(v, alpha=sign * step)
            with torch.enable_grad():
                slopes.append(torch.autograd.grad(self.loss(), weights, allow_unused=True))
        with torch.no_grad():
            for w, v in zip(weights, vector, strict=True):
                w.add_(v, alpha=step)
        pairs = zip(weights, *slopes, strict=True)
        return [torch.zeros_like(w) if a is None else (a - b) / (2 * step) for w, a, b in pairs]


def moved(origin: Point, directions: Sequence[Point], steps: Sequence[float]) -> Point:
    """θ₀ + Σ αᵢ δᵢ; a direction is 0 where it has no such parameter."""
    point = dict(origin)
    for direction, step in zip(directions, steps, strict=True):
        for name, delta in direction.items():
            point[name] = point[name] + step * delta
    return point


def difference(end: Point, start: Point) -> Point:
    return {name: end[name] - start[name] for name in start}


def projected(point: Point, origin: Point, directions: Sequence[Point]) -> NDArray[Any]:
    """(len(directions),) steps whose Σ αᵢ δᵢ is nearest to θ − θ₀, by least squares."""
    way = difference(point, origin)
    gram = np.array([[_dot(a, b) for b in directions] for a in directions])
    return np.linalg.lstsq(gram, np.array([_dot(way, d) for d in directions]))[0]


def length(direction: Point) -> float:
    return _dot(direction, direction) ** 0.5


def _dot(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    return float(sum((a[name].double() * b[name].double()).sum() for name in a.keys() & b.keys()))


def _norm(vector: Sequence[Tensor]) -> float:
    return float(sum(v.double().square().sum() for v in vector)) ** 0.5
