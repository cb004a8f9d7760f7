"""Layerwise: what judges the states of a frozen encoder as they are, in each of its layers; nothing is trained."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from torch import Tensor

from ssl_suite.core.batch import IGNORE
from ssl_suite.core.check import one_of, within
from ssl_suite.core.encoder import Encoder
from ssl_suite.core.errors import UserError
from ssl_suite.core.module import Evaluation
from ssl_suite.core.optim import Optim
from ssl_suite.core.outcomes import Example, gathered
from ssl_suite.core.request import Request

Layers = Literal["all"] | Sequence[int]
Protocol = Literal["strict", "compat"]


@dataclass(frozen=True)
class Judged:
    """A layer on a split.

    Attributes:
        figures: by name.
        examples: what the main one is made of, see `core.outcomes`.
    """

    figures: Mapping[str, float]
    examples: list[Example]


class Layerwise(Evaluation):
    """Base of ABX and QueryByExample.

    The main figures are of one layer; where several are asked for, those of each stand beside them (`NAME_layer_K`).
    The one layer is chosen on the validation split (`strict`), or on the very split that is scored (`compat`, as many
    published rows were); the protocol of a result says which.

    Args:
        encoder: an encoder, or where to find it.
        layers: which states: 0 is what enters the first block, -1 the output.
        protocol: `strict` or `compat`.

    Attributes:
        tunes: whether the validation split chooses more than the layer.
    """

    tunes: bool = False

    def __init__(self, encoder: Encoder | str, layers: Layers = "all", protocol: Protocol = "strict") -> None:
        super().__init__(encoder, Optim())
        one_of("model.protocol", protocol, ("strict", "compat"))
        states = self.encoder.num_states
        if isinstance(layers, str):
            one_of("model.layers", layers, ("all",))
            layers = range(states)
        for layer in layers:
            within("model.layers", layer, low=-states, high=states - 1, whole=True)
        if not layers:
            raise UserError("model.layers is empty; name some, such as [6], or all.")
        self.layers = list(dict.fromkeys(layer % states for layer in layers))
        self.strict = protocol == "strict"
        self.less_is_better |= {f"{name}_layer_{layer}" for name in self.less_is_better for layer in self.layers}
        self.encoder.requires_grad_(False).eval()
        self._kept: dict[str, dict[int, Any]] = {}  # split → place in it → what `item` made
        self._items: dict[str, list[Any]] = {}
        self._examples: dict[str, list[Example]] = {}

    @property
    @abstractmethod
    def target(self) -> str | dict[str, str] | None:
        """Kind of target that is asked of the data."""

    @abstractmethod
    def item(self, split: str, batch: Any, row: int, states: list[Tensor]) -> Any:
        """What is kept of an item.

        Args:
            split: of the item.
            batch: that it is in.
            row: of the batch.
            states: (T, D) of each of `layers`.
        """

    @abstractmethod
    def judge(self, split: str, number: int, tuned: Mapping[str, float] | None) -> Judged:
        """Judges a layer.

        Args:
            split: whose `items` are looked at.
            number: place of the layer in `layers`.
            tuned: its figures on the validation split, where that was asked before.
        """

    @property
    def protocol(self) -> str:
        return self.mode if self.strict else f"{self.mode}-compat"

    @property
    def labels_used(self) -> int:
        return 0

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            raise UserError(f"{type(self).__name__} trains nothing; use `ssl-suite test` with the same options.")
        self.data.serve(Request.of(self.encoder, target=self.target))
        for parts in (self.data.parts("validation"), self.data.parts("test")):
            if len(there := [name for name in parts if self.data.has(name)]) > 1:
                raise UserError(f"{type(self).__name__} judges one split, not {' and '.join(there)}; read one of them.")
        if stage == "test" and self._tuning and not self.data.has("validation"):
            what = "the threshold is" if len(self.layers) == 1 else "the layer is"
            raise UserError(
                f"{self.data.source_name} has no validation split, on which {what} chosen; give one "
                "(--data.validation), say which, or choose on the test split (--model.protocol compat)."
            )

    @property
    def _tuning(self) -> bool:
        return self.strict and (self.tunes or len(self.layers) > 1)

    def labels(self, batch: Any, row: int) -> dict[str, Any]:
        """What the targets of an item stand for, by slots: a name, or a list of names."""
        if not isinstance(batch.target, dict):
            raise UserError(f"{self.data.source_name} lacks the columns {', '.join(self.target or ())} in a split.")
        labels, unseen = cast(dict[str, list[str]], self.data.labels), cast(dict[str, list[str]], self.data.unseen)

        def named(slot: str, ids: Any) -> Any:
            if isinstance(ids, list):
                return [named(slot, number) for number in ids if number != IGNORE]
            return labels[slot][ids] if ids < len(labels[slot]) else unseen[slot][ids - len(labels[slot])]

        return {slot: named(slot, values[row].tolist()) for slot, values in batch.target.items()}

    def items(self, split: str) -> list[Any]:
        """What was kept of each item of a split, of all ranks; it is encoded now if it has not been."""
        if split not in self._items:
            if split not in self._kept:
                self._kept[split] = {}
                for batch in self.data.eval_dataloader(split):
                    self._keep(split, self.data.on_after_batch_transfer(batch.to(self.device), 0))
            rows = dict(gathered(list(self._kept.pop(split).items())))
            self._items[split] = [rows[place] for place in sorted(rows)]
        return self._items[split]

    def _keep(self, split: str, batch: Any) -> None:
        encoded = self.encoder.eval()(batch)
        mask, states = encoded.mask.cpu(), [encoded.states[layer].float().cpu() for layer in self.layers]
        for row, place in enumerate(batch.index.tolist()):
            own = [values[row][mask[row]] for values in states]
            self._kept[split][place] = self.item(split, batch, row, own)

    def _report(self, prefix: str, split: str) -> None:
        numbers = range(len(self.layers))
        tuning = [self.judge("validation", n, None) for n in numbers] if split == "test" and self._tuning else None
        found = [self.judge(split, n, tuning[n].figures if tuning else None) for n in numbers]
        sign = -1 if self.main in self.less_is_better else 1
        best = max(numbers, key=lambda n: sign * (tuning or found)[n].figures[self.main])
        for name, value in found[best].figures.items():
            self.log(f"{prefix}/{name}", value, prog_bar=name == self.main)
        for layer, judged in zip(self.layers, found, strict=True):
            for name, value in judged.figures.items() if len(self.layers) > 1 else ():
                self.log(f"{prefix}/{name}_layer_{layer}", value)
        if len(self.layers) > 1:
            self.log(f"{prefix}/layer", float(self.layers[best]))
        self._examples[split] = found[best].examples
        self._items.clear()

    def examples(self, split: str) -> list[Example]:
        return self._examples.get(split, [])

    def on_validation_epoch_start(self) -> None:
        self._kept = {"validation": {}}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._keep("validation", batch)

    def on_validation_epoch_end(self) -> None:
        self._report("val", "validation")

    def on_test_epoch_start(self) -> None:
        self._kept = {"test": {}}

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._keep("test", batch)

    def on_test_epoch_end(self) -> None:
        self._report("test", "test")
