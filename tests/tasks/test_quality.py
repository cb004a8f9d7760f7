"""STOI and PESQ of enhanced speech are torchmetrics', of each voice with the one it is meant for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from ssl_suite.core.batch import lengths_to_mask
from ssl_suite.core.data import Request
from ssl_suite.core.errors import UserError
from ssl_suite.data.speech.speech import Speech
from ssl_suite.tasks import quality
from ssl_suite.tasks.separate import Masked, Separate

NEEDED = {"stoi": "pystoi", "pesq": "pesq"}


@pytest.mark.parametrize("name", NEEDED)
def test_a_measure_is_torchmetrics(name: str) -> None:
    pytest.importorskip(NEEDED[name], reason="needs the extra `quality`")
    from torchmetrics.functional.audio.pesq import perceptual_evaluation_speech_quality
    from torchmetrics.functional.audio.stoi import short_time_objective_intelligibility

    data = Speech("samples:prompts")
    data.serve(Request())
    waves = [data.read("test", i, 0).wave[:24000] for i in (0, 5)]
    n = min(map(len, waves))
    torch.manual_seed(0)
    a, b = (wave[:n] for wave in waves)
    mixture = torch.stack([a + b, a + 0.1 * torch.randn(n)])
    target = {"a": torch.stack([a, a]), "b": torch.stack([b, torch.zeros(n)])}
    task = Separate(measures=[name], window=512)
    task.meet(SimpleNamespace(request=SimpleNamespace(stride=160)))  # type: ignore[arg-type]
    spectrum = task.spectrum(mixture)
    masks = torch.stack([torch.full(spectrum.shape, 0.4), torch.rand(spectrum.shape)], 1)
    output = Masked(spectrum, masks, torch.tensor([n, n]), mixture)
    metrics = task.metrics()
    task.update(metrics, output, lengths_to_mask(torch.tensor([n // 160] * 2), n // 160), target)
    found = metrics.compute()[name]

    def theirs(said: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
        if name == "pesq":
            return perceptual_evaluation_speech_quality(said, true, 16000, "wb")
        return short_time_objective_intelligibility(said, true, 16000).float()

    said, (clear, _, _) = task.separated(output)[0], task.judged(output, target)
    both = [[(theirs(x, true)) for x, true in zip(order, (a, b), strict=True)] for order in (said, said.flip(0))]
    choices = torch.tensor(both).mean(1)
    assert clear.shape == (2,)
    assert float((choices - found).abs().min()) < 1e-4  # the second has a silent voice, which is not measured


def test_what_cannot_be_measured_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"no measure 'stoy' of speech\. Did you mean stoi"):
        Separate(measures=["stoy"])
    monkeypatch.setattr(quality, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"PESQ needs pesq: pip install 'ssl_suite\[quality\]'"):
        Separate(measures=["pesq"])
