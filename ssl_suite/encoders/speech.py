"""SpeechEncoder: a log-mel or waveform front end under a recurrent or transformer trunk."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.transforms import MelSpectrogram

from ssl_suite.core.batch import SpeechBatch, lengths_to_mask
from ssl_suite.core.check import one_of, within
from ssl_suite.core.encoder import Encoded, Encoder, Tokens, masked_mean
from ssl_suite.core.errors import UserError
from ssl_suite.encoders.transformer import Transformer, TrunkConfig

RATE, WINDOW, HOP = 16000, 400, 160
"""25 ms windows every 10 ms, as all log-mel upstreams of SUPERB."""


def normalize_frames(x: Tensor, mask: Tensor) -> Tensor:
    """Per utterance and channel: mean 0, variance 1 over the real frames (CMVN); zeros in the padding."""
    weight = mask[..., None].to(x.dtype)
    count = weight.sum(1, keepdim=True).clamp(min=1)
    mean = (x * weight).sum(1, keepdim=True) / count
    variance = ((x - mean).square() * weight).sum(1, keepdim=True) / count
    return (x - mean) / (variance + 1e-5).sqrt() * weight


class LogMel(nn.Module):
    """Waveform → (B, T, mels) log-mel frames, normalised per utterance.

    Args:
        mels: number of channels.
        stack: consecutive frames joined into one, `stack` · 10 ms a state.
    """

    def __init__(self, mels: int = 80, stack: int = 1) -> None:
        super().__init__()
        within("mels", mels, low=1, high=WINDOW // 2 + 1, whole=True)
        within("stack", stack, low=1, high=1000, whole=True)
        self.dim, self.stack, self.stride = mels * stack, stack, HOP * stack
        self.mel = MelSpectrogram(RATE, n_fft=WINDOW, hop_length=HOP, n_mels=mels, center=True, pad_mode="constant")
        for name, buffer in self.mel.named_buffers():  # constants: not part of the weights
            module, _, key = name.rpartition(".")
            self.mel.get_submodule(module).register_buffer(key, buffer, persistent=False)

    def frames(self, lengths: Tensor) -> Tensor:
        """Samples → frames; the last may reach into the zeros after the end."""
        return (lengths // HOP + self.stack) // self.stack

    def energies(self, batch: SpeechBatch) -> tuple[Tensor, Tensor]:
        """(B, T, mels) log energies every 10 ms, and which are real."""
        with torch.autocast(batch.wave.device.type, enabled=False):
            logmel = (self.mel(batch.wave.float()) + 1e-6).log().transpose(1, 2)
        return logmel, lengths_to_mask(batch.lengths // HOP + 1, logmel.shape[1])

    def normalize(self, energies: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Normalises and stacks what `energies` gave."""
        frames = normalize_frames(energies, mask)
        if self.stack > 1:
            pad = -frames.shape[1] % self.stack
            frames = F.pad(frames, (0, 0, 0, pad)).reshape(len(frames), -1, self.dim)
            mask = F.pad(mask, (0, pad)).view(len(mask), -1, self.stack).any(-1)
        return frames, mask

    def forward(self, batch: SpeechBatch) -> tuple[Tensor, Tensor]:
        return self.normalize(*self.energies(batch))


class Waveform(nn.Module):
    """The strided convolutions of wav2vec 2.0 (arXiv:2006.11477): 320 samples a state, layer norm after each.

    Layer norm over channels, rather than base's group norm over time, does not see the padding.

    Args:
        channels: of every convolution; 512 in the paper.
    """

    kernels, strides = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
    stride = 320

    def __init__(self, channels: int = 512) -> None:
        super().__init__()
        self.dim = channels
        widths = [1] + [channels] * len(self.kernels)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(i, o, k, s, bias=False)
            for i, o, k, s in zip(widths[:-1], widths[1:], self.kernels, self.strides, strict=True)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in self.kernels)

    def frames(self, lengths: Tensor) -> Tensor:
        for k, s in zip(self.kernels, self.strides, strict=True):
            lengths = ((lengths - k) // s + 1).clamp(min=0)
        return lengths.clamp(min=1)

    def forward(self, batch: SpeechBatch) -> tuple[Tensor, Tensor]:
        x = F.pad(batch.wave, (0, max(0, WINDOW - batch.wave.shape[1])))[:, None]
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.gelu(norm(convolution(x).transpose(1, 2)).transpose(1, 2))
        return x.transpose(1, 2), lengths_to_mask(self.frames(batch.lengths), x.shape[2])


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


class ConvPositions(nn.Module):
    """Relative positions by a grouped convolution over time (wav2vec 2.0); padding stays zero."""

    def __init__(self, dim: int, kernel: int = 65, groups: int = 16) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=groups)

    def forward(self, tokens: Tokens) -> Tensor:
        """(B, T, D) with positions; what a subset leaves out is silence."""
        x = tokens.values * tokens.mask[..., None]
        if tokens.places is None:
            return x + self._relative(x)
        places = tokens.places[..., None].expand_as(x)
        whole = x.new_zeros(len(x), tokens.length, x.shape[2]).scatter_add(1, places, x)
        return x + self._relative(whole).gather(1, places)

    def _relative(self, x: Tensor) -> Tensor:
        return F.gelu(self.convolution(x.transpose(1, 2)).transpose(1, 2))


class SpeechEncoder(Encoder):
    """Speech to states.

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
        positions: of a transformer that sees both sides: a convolution (wav2vec 2.0), which feels where a recording
            ends, or rotary, which knows distances alone. A causal one has rotary ones.
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
    ) -> None:
        super().__init__()
        one_of("positions", positions, ("convolution", "rotary"))
        for name, value in (("channels", channels), ("dim", dim), ("heads", heads)):
            within(name, value, low=1, whole=True)
        within("layers", layers, low=1, high=10_000, whole=True)
        within("dropout", dropout, low=0, below=1)
        self.frontend = LogMel(mels, stack) if frontend == "logmel" else Waveform(channels)
        self.dim, self.num_states, self.stride = dim, layers + 1, self.frontend.stride
        self.causal = causal or trunk == "gru"
        if trunk == "gru":
            self.trunk: nn.Module = ResidualGRU(self.frontend.dim, dim, layers, dropout)
        elif dim % 16:
            raise UserError(f"A transformer over speech needs dim divisible by 16, not {dim}.")
        else:
            rotary = causal or positions == "rotary"
            self.project = nn.Linear(self.frontend.dim, dim)
            self.positions = None if rotary else ConvPositions(dim)
            kind: Literal["rotary", "none"] = "rotary" if rotary else "none"
            config = TrunkConfig(dim, layers, heads, causal, positions=kind, dropout=dropout)
            self.trunk = Transformer(config)

    def embed(self, batch: SpeechBatch) -> Tokens:
        return self.enter(*self.frontend(batch))

    def enter(self, frames: Tensor, mask: Tensor) -> Tokens:
        """Front-end output (B, T, ·) → what the trunk reads; a gru projects the frames itself."""
        return Tokens(frames if isinstance(self.trunk, ResidualGRU) else self.project(frames), mask)

    def contextualise(self, tokens: Tokens) -> Encoded:
        if isinstance(self.trunk, ResidualGRU):
            states = self.trunk(tokens.whole("A gru").values, tokens.mask)
        else:
            x = tokens.values if self.positions is None else self.positions(tokens)
            states = self.trunk(x, tokens.mask, places=tokens.places)
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
