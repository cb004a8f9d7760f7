"""A compiled encoder computes what it computed, under the same names, and is compiled a few times, not every step."""

from __future__ import annotations

import copy
import shutil
from typing import Any

import pytest
import torch
from tiny import speech_batch, text_batch, tiny_speech_encoder, tiny_text_encoder
from torch._dynamo.testing import CompileCounterWithBackend

from ssl_suite.methods.speech.apc import APC
from ssl_suite.methods.text.causal_lm import CausalLM
from ssl_suite.methods.text.masked_lm import MaskedLM

NAMES = ["MaskedLM", "CausalLM", "APC"]
LENGTHS = [[20, 7, 12, 9], [31, 7, 12, 9], [17, 17, 12, 9], [44, 5, 5, 4], [26, 20, 9, 3], [38, 21, 18, 18]]


def method(name: str) -> Any:
    if name == "APC":
        return APC(tiny_speech_encoder(trunk="transformer", causal=True, dropout=0.0))
    if name == "CausalLM":
        model = CausalLM(tiny_text_encoder(causal=True, dropout=0.0))
        model.end_id = 3
        return model
    masked = MaskedLM(tiny_text_encoder(dropout=0.0, norm="post"))
    masked.special, masked.mask_id, masked.vocab_size = torch.arange(5), 4, 261
    return masked


def batch(name: str, lengths: list[int]) -> Any:
    return speech_batch([n * 400 for n in lengths]) if name == "APC" else text_batch(lengths)


def compare(name: str, backend: Any, lengths: list[list[int]]) -> None:
    torch.compiler.reset()
    eager = method(name)
    compiled = copy.deepcopy(eager)
    compiled.encoder.compile(backend=backend)
    assert list(compiled.state_dict()) == list(eager.state_dict())
    for row in lengths:
        data = batch(name, row)
        losses = [model.step(data).total() for model in (eager, compiled)]
        torch.testing.assert_close(*losses, atol=1e-5, rtol=0)
        grads = [torch.autograd.grad(x, list(m.parameters())) for x, m in zip(losses, (eager, compiled), strict=True)]
        for one, two in zip(*grads, strict=True):
            torch.testing.assert_close(one, two, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_losses_and_gradients_are_those_of_eager_and_new_lengths_are_not_compiled_again(name: str) -> None:
    counter = CompileCounterWithBackend("aot_eager")
    compare(name, counter, LENGTHS[:3])
    compiled_once = counter.frame_count
    assert 0 < compiled_once <= 6
    counter = CompileCounterWithBackend("aot_eager")
    compare(name, counter, LENGTHS)
    assert counter.frame_count == compiled_once


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_inductor_agrees_with_eager() -> None:
    compare("CausalLM", "inductor", LENGTHS[:1])
