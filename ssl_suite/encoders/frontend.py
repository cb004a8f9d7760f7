"""Front ends of speech: a padded batch of waveforms → frames and which of them are real."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.compliance.kaldi import get_mel_banks
from torchaudio.functional import compute_deltas, create_dct
from torchaudio.transforms import MelSpectrogram

from ssl_suite.core.batch import SpeechBatch, lengths_to_mask
from ssl_suite.core.check import one_of, within
from ssl_suite.encoders.strided import convolve

RATE, WINDOW, HOP = 16000, 400, 160
"""25 ms windows every 10 ms, as all log-mel upstreams of SUPERB."""

Count = TypeVar("Count", int, Tensor)


def at_least_one(count: Count) -> Count:
    return count.clamp(min=1) if isinstance(count, Tensor) else max(1, count)


def normalize_frames(x: Tensor, mask: Tensor, eps: float = 1e-5) -> Tensor:
    """Per utterance and channel: mean 0, variance 1 over the real frames (CMVN); zeros in the padding."""
    weight = mask[..., None].to(x.dtype)
    count = weight.sum(1, keepdim=True).clamp(min=1)
    mean = (x * weight).sum(1, keepdim=True) / count
    variance = ((x - mean).square() * weight).sum(1, keepdim=True) / count
    return (x - mean) / (variance + eps).sqrt() * weight


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
        self.mels, self.stack, self.dim, self.stride = mels, stack, mels * stack, HOP * stack
        self.mel = MelSpectrogram(RATE, n_fft=WINDOW, hop_length=HOP, n_mels=mels, center=True, pad_mode="constant")
        for name, buffer in self.mel.named_buffers():  # constants: not part of the weights
            module, _, key = name.rpartition(".")
            self.mel.get_submodule(module).register_buffer(key, buffer, persistent=False)

    def frames(self, lengths: Count) -> Count:
        """Samples → frames; the last may reach into the zeros after the end."""
        return (lengths // HOP + self.stack) // self.stack

    def energies(self, batch: SpeechBatch) -> tuple[Tensor, Tensor]:
        """(B, T, mels) log energies every 10 ms, and which are real."""
        with torch.autocast(batch.wave.device.type, enabled=False):
            logmel = (self.mel(batch.wave.float()) + 1e-6).log().transpose(1, 2)
        return logmel, lengths_to_mask(batch.lengths // HOP + 1, logmel.shape[1])

    def normalize(self, energies: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Normalises and stacks what `energies` gave."""
        return self.stacked(normalize_frames(energies, mask), mask)

    def stacked(self, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, mels), 0 in the padding → (B, ⌈T / stack⌉, stack · mels), and which are real."""
        if self.stack > 1:
            pad = -frames.shape[1] % self.stack
            frames = F.pad(frames, (0, 0, 0, pad)).reshape(len(frames), -1, self.dim)
            mask = F.pad(mask, (0, pad)).view(len(mask), -1, self.stack).any(-1)
        return frames, mask

    def forward(self, batch: SpeechBatch) -> tuple[Tensor, Tensor]:
        return self.normalize(*self.energies(batch))


class MelCepstra(nn.Module):
    """Waveform → (B, T, 39) thirteen cepstra every 10 ms, their differences and those of these, as Kaldi has them.

    HuBERT's first units are clusters of them (arXiv:2106.07447, section IV.B).
    """

    dim, stride = 39, HOP
    window: Tensor
    banks: Tensor
    cosines: Tensor

    def __init__(self) -> None:
        super().__init__()
        banks = get_mel_banks(23, 512, float(RATE), 20.0, 0.0, 100.0, -500.0, 1.0)[0]  # (23, 256), to 8 kHz
        lifter = 1 + 11 * torch.sin(torch.pi / 22 * torch.arange(13))
        constants = {
            "window": torch.hann_window(WINDOW, periodic=False) ** 0.85,
            "banks": F.pad(banks, (0, 1)).T,  # (257, 23)
            "cosines": create_dct(13, 23, norm="ortho") * lifter,  # (23, 13)
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    def frames(self, lengths: Count) -> Count:
        """Samples → windows that lie within them; at least one."""
        return at_least_one((lengths - WINDOW) // HOP + 1)

    def forward(self, batch: SpeechBatch) -> tuple[Tensor, Tensor]:
        """(B, T, 39), and which are real."""
        wave = F.pad(batch.wave, (0, max(0, WINDOW - batch.wave.shape[1])))
        with torch.autocast(wave.device.type, enabled=False):
            x = wave.float().unfold(1, WINDOW, HOP)  # (B, T, 400)
            x = x - x.mean(-1, keepdim=True)
            x = x - 0.97 * torch.cat([x[..., :1], x[..., :-1]], -1)
            power = torch.fft.rfft(x * self.window, 512).abs().square()  # (B, T, 257)
            energies = power @ self.banks
            cepstra = energies.clamp(min=torch.finfo(torch.float).eps).log() @ self.cosines  # (B, T, 13)
        count = self.frames(batch.lengths)
        states = [cepstra]
        for _ in range(2):
            states.append(compute_deltas(held(states[-1], count).mT).mT)
        return torch.cat(states, -1), lengths_to_mask(count, cepstra.shape[1])


def held(x: Tensor, lengths: Tensor) -> Tensor:
    """(B, T, D) whose last real frame stands in its padding too."""
    at = torch.arange(x.shape[1], device=x.device).minimum(lengths[:, None] - 1)  # (B, T)
    return x.gather(1, at[..., None].expand_as(x))


class Waveform(nn.Module):
    """The strided convolutions of wav2vec 2.0 (arXiv:2006.11477, section 2): 320 samples a state.

    Args:
        channels: C, of every convolution; 512 in the paper.
        norm: `layer`, after each convolution over its channels, or `group`, after the first alone, each channel over
            the real frames of its utterance, so that padding is not seen: large and base of the paper.
        bias: of the convolutions.
        normalize: each waveform to mean 0 and variance 1 over its samples, which some checkpoints were trained on.
    """

    kernels, strides = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
    stride = 320

    def __init__(
        self,
        channels: int = 512,
        norm: Literal["layer", "group"] = "layer",
        bias: bool = False,
        normalize: bool = False,
    ) -> None:
        super().__init__()
        within("channels", channels, low=1, whole=True)
        one_of("conv_norm", norm, ("layer", "group"))
        self.dim, self.normalize = channels, normalize
        widths = [1] + [channels] * len(self.kernels)
        self.convolutions: Sequence[nn.Conv1d] = nn.ModuleList(  # type: ignore[assignment]
            nn.Conv1d(i, o, k, s, bias=bias)
            for i, o, k, s in zip(widths[:-1], widths[1:], self.kernels, self.strides, strict=True)
        )
        for convolution in self.convolutions:
            nn.init.kaiming_normal_(convolution.weight)
        self.grouped = norm == "group"
        self.norms = nn.ModuleList(
            [NormOverTime(channels)] if self.grouped else [nn.LayerNorm(channels) for _ in self.kernels]
        )

    def frames(self, lengths: Count, convolutions: int = len(kernels)) -> Count:
        """Samples → frames that the first so many convolutions make of them; at least one."""
        for k, s in list(zip(self.kernels, self.strides, strict=True))[:convolutions]:
            lengths = (lengths - k) // s + 1  # once there is none, there is none above
        return at_least_one(lengths)

    def forward(self, batch: SpeechBatch, wanted: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Convolves.

        Args:
            batch: of B recordings.
            wanted: (B, T) real frames, the only ones to be made, at the cost of these; the host waits for their number.

        Returns:
            (B, T, C), 0 where a frame is not wanted, and which are real.
        """
        wave = batch.wave
        if self.normalize:
            real = lengths_to_mask(batch.lengths, wave.shape[1])
            wave = normalize_frames(wave[..., None], real, eps=1e-7).squeeze(-1)
        wave = F.pad(wave, (0, max(0, WINDOW - wave.shape[1])))
        filters, shift = self.first(wave, self.frames(batch.lengths, 1))
        if wanted is None:
            windows = wave.unfold(1, self.kernels[0], self.strides[0])  # (B, T_1, K)
            x = self.others(torch.baddbmm(shift, windows, filters))
        else:
            x = self.joined(wave, filters, shift, wanted)
        return x, lengths_to_mask(self.frames(batch.lengths), x.shape[1])

    def joined(self, wave: Tensor, filters: Tensor, shift: Tensor, wanted: Tensor) -> Tensor:
        """Frame t hears block t of 320 samples and some of the next: such blocks are laid end to end, as one recording.

        Args:
            wave: (B, N).
            filters: (B, K, C) of the first convolution.
            shift: (B, 1, C) of what it gives.
            wanted: (B, T).

        Returns:
            (B, T, C).
        """
        (b, t), first = wanted.shape, self.stride // self.strides[0]
        kept = F.pad(wanted, (0, 1)) | F.pad(wanted, (1, 0))  # (B, T + 1) blocks
        kept[0, :2] = True  # something always is: all weights have a gradient
        at = kept.nonzero(as_tuple=True)  # of M blocks
        blocks = F.pad(wave, (0, (t + 1) * self.stride - wave.shape[1])).view(b, t + 1, self.stride)[at]
        samples = F.pad(blocks.flatten(), (0, self.kernels[0] - self.strides[0]))
        windows = samples.unfold(0, self.kernels[0], self.strides[0]).unflatten(0, (-1, first))  # (M, 64, K)
        x = torch.baddbmm(shift[at[0]], windows, filters[at[0]])  # (M, 64, C)
        x = self.others(x.flatten(0, 1)[None])[0]  # (M − 1, C): the last block only ends a frame
        between = ~F.pad(wanted, (0, 1))[at][:-1, None]  # frames of a block and one from elsewhere
        out = x.new_zeros(b, t + 1, x.shape[1])
        return out.index_put((at[0][:-1], at[1][:-1]), x.masked_fill(between, 0.0))[:, :t]

    def first(self, wave: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K, C) filters of the first convolution, normalised where that is over time, and (B, 1, C) their shift."""
        convolution = self.convolutions[0]
        if self.grouped:
            return self.norms[0](wave, frames, convolution)
        shift = wave.new_zeros(self.dim) if convolution.bias is None else convolution.bias
        filters = convolution.weight[:, 0].T
        return filters.expand(len(wave), -1, -1), shift.expand(len(wave), 1, -1)

    def others(self, x: Tensor) -> Tensor:
        """(B, T_1, C), what the first convolution gives → (B, T, C)."""
        for i, convolution in enumerate(self.convolutions):
            x = convolve(x, convolution) if i else x
            x = F.gelu(x if self.grouped else self.norms[i](x))
        return x


class NormOverTime(nn.Module):
    """Group norm of one channel a group behind a convolution of waveforms, over the real frames of each utterance.

    Such a convolution is linear in its window of K samples: mean w·μ and variance wᵀΣw of each channel follow from mean
    and K × K covariance of the windows, and are in the weights before anything of (B, T, C) is made.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, wave: Tensor, frames: Tensor, convolution: nn.Conv1d) -> tuple[Tensor, Tensor]:
        """(B, N) waveforms, of which (B,) frames are real → normalising filters (B, K, C) and shifts (B, 1, C)."""
        windows = wave.unfold(1, *convolution.kernel_size, *convolution.stride)  # (B, T, K)
        real = lengths_to_mask(frames, windows.shape[1])[..., None]
        wide = torch.float32 if wave.device.type == "mps" else torch.float64  # wᵀΣw cancels where w is a high pass
        with torch.autocast(wave.device.type, enabled=False):
            weight, count = convolution.weight[:, 0].to(wide), frames[:, None, None]  # (C, K)
            mean = (windows.to(wide) * real).sum(1, keepdim=True) / count  # (B, 1, K)
            centred = (windows - mean) * real
            covariance = centred.mT @ centred / count  # (B, K, K)
            variance = ((weight @ covariance) * weight).sum(-1)  # (B, C)
            scale = self.weight * (variance + self.eps).rsqrt()
            shift = self.bias - scale * (mean.squeeze(1) @ weight.mT)
            if convolution.bias is not None:
                shift = shift + 0 * convolution.bias  # it is in the mean too: no effect, and a gradient of 0
            return (scale[..., None] * weight).mT.to(wave), shift[:, None].to(wave)
