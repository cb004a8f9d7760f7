"""SpeechEncoder: a log-mel or waveform front end under a recurrent or transformer trunk."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from torch import Tensor, nn

from ssl_suite.core.batch import SpeechBatch
from ssl_suite.core.check import one_of, within
from ssl_suite.core.encoder import Encoded, Encoder, Tokens, masked_mean
from ssl_suite.encoders.frontend import LogMel, Waveform
from ssl_suite.encoders.positions import ConvPositions
from ssl_suite.encoders.transformer import Dropout, Transformer
from ssl_suite.encoders.trunk import TrunkConfig


class ResidualGRU(nn.Module):
    """Unidirectional GRU layers with residual connections (APC, arXiv:1904.03240); causal by construction.

    The first layer's residual is projected where the widths differ, so that every parameter learns.

    Args:
        input_dim: of the front end.
        dim: of every layer.
        layers: number of GRUs.
        dropout: on each layer's output.
    """

    def __init__(self, input_dim: int, dim: int, layers: int, dropout: float) -> None:
        super().__init__()
        sizes = [input_dim] + [dim] * (layers - 1)
        self.grus = nn.ModuleList(nn.GRU(size, dim, batch_first=True) for size in sizes)
        self.project = nn.Linear(input_dim, dim) if input_dim != dim else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """(B, T, input_dim) → layers + 1 states (B, T, dim); the first is the projected input."""
        states = [self.project(x)]
        for gru in self.grus:
            x = states[-1] + self.dropout(gru(x)[0])
            states.append(x)
        return tuple(states)


class SpeechEncoder(Encoder):
    """Speech to states.

    The defaults of a transformer over waveforms are large wav2vec 2.0's; `conv_norm: group, norm: post` makes base and
    HuBERT of it, and `buckets: 320` WavLM.

    Args:
        frontend: logmel (10 ms) or waveform (20 ms).
        mels: channels of the log-mel front end.
        stack: log-mel frames joined into one state.
        channels: of the waveform front end's convolutions.
        trunk: gru (unidirectional, residual) or transformer.
        dim: width.
        layers: of the trunk.
        heads: attention heads of a transformer.
        causal: a transformer that sees the past only (a gru always does).
        dropout: in the trunk.
        positions: of a transformer that sees both sides: convolution (wav2vec 2.0), which feels where a recording ends,
            or rotary, which knows distances alone. A causal one has rotary ones.
        position_kernel: taps of each convolution for positions.
        position_groups: of each convolution for positions.
        position_layers: convolutions for positions; 5 of kernel 19 in data2vec.
        conv_norm: `layer` norm after every convolution of the waveform front end, or `group` norm after the first.
        conv_bias: whether those convolutions have biases.
        normalize: each waveform to mean 0 and variance 1 before them.
        feature_norm: a layer norm between them and the projection to `dim`; DistilHuBERT has none.
        norm: of a transformer's blocks: pre or post, which has one before the first block too.
        ffn: width of a transformer's feed-forward layers; default 4 · dim.
        layer_drop: how often a transformer's block is passed by in training.
        buckets: of WavLM's gated relative bias beside the positions; 0: none.
        reach: states from which on that bias knows no distances.
    """

    modality = "speech"

    def __init__(
        self,
        frontend: Literal["logmel", "waveform"] = "logmel",
        mels: int = 80,
        stack: int = 1,
        channels: int = 512,
        trunk: Literal["gru", "transformer"] = "gru",
        dim: int = 512,
        layers: int = 3,
        heads: int = 8,
        causal: bool = False,
        dropout: float = 0.1,
        positions: Literal["convolution", "rotary"] = "convolution",
        position_kernel: int = 128,
        position_groups: int = 16,
        position_layers: int = 1,
        conv_norm: Literal["layer", "group"] = "layer",
        conv_bias: bool = False,
        normalize: bool = False,
        feature_norm: bool = True,
        norm: Literal["pre", "post"] = "pre",
        ffn: int | None = None,
        layer_drop: float = 0.0,
        buckets: int = 0,
        reach: int = 800,
    ) -> None:
        super().__init__()
        one_of("frontend", frontend, ("logmel", "waveform"))
        one_of("trunk", trunk, ("gru", "transformer"))
        one_of("positions", positions, ("convolution", "rotary"))
        one_of("norm", norm, ("pre", "post"))
        for name, value in (("channels", channels), ("dim", dim), ("heads", heads)):
            within(name, value, low=1, whole=True)
        within("layers", layers, low=1, high=10_000, whole=True)
        within("dropout", dropout, low=0, below=1)
        wave = frontend == "waveform"
        self.frontend = Waveform(channels, conv_norm, conv_bias, normalize) if wave else LogMel(mels, stack)
        self.dim, self.num_states, self.stride = dim, layers + 1, self.frontend.stride
        self.causal = causal or trunk == "gru"
        self.feature_norm = nn.LayerNorm(channels) if wave and feature_norm else nn.Identity()
        self.project: nn.Module = nn.Identity()  # a gru has its own
        if trunk == "gru":
            self.trunk: nn.Module = ResidualGRU(self.frontend.dim, dim, layers, dropout)
            return
        rotary = causal or positions == "rotary"
        self.project = nn.Linear(self.frontend.dim, dim)
        self.positions = None if rotary else ConvPositions(dim, position_kernel, position_groups, position_layers)
        self.norm = nn.LayerNorm(dim) if norm == "post" else nn.Identity()
        self.dropout = Dropout(dropout)
        kind: Literal["rotary", "none"] = "rotary" if rotary else "none"
        shape = TrunkConfig(dim, layers, heads, causal, norm, positions=kind, ffn=ffn, dropout=dropout)
        self.trunk = Transformer(replace(shape, layer_drop=layer_drop, buckets=buckets, reach=reach))

    def embed(self, batch: SpeechBatch) -> Tokens:
        return self.enter(*self.frontend(batch))

    def enter(self, frames: Tensor, mask: Tensor) -> Tokens:
        """Front-end output (B, T, ·) → what the trunk reads: features of a waveform normalised, then projected."""
        return Tokens(self.project(self.feature_norm(frames)), mask)

    def contextualise(self, tokens: Tokens) -> Encoded:
        if isinstance(self.trunk, ResidualGRU):
            states = self.trunk(tokens.whole("A gru").values, tokens.mask)
        else:
            x = tokens.values if self.positions is None else self.positions(tokens)
            states = self.trunk(self.dropout(self.norm(x)), tokens.mask, places=tokens.places)
        return Encoded(states, tokens.mask, masked_mean(states[-1], tokens.mask))

    def blocks(self) -> list[nn.Module]:
        return [] if isinstance(self.trunk, ResidualGRU) else list(self.trunk.blocks)  # type: ignore[arg-type]

    def feed_forwards(self) -> list[nn.Module]:
        return [block.feed_forward for block in self.blocks()]  # type: ignore[misc]

    def layers(self) -> list[list[nn.Parameter]]:
        blocks = self.trunk.grus if isinstance(self.trunk, ResidualGRU) else self.trunk.blocks
        above = [list(block.parameters()) for block in blocks]  # type: ignore[union-attr]
        above[-1] += getattr(self.trunk, "norm", nn.Identity()).parameters()
        known = {id(p) for layer in above for p in layer}
        return [[p for p in self.parameters() if id(p) not in known], *above]
