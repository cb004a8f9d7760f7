"""The shapes of speech encoders: padding is never seen, and each part is what its paper says."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_encoders import check_contract, single
from tiny import speech_batch, tiny_speech_encoder
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.compliance import kaldi
from torchaudio.functional import compute_deltas

from ssl_suite.core.encoder import Encoder, Tokens
from ssl_suite.core.errors import UserError
from ssl_suite.encoders.frontend import Waveform
from ssl_suite.encoders.positions import BiasGate, ConvPositions, RelativeBias, TapNormConv1d
from ssl_suite.encoders.simple import Fbank, Mfcc

LENGTHS = [9000, 4321, 400, 401, 150, 1]
WAVE = {"frontend": "waveform", "trunk": "transformer"}
SHAPES: dict[str, dict[str, Any]] = {
    "wav2vec 2.0 base": {**WAVE, "conv_norm": "group", "norm": "post", "position_kernel": 8},
    "wav2vec 2.0 large": {**WAVE, "conv_bias": True, "normalize": True},
    "group norm, biases": {**WAVE, "conv_norm": "group", "conv_bias": True, "normalize": True},
    "WavLM": {**WAVE, "conv_norm": "group", "norm": "post", "buckets": 8, "reach": 9},
    "WavLM large": {**WAVE, "buckets": 12, "reach": 20},
    "data2vec": {**WAVE, "norm": "post", "position_layers": 3, "position_kernel": 5},
    "even, stacked": {**WAVE, "position_layers": 2, "position_kernel": 4},
    "log-mel": {"trunk": "transformer", "norm": "post", "positions": "rotary", "ffn": 20},
    "stacked log-mel": {"trunk": "transformer", "stack": 4, "position_kernel": 8},
    "gru": {"frontend": "waveform", "trunk": "gru", "conv_norm": "group"},
    "log-mel gru": {"trunk": "gru"},
}


UPSTREAMS: dict[str, Callable[[], Encoder]] = {
    **{name: lambda shape=shape: tiny_speech_encoder(**shape) for name, shape in SHAPES.items()},  # type: ignore[misc]
    "FBANK": lambda: Fbank(12, stack=3),
    "MFCC": Mfcc,
    "raw MFCC": lambda: Mfcc(normalize=False),
}


@pytest.mark.parametrize("name", UPSTREAMS)
def test_a_batch_equals_its_utterances_alone(name: str) -> None:
    encoder = UPSTREAMS[name]()
    for p in encoder.parameters():
        nn.init.normal_(p, mean=1.0 if p.ndim == 1 else 0.0, std=0.2)
    batch = speech_batch(LENGTHS)
    batch.wave += 0.3 * (batch.wave != 0)  # a recording off its zero line
    with torch.no_grad():
        together = check_contract(encoder, batch)
        for row in range(len(LENGTHS)):
            alone = encoder(single(batch, row))
            n = int(alone.mask.sum())
            assert n == int(together.mask[row].sum()) == alone.mask.shape[1]
            pairs = [(b[row, :n], a[0]) for a, b in zip(alone.states, together.states, strict=True)]
            for b, a in [*pairs, (together.pooled[row], alone.pooled[0])]:
                assert (b - a).abs().max() < 1e-5 * max(1.0, float(a.abs().max()))


@pytest.mark.parametrize("name", SHAPES)
def test_every_parameter_learns_though_blocks_are_dropped(name: str) -> None:
    """What gets no gradient stops data-parallel training."""
    drop = {"layer_drop": 0.5} if SHAPES[name]["trunk"] == "transformer" else {}
    encoder = tiny_speech_encoder(**SHAPES[name], **drop)
    encoder(speech_batch([9000, 4321])).states[-1].square().mean().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters())  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SHAPES)
def test_half_precision_is_close(name: str) -> None:
    encoder = tiny_speech_encoder(**SHAPES[name]).eval()
    batch = speech_batch([9000, 4321])
    batch.wave = (batch.wave + 0.1) * (batch.wave != 0)
    with torch.no_grad():
        full = encoder(batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = encoder(batch).states[-1]
    off = (half.float() - full.states[-1])[full.mask]
    assert off.square().mean().sqrt() < 0.05 * full.states[-1][full.mask].std()


@pytest.mark.parametrize("bias", [False, True])
def test_group_norm_is_torchs_where_nothing_is_padded(bias: bool) -> None:
    frontend = Waveform(8, "group", bias).double()
    for p in frontend.parameters():
        nn.init.normal_(p, mean=0.5, std=0.5)
    batch = speech_batch([3000, 3000])
    batch.wave = batch.wave.double() + 2
    first, norm = frontend.convolutions[0], frontend.norms[0]
    x = F.gelu(F.group_norm(first(batch.wave[:, None]), 8, norm.weight, norm.bias))  # type: ignore[arg-type]
    for convolution in frontend.convolutions[1:]:
        x = F.gelu(convolution(x))
    weights = [first.weight, norm.weight]
    ours, theirs = frontend(batch)[0], x.mT
    torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)
    out = torch.randn_like(ours)
    for mine, torchs in zip(*(torch.autograd.grad((y * out).sum(), weights) for y in (ours, theirs)), strict=True):
        torch.testing.assert_close(mine, torchs, atol=1e-9 * float(torchs.abs().max()), rtol=1e-9)


def test_group_norm_keeps_its_digits_where_a_filter_hears_little() -> None:
    """A high pass on a low tone: the variance is a millionth of the waveform's."""
    frontend = Waveform(1, "group")
    with torch.no_grad():
        frontend.convolutions[0].weight.copy_(torch.tensor([1.0, -2, 1, 0, 0, 0, 0, 0, 0, 0])[None, None])
    batch = speech_batch([16000])
    batch.wave = torch.sin(torch.arange(16000) / 16000 * 2 * torch.pi * 50)[None] * 0.9
    x = frontend.convolutions[0].double()(batch.wave.double()[:, None])
    wanted = F.group_norm(x, 1)
    frontend.float()
    filters, shift = frontend.norms[0](batch.wave, torch.tensor([x.shape[2]]), frontend.convolutions[0])
    ours = torch.baddbmm(shift, batch.wave.unfold(1, 10, 5), filters)
    torch.testing.assert_close(ours.double(), wanted.mT, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("loudness", [1e-4, 1.0])
def test_waveforms_are_normalised_each_over_its_own_samples(loudness: float) -> None:
    plain, normal = Waveform(4), Waveform(4, normalize=True)
    normal.load_state_dict(plain.state_dict())
    batch = speech_batch([3000, 1500])
    before = batch.wave = (batch.wave + 0.5 * (batch.wave != 0)) * loudness
    frames, mask = normal(batch)
    for row, n in enumerate([3000, 1500]):
        wave = before[row : row + 1, :n]
        alone = single(batch, row)
        alone.wave = (wave - wave.mean()) / (wave.var(correction=0) + 1e-7).sqrt()
        torch.testing.assert_close(frames[row][mask[row]], plain(alone)[0][0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kernel", [7, 8])
def test_positions_are_a_weight_normalised_convolution(kernel: int) -> None:
    positions = ConvPositions(8, kernel, groups=2)
    convolution = positions.convolutions[0]
    assert isinstance(convolution, TapNormConv1d)
    plain = nn.Conv1d(8, 8, kernel, padding=kernel // 2, groups=2)
    plain.load_state_dict({"weight": convolution.weight.detach(), "bias": convolution.bias.detach()})  # type: ignore
    torch.testing.assert_close(plain.weight, convolution.weight * convolution.gain / convolution._lengths())
    theirs = torch.nn.utils.parametrizations.weight_norm(plain, dim=2)
    with torch.no_grad():
        theirs.parametrizations.weight.original0.mul_(3)  # type: ignore[union-attr]
        convolution.gain.mul_(3)
    x = torch.randn(2, 20, 8)
    tokens = Tokens(x, torch.ones(2, 20, dtype=torch.bool))
    torch.testing.assert_close(positions(tokens), x + F.gelu(theirs(x.mT)[..., :20]).mT, atol=1e-5, rtol=1e-4)


def test_stacked_positions_hear_no_padding_in_any_convolution() -> None:
    positions = ConvPositions(16, 5, groups=4, layers=3)
    x, mask = torch.randn(1, 12, 16), (torch.arange(12) < 9)[None]
    alone = positions(Tokens(x[:, :9], mask[:, :9]))
    torch.testing.assert_close(positions(Tokens(x, mask))[:, :9], alone, atol=1e-5, rtol=1e-4)


def slow_bucket(distance: int, buckets: int, reach: int) -> int:
    """T5's rule of both signs, one distance at a time (arXiv:1910.10683, section 2.1, and WavLM's equation 5)."""
    half, size = buckets // 2, abs(distance)
    exact = half // 2
    wide = exact + int(math.log(max(size, 1) / exact) / math.log(reach / exact) * (half - exact))
    return (half if distance > 0 else 0) + (size if size < exact else min(wide, half - 1))


@pytest.mark.parametrize(("buckets", "reach"), [(320, 800), (32, 128), (8, 9)])
def test_distances_fall_into_their_buckets(buckets: int, reach: int) -> None:
    distances = [d for d in range(-1000, 1001) if d % 7 or abs(d) < 300]
    ours = RelativeBias(2, buckets, reach).buckets(torch.tensor(distances))
    wanted = torch.tensor([slow_bucket(d, buckets, reach) for d in distances])
    assert (ours - wanted).abs().max() <= 1  # the logarithm's last digit, where a bucket begins
    assert (ours == wanted).float().mean() > 0.99
    assert ours.max() == buckets - 1


def test_the_gate_is_the_papers() -> None:
    gate, bias = BiasGate(8, 2), torch.randn(1, 2, 5, 5)
    with torch.no_grad():
        gate.weight.copy_(torch.tensor([0.5, 2.0])[None, :, None, None])
    x = torch.randn(3, 5, 8)
    ours = gate(x, bias)
    for b, h, i in ((0, 0, 0), (2, 1, 4), (1, 0, 3)):
        eight: Tensor = gate.project(x[b, i, 4 * h : 4 * h + 4])
        a, r = eight[:4].sum().sigmoid(), eight[4:].sum().sigmoid()
        wanted = bias[0, h, i] + (1 - a) * bias[0, h, i] + a * r * gate.weight[0, h].squeeze() * bias[0, h, i]
        torch.testing.assert_close(ours[b, h, i], wanted)


def test_blocks_are_dropped_in_training_alone() -> None:
    encoder = tiny_speech_encoder(trunk="transformer", layers=40, layer_drop=0.25, dropout=0.0)
    batch = speech_batch([2000])

    def passed_by() -> int:
        states = encoder(batch).states
        return sum(torch.equal(a, b) for a, b in itertools.pairwise(states[:-1]))

    torch.manual_seed(0)
    assert 2 <= passed_by() <= 20  # of 39, binomial: fewer or more less than once in 10⁴
    encoder.eval()
    assert passed_by() == 0
    encoder.train().freeze()
    assert passed_by() == 0


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"dim": 24}, r"position_groups \(16\) must divide dim \(24\)"),
        ({"position_kernel": 0}, "position_kernel is 0"),
        ({"buckets": 3}, "buckets is 3"),
        ({"buckets": 320, "reach": 80}, "reach is 80, but must be a whole number above 80"),
        ({"buckets": 8, "causal": True}, "both sides"),
        ({"layer_drop": 1.0}, "layer_drop is 1.0"),
        ({"conv_norm": "batch", "frontend": "waveform"}, "conv_norm is 'batch', but must be one of layer, group"),
        ({"norm": "none"}, "norm is 'none'"),
        ({"frontend": "mel"}, "frontend is 'mel', but must be one of logmel, waveform"),
    ],
)
def test_wrong_shapes_are_one_sentence(options: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        tiny_speech_encoder(**{"trunk": "transformer", **options})


def test_cepstra_are_kaldis_and_do_not_see_padding() -> None:
    lengths = [16000, 9000, 4321, 401, 399, 1]
    batch = speech_batch(lengths)
    encoder = Mfcc(normalize=False)
    encoded = encoder(batch)
    for row, n in enumerate(lengths):
        alone = encoder(single(batch, row))
        count = alone.states[0].shape[1]
        assert int(encoded.mask[row].sum()) == count == max(1, (n - 400) // 160 + 1)
        torch.testing.assert_close(encoded.states[0][row, :count], alone.states[0][0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(encoded.pooled[row], alone.pooled[0], atol=1e-4, rtol=1e-4)
        if n >= 400:
            wave = batch.wave[row : row + 1, :n]
            cepstra = kaldi.mfcc(wave, sample_frequency=16000, use_energy=False, dither=0.0).T
            first = compute_deltas(cepstra)
            wanted = torch.cat([cepstra, first, compute_deltas(first)]).T
            torch.testing.assert_close(alone.states[0][0], wanted, atol=1e-3, rtol=1e-3)
    normal = Mfcc()(batch)
    torch.testing.assert_close(normal.means[0], encoded.pooled)  # type: ignore[index]
    frames = normal.states[0][0][normal.mask[0]]
    torch.testing.assert_close(frames.mean(0), torch.zeros(39), atol=1e-4, rtol=0)
    torch.testing.assert_close(frames.var(0, correction=0), torch.ones(39), atol=1e-2, rtol=0)
    assert Mfcc().baseline
    assert Mfcc().state_dict() == {}
