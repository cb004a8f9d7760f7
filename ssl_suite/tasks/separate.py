"""Separate: each voice of a mixture, or the voice without the noise, by masks on its spectrum."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MetricCollection
from torchmetrics.aggregation import MeanMetric

from ssl_suite.core.batch import lengths_to_mask
from ssl_suite.core.check import within
from ssl_suite.core.data import DataModule
from ssl_suite.core.errors import UserError
from ssl_suite.core.outcomes import Outcome
from ssl_suite.core.task import Task
from ssl_suite.tasks.orders import all_orders, cheapest
from ssl_suite.tasks.quality import expect_measures, mean_of
from ssl_suite.tasks.recurrent import BLSTM

EPS = torch.finfo(torch.float32).eps


class Masked(NamedTuple):
    """What is heard, and what to let through of it.

    Attributes:
        spectrum: (B, F, K) complex, of the mixture at K times.
        masks: (B, C, F, K) for each voice, between 0 and 1.
        lengths: (B,) samples.
        wave: (B, N) the mixture.
        rate: samples a second.
    """

    spectrum: Tensor
    masks: Tensor
    lengths: Tensor
    wave: Tensor
    rate: int = 16000


class Separate(Task):
    """BLSTMs and a mask a voice on the log magnitudes of the mixture (SUPERB-SG, arXiv:2203.06849, after 1607.00325).

    The loss is the mean square, over frequencies summed, between log(1 + magnitude) · mask and log(1 + what of a voice
    is in phase with the mixture), of the order of voices that fits best. `si_sdri` is by how many dB each voice is
    clearer than in the mixture (scale-invariant, arXiv:1811.02508), `si_sdr` how clear it is; the mean over voices and
    inputs, but for inputs with a voice that says nothing.

    Args:
        voices: their targets in the data; one alone for enhancement.
        hidden: width of each direction of the BLSTMs.
        layers: of them; 0 for one linear layer on each state, which is the second opinion.
        dropout: between them.
        window: samples of a spectrum; one begins at every state of the encoder.
        measures: `stoi` and `pesq` beside it, which are of the extra `quality` and take a while.
    """

    sequence = True
    target: dict[str, str]
    inputs = ("wave", "lengths", "rate")
    main = "si_sdri"
    labels: dict[str, list[str]]
    window: Tensor

    def __init__(
        self,
        voices: Sequence[str] = ("a", "b"),
        hidden: int = 896,
        layers: int = 3,
        dropout: float = 0.1,
        window: int = 1024,
        measures: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if not voices or len(set(voices)) != len(voices):
            raise UserError(f"task.voices names the voices of a mixture, each once: not {list(voices)}.")
        within("task.hidden", hidden, low=1, whole=True)
        within("task.layers", layers, low=0, whole=True)
        within("task.dropout", dropout, low=0, below=1)
        within("task.window", window, low=2, whole=True)
        expect_measures(measures)
        all_orders(len(voices), torch.device("cpu"))  # not too many
        self.measures = tuple(measures)
        self.voices, self.target = tuple(voices), dict.fromkeys(voices, "waveform")
        self.hidden, self.layers, self.dropout, self.size = hidden, layers, dropout, window
        self.hop = 1
        self.register_buffer("window", torch.hann_window(window), persistent=False)

    def build(self, dim: int, labels: dict[str, list[str]]) -> None:
        self.labels = labels
        self.blstm = BLSTM(dim, self.hidden, self.layers, self.dropout) if self.layers else None
        self.head = nn.Linear(2 * self.hidden if self.layers else dim, len(self.voices) * (self.size // 2 + 1))

    def meet(self, data: DataModule) -> None:
        assert data.request is not None
        self.hop = data.request.stride
        if 2 * self.hop > self.size:
            raise UserError(
                f"task.window is {self.size} samples, but an encoder with a state every {self.hop} needs spectra of "
                f"{2 * self.hop} or more, which overlap."
            )

    def forward(self, features: Tensor, mask: Tensor, wave: Tensor, lengths: Tensor, rate: int = 16000) -> Masked:
        spectrum = self.spectrum(wave)
        read = features if self.blstm is None else self.blstm(features, mask)
        states = self.head(read).sigmoid()  # (B, T, C · F)
        at = torch.arange(spectrum.shape[2], device=wave.device)
        last = (mask.sum(1, keepdim=True) - 1).clamp(min=0)
        at = torch.minimum(at[None], last)  # (B, K): there are a few more spectra than states
        masks = states.gather(1, at[..., None].expand(-1, -1, states.shape[2]))
        return Masked(spectrum, masks.unflatten(2, (len(self.voices), -1)).permute(0, 2, 3, 1), lengths, wave, rate)

    def spectrum(self, wave: Tensor) -> Tensor:
        """(..., N) → (..., F, K), at every place that sees any of it, whatever it is padded to."""
        padded = F.pad(wave.float(), (0, self.size)).reshape(-1, wave.shape[-1] + self.size)
        made = torch.stft(
            padded, self.size, self.hop, window=self.window, pad_mode="constant", return_complex=True, center=True
        )
        return made.unflatten(0, wave.shape[:-1])

    def loss(self, output: Masked, mask: Tensor, target: dict[str, Tensor]) -> Tensor:
        heard = output.spectrum[:, None]  # (B, 1, F, K)
        parts = self.spectrum(self._voices(output, target))  # (B, C, F, K)
        in_phase = ((heard.conj() * parts).real / heard.abs().clamp(min=EPS)).relu()
        said = output.masks.float() * heard.abs().log1p()
        costs = (said[:, :, None] - in_phase.log1p()[:, None]).square().sum((-2, -1))  # (B, C, C)
        times = output.lengths // self.hop + 1
        return (cheapest(costs)[0] / times).mean() / len(self.voices)

    def _voices(self, output: Masked, target: dict[str, Tensor]) -> Tensor:
        """(B, C, N) the true voices, of as many samples as the mixture."""
        n = output.wave.shape[1]
        true = torch.stack([F.pad(target[voice], (0, n - target[voice].shape[1])) for voice in self.voices], 1)
        return true * lengths_to_mask(output.lengths, n)[:, None]

    def separated(self, output: Masked) -> Tensor:
        """(B, C, N) the voices, with the phase of the mixture."""
        heard = output.spectrum[:, None]
        spectra = torch.polar(
            (output.masks.float() * heard.abs().log1p()).expm1(), heard.angle().expand_as(output.masks)
        )
        n = output.wave.shape[1]
        waves = torch.istft(spectra.flatten(0, 1), self.size, self.hop, window=self.window, length=n + self.size)
        kept = waves[:, :n].unflatten(0, spectra.shape[:2])
        return kept * lengths_to_mask(output.lengths, n)[:, None]

    def judged(self, output: Masked, target: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """(B,) mean SI-SDR of the voices, the same of the mixture, and whether all of them are heard."""
        true, mask = self._voices(output, target), lengths_to_mask(output.lengths, output.wave.shape[1])
        clear = si_sdr(self.separated(output)[:, :, None], true[:, None], mask[:, None, None])  # (B, C, C)
        before = si_sdr(output.wave[:, None], true, mask[:, None]).mean(1)
        return -cheapest(-clear)[0] / len(self.voices), before, true.any(2).all(1)

    def metrics(self) -> MetricCollection:
        names = ("si_sdri", "si_sdr", *self.measures)
        return MetricCollection({name: MeanMetric() for name in names}, compute_groups=False)

    def update(self, metrics: MetricCollection, output: Masked, mask: Tensor, target: dict[str, Tensor]) -> None:
        clear, before, heard = self.judged(output, target)
        cast(MeanMetric, metrics["si_sdri"]).update(clear - before, heard.float())
        cast(MeanMetric, metrics["si_sdr"]).update(clear, heard.float())
        for name in self.measures:
            for said, true in self._pairs(output, target):
                if (value := mean_of(name, said, true, output.rate)) is not None:
                    cast(MeanMetric, metrics[name]).update(value)

    def _pairs(self, output: Masked, target: dict[str, Tensor]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """(C, N) the voices of each input, and those that they are meant for."""
        said, true = self.separated(output), self._voices(output, target)
        mask = lengths_to_mask(output.lengths, output.wave.shape[1])
        order = cheapest(-si_sdr(said[:, :, None], true[:, None], mask[:, None, None]))[1]  # (B, C)
        meant = true.gather(1, order[..., None].expand_as(true))
        for row, n in enumerate(output.lengths.tolist()):
            yield tuple(waves[row, :, :n].double().cpu().numpy() for waves in (said, meant))  # type: ignore[misc]

    def outcomes(self, output: Masked, mask: Tensor, target: dict[str, Tensor]) -> list[Outcome]:
        clear, before, heard = self.judged(output, target)
        pairs = zip((clear - before).tolist(), heard.tolist(), strict=True)
        return [(better, 1.0) if counts else None for better, counts in pairs]

    def decode(self, output: Masked, mask: Tensor) -> list[dict[str, list[float]]]:
        """The samples of each voice, in one of their orders."""
        waves = self.separated(output)
        rows = zip(waves.tolist(), output.lengths.tolist(), strict=True)
        return [{v: voice[:n] for v, voice in zip(self.voices, row, strict=True)} for row, n in rows]

    def files(self, rows: list[tuple[int, Any]], data: DataModule, split: str) -> dict[str, bytes]:
        """A WAV file of floats for each voice."""
        import soundfile

        assert data.request is not None
        rate, names, found = data.preprocess(data.request)["sample_rate"], data.ids(split), {}
        for i, voices in sorted(rows, key=lambda row: row[0]):
            name = "".join(c if c.isalnum() or c in "-_." else "_" for c in names[i])
            name += f"-{i}" * any(f"separated/{name}-{voice}.wav" in found for voice in voices)  # `a/b` beside `a_b`
            for voice, wave in voices.items():
                file = io.BytesIO()
                soundfile.write(file, wave, rate, format="WAV", subtype="FLOAT")
                found[f"separated/{name}-{voice}.wav"] = file.getvalue()
        return found


def si_sdr(said: Tensor, true: Tensor, mask: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio in dB, of signals without their mean (arXiv:1811.02508).

    Args:
        said: (..., N) an estimate.
        true: (..., N) what is estimated, broadcast against it.
        mask: (..., N) where there is a signal.
    """
    count = mask.sum(-1, keepdim=True)

    def centred(wave: Tensor) -> Tensor:
        return (wave - (wave * mask).sum(-1, keepdim=True) / count) * mask

    said, true = centred(said.float()), centred(true.float())
    scale = ((said * true).sum(-1, keepdim=True) + EPS) / (true.square().sum(-1, keepdim=True) + EPS)
    part = scale * true
    ratio = (part.square().sum(-1) + EPS) / ((said - part).square().sum(-1) + EPS)
    return 10 * ratio.log10()
