"""`ssl-suite plan`: published sizes and costs from the recipes, and its counts beside what a real step and run hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import yaml
from cli_recipes import CONFIGS
from tiny import QUIET, text_batch, tiny_text_encoder
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertForPreTraining, GPT2Config, GPT2LMHeadModel

from ssl_suite.cli import main
from ssl_suite.core.errors import UserError
from ssl_suite.core.folder import save_encoder
from ssl_suite.core.optim import Optim
from ssl_suite.core.plan import SCHEMES, memory, on_meta, row_flops, sizes
from ssl_suite.data.text.text import Text
from ssl_suite.encoders.text import TextEncoder
from ssl_suite.methods.text.causal_lm import CausalLM
from ssl_suite.methods.text.masked_lm import MaskedLM


def planned(recipe: str, **changed: Any) -> CausalLM | MaskedLM:
    """The model of a recipe, without memory."""
    options = yaml.safe_load((CONFIGS / f"text/{recipe}.yaml").read_text())["model"]
    shape = options["init_args"].pop("encoder")["init_args"] | changed
    options["init_args"].pop("optim")
    method = {"CausalLM": CausalLM, "MaskedLM": MaskedLM}[options["class_path"]]
    return on_meta(lambda: method(TextEncoder(**shape), **options["init_args"]))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("recipe", "published", "layers", "dim", "heads", "length"),
    [
        ("gpt", 124e6, 12, 768, 12, 1024),
        ("gpt3", 175e9, 96, 12288, 96, 2048),
        ("megatron", 8.3e9, 72, 3072, 32, 1024),
        ("turing_nlg", 17e9, 78, 4256, 28, 1024),
    ],
)
def test_recipes_have_the_published_number_of_parameters(
    recipe: str, published: float, layers: int, dim: int, heads: int, length: int
) -> None:
    found = sizes(planned(recipe, vocab_size=50257))
    config = GPT2Config(n_layer=layers, n_embd=dim, n_head=heads, n_positions=length)
    with torch.device("meta"):
        theirs = GPT2LMHeadModel(config)
    assert found.weights == found.learned == sum(p.numel() for p in theirs.parameters())
    assert found.weights == pytest.approx(published, rel=0.015)


def test_bert_base_with_both_heads_has_110_million_parameters() -> None:
    with torch.device("meta"):
        theirs = BertForPreTraining(BertConfig())
    assert sizes(planned("bert")).weights == sum(p.numel() for p in theirs.parameters()) == 110_106_428


def test_gpt3_takes_the_published_flops() -> None:
    """Table D.1: 174.6 G parameters, 300 G tokens, 3.14e23 FLOPs, without attention's scores."""
    model = planned("gpt3")
    by_rule = 6 * sizes(model).learned * 300e9
    assert by_rule == pytest.approx(3.14e23, rel=0.002)
    layers, dim, length = 96, 12288, 2048
    scores = 3 * 4 * layers * length**2 * dim
    products = 6 * (12 * dim**2 * layers * length + 50304 * dim * (length - 1))
    assert row_flops(model, length) == pytest.approx(scores + products, rel=1e-9)


@pytest.mark.parametrize("causal", [True, False])
def test_flops_of_a_row_are_those_of_a_real_step(causal: bool) -> None:
    encoder = tiny_text_encoder(vocab_size=264, dim=64, dropout=0.0, causal=causal)
    model = CausalLM(encoder) if causal else MaskedLM(encoder, rate=1.0)
    batch = text_batch([32] * 8)
    batch.dense = True
    if isinstance(model, CausalLM):
        model.end_id = 0
    else:
        model.special, model.mask_id, model.vocab_size = torch.tensor([0]), 1, 264
    weights = list(model.parameters())
    with FlopCounterMode(display=False) as counter:
        torch.autograd.grad(model.step(batch).total(), weights, allow_unused=True)
    flops = row_flops(model, 32)
    assert flops is not None
    unseen = 2 * 264 * 64 * (31 if causal else 32)  # the counter knows no addmm_, which makes the words' gradient
    bias = 0 if causal else 2 * 264 * 32  # whose gradient is a product too
    assert counter.get_total_flops() / 8 + unseen - bias == pytest.approx(flops, rel=1e-6)


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars", "muon"])
def test_states_are_those_an_optimizer_keeps(name: Any, text_file: str, tmp_path: Path) -> None:
    model = CausalLM(tiny_text_encoder(vocab_size=264, causal=True), Optim(name, 1e-3))
    data = Text(text_file, batch_size=2, tokenizer="byte", max_length=16)
    trainer = pl.Trainer(accelerator="cpu", max_steps=1, default_root_dir=tmp_path, enable_checkpointing=False, **QUIET)
    trainer.fit(model, data)
    state = trainer.optimizers[0].state.values()
    held = sum(v.numel() for entry in state for v in entry.values() if isinstance(v, torch.Tensor) and v.ndim)
    assert sizes(model).states == held


def test_memory_follows_zero() -> None:
    """Section 5 of the paper at 7.5 G parameters and 64 GPUs: 120 GB whole, less with each stage (its figures are for
    16-bit weights and gradients and 12 bytes of states; ours are float32)."""
    s = sizes(planned("gpt"))
    found = {scheme: memory(s, scheme, 64) for scheme in SCHEMES}
    assert found["DDP"].kept == 12 * s.weights
    assert all(found[scheme].kept == pytest.approx(12 * s.weights / 64) for scheme in SCHEMES[1:])
    totals = [found[scheme].total for scheme in SCHEMES]
    assert totals == sorted(totals, reverse=True)
    cut = sizes(planned("gpt"), 4)
    assert s.weights / 4 < cut.weights < s.weights / 3.9  # all but vectors, positions and norms
    with pytest.raises(UserError, match="must divide the encoder's heads"):
        sizes(planned("gpt"), 8)


def test_the_command_tells_what_fits(capsys: pytest.CaptureFixture[str], fails: Any) -> None:
    assert main(["plan", "-c", "text/gpt3", "--tokens", "300e9", "--trainer.accelerator", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "174,604,836,864 parameters (174.6 G)" in said
    assert "3.14e+23 at 6 a parameter" in said
    assert "DDP never" in said
    assert "tensor 8 from " in said
    first = [line.split()[0] for line in said.splitlines() if line.strip()]
    assert [int(word) for word in first if word.isdigit()] == [8, 16, 32, 64, 128, 256, 512, 1024]
    assert "must be one of H200" in fails("plan", "-c", "text/gpt3", "--gpu", "abacus")
    assert "plan needs a recipe" in fails("plan")
    assert "data.batch_size is -5" in fails("plan", "-c", "text/gpt", "--data.batch_size=-5")
    assert "data.max_length is 0" in fails("plan", "-c", "text/gpt", "--data.max_length", "0")


def test_a_recipe_on_an_encoder_that_has_weights_is_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_encoder(tiny_text_encoder(vocab_size=261), tmp_path / "encoder", {})
    shape = {"vocab_size": 90, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    BertForPreTraining(BertConfig(num_hidden_layers=1, **shape)).save_pretrained(tmp_path / "hub")
    for encoder in (tmp_path / "encoder", f"hf:{tmp_path / 'hub'}"):
        assert main(["plan", "-c", "text/classify", "--model.encoder", str(encoder)]) == 0
        assert "Finetune: " in capsys.readouterr().out
