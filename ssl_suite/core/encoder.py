"""Encoder: batch → Encoded. Knows its modality and width; knows nothing about training."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from dataclasses import replace as changed
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ssl_suite.core.batch import Batch, JointBatch
from ssl_suite.core.errors import UserError, nearest
from ssl_suite.core.term import Term
from ssl_suite.plugins import load_all

if TYPE_CHECKING:
    from ssl_suite.core.tensor_parallel import Plan

Modality = Literal["text", "image", "speech"]
SUITE = "ssl_suite"


@dataclass(eq=False)
class Tokens:
    """An input position by position, as an encoder's trunk reads it; a method may keep some or replace some.

    Attributes:
        values: (B, T, E), absolute positions added; relative ones are the trunk's, so that what is dropped or replaced
            does not shine through its neighbours.
        positions: (B, T, E) of `values`, those absolute positions, where they are a plain sum (images).
        mask: (B, T) True = real.
        prefix: (B, P, E) class and register tokens, which stand apart and are always kept; None where there are none.
        places: (B, T) of a subset, where in the whole each token stands; None for the whole.
        length: positions of the whole.
        grid: rows and columns of an image's whole, which lies row by row; None for a sequence.
        documents: (B, T) which document of its row a token of packed text belongs to.
        dense: no False in `mask`; known on the host, so that attention needs no mask.
    """

    values: Tensor
    mask: Tensor
    prefix: Tensor | None = None
    places: Tensor | None = None
    grid: tuple[int, int] | None = None
    documents: Tensor | None = None
    dense: bool = False
    length: int = 0
    positions: Tensor | None = None

    def __post_init__(self) -> None:
        self.length = self.length or self.values.shape[1]

    def keep(self, places: Tensor, mask: Tensor | None = None) -> Tokens:
        """Returns the tokens at some places alone, of M selections an item.

        Args:
            places: (M·B, K), the M selections of an item one after the other, each ascending.
            mask: (M·B, K) False where a row has fewer than K; None where none has.

        Returns:
            Tokens (M·B, K, E).
        """
        if self.places is not None:
            raise ValueError("these tokens are a subset already")
        times = len(places) // len(self.values)
        row = torch.arange(len(places), device=places.device)[:, None] // times  # (M·B, 1)
        real = self.mask[row, places]
        return changed(
            self,
            values=self.values[row, places],
            mask=real if mask is None else real & mask,
            prefix=None if self.prefix is None else self.prefix[row[:, 0]],
            places=places,
            documents=None if self.documents is None else self.documents[row, places],
            positions=None if self.positions is None else self.positions[row, places],
            dense=self.dense and mask is None,
        )

    def replace(self, where: Tensor, by: Tensor) -> Tokens:
        """Returns these tokens with `by`, (E,) or (B, T, E), wherever (B, T) `where` is True.

        What is put there stands where the other stood: `positions` are added to it.
        """
        placed = by if self.positions is None else by + self.positions
        return changed(self, values=torch.where(where[..., None], placed.to(self.values.dtype), self.values))

    def whole(self, reader: str) -> Tokens:
        """Returns them as they are; raises UserError where some were left out, which `reader` cannot do without."""
        if self.places is not None:
            raise UserError(f"{reader} reads every position; it cannot encode the visible ones alone.")
        return self


@dataclass(eq=False)
class Encoded:
    """What an encoder returns.

    Attributes:
        states: `num_states` tensors (B, T, D); the last is the output, the first the input embedding.
        mask: (B, T) True = real.
        pooled: (B, D), the encoder's own summary of the sequence.
        means: (B, D) for each state, what stands for its mean over time where its positions average to nothing, because
            each input was normalised along them; None: their mean is meant.
        prefix: (B, P, D) output of class and register tokens; None where there are none.
        losses: what the encoder itself asks to be added to the loss while it learns: the balance of its experts.
    """

    states: Sequence[Tensor]
    mask: Tensor
    pooled: Tensor
    means: tuple[Tensor, ...] | None = None
    prefix: Tensor | None = None
    losses: dict[str, Term] = field(default_factory=dict)


class Encoder(nn.Module, ABC):
    """Base of all encoders: `embed` makes tokens of a batch, `contextualise` runs the trunk on them.

    A subclass takes plain values (numbers, strings, lists) in its constructor: they are kept in `config`, written to
    `config.json` beside the weights, and are all that is needed to build it again.

    Attributes:
        modality: which batch it reads.
        dim: D, the width of the output.
        num_states: how many states `forward` returns.
        stride: input units per state along T (samples for speech, pixels for images, tokens for text).
        widths: of each state; all are D but in networks of stages.
        class_token: whether a position summarises the others: the first of the prefix, else of the sequence.
        longest: most tokens it reads; None for any number.
        tokenizer: for text, the tokenizer its ids come from.
        heads: weights of the pretraining head(s) that belong to it, kept beside it in its folder; see `Method.heads`.
        preprocess: options of the data it learned from that change what it sees (`image_size`); kept with it, so that
            whoever uses it need not know them.
        asks: names of the losses it asks to be added while it learns, each a mean: counted once a batch.
        baseline: of a simple baseline, its name in results; empty for encoders that learn.
        trained: whether its weights were learned elsewhere, rather than drawn just now.
    """

    registry: ClassVar[dict[str, type[Encoder]]] = {}

    modality: Modality
    dim: int
    num_states: int
    stride: int = 1
    class_token: bool = False
    longest: int | None = None
    tokenizer: Any = None
    heads: dict[str, Tensor]
    preprocess: dict[str, Any]
    asks: tuple[str, ...] = ()
    baseline: ClassVar[str] = ""
    trained: bool = False
    config: dict[str, Any]
    _learning: list[nn.Parameter]
    _required: ClassVar = ("modality", "dim", "num_states")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not inspect.isabstract(cls):
            Encoder.registry[f"{cls.__module__}.{cls.__qualname__}"] = cls

    def __new__(cls, *args: Any, **kwargs: Any) -> Encoder:
        self = super().__new__(cls)
        bound = inspect.signature(cls.__init__).bind_partial(self, *args, **kwargs)  # deepcopy passes none
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        arguments.pop("self")
        object.__setattr__(self, "heads", {})
        object.__setattr__(self, "preprocess", {})
        object.__setattr__(self, "_learning", [])
        object.__setattr__(self, "config", {k: list(v) if isinstance(v, tuple) else v for k, v in arguments.items()})
        return self

    @abstractmethod
    def embed(self, batch: Any) -> Tokens:
        """A batch of this encoder's modality → what its trunk reads."""

    @abstractmethod
    def contextualise(self, tokens: Tokens) -> Encoded:
        """Runs the trunk on all tokens, or on a subset of them at the cost of that subset."""

    def forward(self, batch: Any) -> Encoded:
        """Encodes a batch of this encoder's modality."""
        return self.contextualise(self.embed(batch))

    @property
    def widths(self) -> tuple[int, ...]:
        return (self.dim,) * self.num_states

    def output_at(self, batch: Any, at: tuple[Tensor, ...], losses: dict[str, Term] | None = None) -> Tensor:
        """Returns the output (M, D) at the places `at`, from `nonzero(as_tuple=True)`; cheaper if overridden.

        What the encoder asks to be added to the loss, see `Encoded.losses`, is put into `losses`.
        """
        encoded = self(batch)
        if losses is not None:
            losses |= encoded.losses
        return encoded.states[-1][at]

    def check(self) -> None:
        """Raises UserError naming every member of the contract that is missing."""
        missing = [name for name in self._required if getattr(self, name, None) is None]
        if missing:
            raise UserError(f"Encoder {type(self).__name__} does not set {', '.join(missing)}.")

    def layers(self) -> list[list[nn.Parameter]]:
        """Parameters from the input upwards, one list a layer, for layer-wise learning rates; default: one layer."""
        return [list(self.parameters())]

    def blocks(self) -> list[nn.Module]:
        """Parts that run through their own `forward`, compiled and sharded one by one; default: none."""
        return []

    def tensor_plan(self, size: int) -> Plan:
        """How its matrices are cut over `size` processes, see `core.tensor_parallel`.

        Raises:
            UserError: they cannot be.
        """
        raise UserError(
            f"{type(self).__name__} cannot be cut over a tensor-parallel group; take configs/trainer/fsdp.yaml."
        )

    def unread(self) -> list[nn.Parameter]:
        """Parameters that its states do not depend on, as of a decoder: `Finetune` leaves them as they are."""
        return []

    def feed_forwards(self) -> list[nn.Module]:
        """Of each block the part whose output is added last; see `core.outputs`. Default: none."""
        return []

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compiles its blocks, which every way through the encoder runs; where it has none, its `forward`."""
        for block in self.blocks():
            block.compile(*args, **kwargs)
        if not self.blocks():
            super().compile(*args, **kwargs)

    def freeze(self) -> None:
        """Stops all learning, until `thaw`."""
        self.stop(list(self.parameters()))
        self.eval()

    def stop(self, parameters: list[nn.Parameter]) -> None:
        """Stops these from learning, until `thaw`."""
        self._learning += [p for p in parameters if p.requires_grad]
        for parameter in parameters:
            parameter.requires_grad_(False)

    def thaw(self) -> None:
        """Lets what `freeze` has stopped learn again."""
        for parameter in self._learning:
            parameter.requires_grad_(True)
        self._learning.clear()
        self.train()

    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters())


def class_name(cls: type[Encoder]) -> str:
    """How a file names an encoder class: one of the suite by its short name, any other as PACKAGE.NAME."""
    package = _package(cls)
    return cls.__name__ if package in (SUITE, "__main__") else f"{package}.{cls.__name__}"


def encoder_class(name: str) -> type[Encoder]:
    """Looks a class up among those of the suite and its plug-ins; a file can name nothing else.

    A short name is the suite's, whatever else has it.

    Raises:
        UserError: there is no such class, or several.
    """
    if not (ours := _called(name, SUITE)):
        load_all()
        ours = _called(name, SUITE)
    found = ours or _called(name)
    if not found:
        raise UserError(f"{name!r} is not an encoder class known here.{nearest(name, encoder_names())}")
    if len(found) > 1:
        several = " and ".join(full_names(name))
        raise UserError(f"{name!r} is the name of several encoder classes, {several}; have one renamed.")
    return found[0]


def full_names(name: str) -> list[str]:
    """Of the classes that are called so and known by now."""
    return [f"{cls.__module__}.{cls.__qualname__}" for cls in _called(name)]


def encoder_names() -> list[str]:
    """Of all classes known by now."""
    return [class_name(cls) for cls in Encoder.registry.values()]


def _called(name: str, package: str = "") -> list[type[Encoder]]:
    """Classes of this name, of one package or of any."""
    own, _, short = name.rpartition(".")
    wanted = {own, package} - {""}
    return [c for c in Encoder.registry.values() if c.__name__ == short and wanted <= {_package(c)}]


def _package(cls: type) -> str:
    return cls.__module__.partition(".")[0]


def an(modality: str) -> str:
    """`an image`, `a text`: for messages."""
    return f"{'an' if modality[0] in 'aeiou' else 'a'} {modality}"


def expect(encoder: Encoder, modality: Modality, asker: str) -> None:
    """Raises UserError unless `encoder` reads `modality`."""
    if encoder.modality != modality:
        raise UserError(f"{asker} needs {an(modality)} encoder; {type(encoder).__name__} reads {encoder.modality}.")


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of (B, T, D) over the True positions of (B, T); zeros where none is."""
    weight = mask.unsqueeze(-1).to(values.dtype)
    return (values * weight).sum(1) / weight.sum(1).clamp(min=1)


def over_time(x: Tensor, mask: Tensor, eps: float = 1e-5) -> Tensor:
    """Mean 0 and variance 1 of each feature of (B, T, D) over the real positions of each item."""
    weight = mask[..., None].to(x.dtype)
    count = weight.sum(1, keepdim=True).clamp(min=1)
    mean = (x * weight).sum(1, keepdim=True) / count
    variance = ((x - mean).square() * weight).sum(1, keepdim=True) / count
    return (x - mean) * (variance + eps).rsqrt() * weight


def batch_units(batch: Batch) -> tuple[Tensor | float, str]:
    """Returns how much a batch holds in its modality's own unit, without waiting for the device."""
    if isinstance(batch, JointBatch) or hasattr(batch, "features"):
        return float(len(batch)), "items/s"
    mask = getattr(batch, "mask", None)
    if mask is not None:
        return mask.sum(), "tokens/s"
    if isinstance(lengths := getattr(batch, "lengths", None), torch.Tensor):
        return lengths.sum() / batch.rate, "audio-s/s"  # type: ignore[attr-defined]
    return float(len(batch)), "images/s"
