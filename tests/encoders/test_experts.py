"""Experts against a loop over tokens from the paper's equations, and transformers' router and losses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from host_waits import HostWaits
from tiny import QUIET, text_batch, tiny_text_encoder
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_suite.core.batch import lengths_to_mask
from ssl_suite.core.errors import UserError
from ssl_suite.core.optim import Optim
from ssl_suite.core.term import Term
from ssl_suite.data.text.text import Text
from ssl_suite.encoders.experts import LOSSES, Experts
from ssl_suite.encoders.feed_forward import FeedForward, activated
from ssl_suite.encoders.text import TextEncoder
from ssl_suite.encoders.transformer import Transformer
from ssl_suite.encoders.trunk import TrunkConfig
from ssl_suite.methods.any.data2vec import Data2Vec, Decoder
from ssl_suite.methods.any.holes import Holes
from ssl_suite.methods.text.causal_lm import CausalLM
from ssl_suite.methods.text.electra import Electra
from ssl_suite.methods.text.masked_lm import MaskedLM

N_EXPERTS = 4


def shape(**options: Any) -> TrunkConfig:
    base: dict[str, Any] = {"dropout": 0.0, "ffn": 16, "experts": N_EXPERTS, "experts_every": 1, "router_jitter": 0.0}
    return TrunkConfig(8, 2, 2, **base | options)


def sharp(**options: Any) -> Experts:
    layer = Experts(shape(**options))
    for p in layer.parameters():
        nn.init.normal_(p, std=0.6)
    return layer


def token_by_token(layer: Experts, x: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor, float]:
    """Outputs, balance, z-loss and dropped share of (B, T, D), one token at a time in their order."""
    c = layer.config
    room = max(4, int(int(real.sum()) * c.capacity / c.experts)) if layer.training else real.numel()
    taken, first = [0] * c.experts, torch.zeros(c.experts)
    probabilities, z, rows, dropped = torch.zeros(c.experts), torch.zeros(()), [], 0
    for token, counts in zip(x.flatten(0, 1), real.flatten().tolist(), strict=True):
        logits = layer.router.weight @ token
        p = logits.softmax(0)
        e = int(p.argmax())
        fits = not counts or taken[e] < room
        if counts:
            taken[e] += fits
            dropped += not fits
            first[e] += 1
            probabilities = probabilities + p
            z = z + logits.logsumexp(0) ** 2
        hidden = activated(token @ layer.up[e], c.activation)
        rows.append(p[e] * (hidden @ layer.down[e]) if fits else torch.zeros_like(token))
    n = int(real.sum())
    balance = c.experts * ((first / n) * (probabilities / n)).sum()
    return torch.stack(rows).view_as(x), balance, z / n, dropped / n


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
@pytest.mark.parametrize("padded", [True, False])
def test_outputs_losses_and_gradients_equal_the_loop(training: bool, activation: str, padded: bool) -> None:
    layer = sharp(activation=activation, router_z=0.1).train(training)
    x = torch.randn(3, 9, 8, requires_grad=True)
    real = lengths_to_mask(torch.tensor([9, 4, 6] if padded else [9, 9, 9]), 9)
    losses: dict[str, Term] = {}
    y = layer(x, real if padded else None, losses)
    wanted, balance, z, dropped = token_by_token(layer, x, real)
    assert not training or dropped > 0.05
    at = real
    torch.testing.assert_close(y[at], wanted[at])
    torch.testing.assert_close(losses["expert_balance"].mean, balance)
    torch.testing.assert_close(losses["router_z"].mean, z)
    assert losses["dropped_tokens"].mean == pytest.approx(dropped / 2)  # two layers, of each a half
    weight = torch.randn_like(y) * real[..., None]
    inputs = [x, *layer.parameters()]

    def total(y: Tensor, balance: Tensor, z: Tensor) -> Tensor:
        return (y * weight).sum() + balance + z

    ours = torch.autograd.grad(total(y, losses["expert_balance"].mean, losses["router_z"].mean), inputs)
    theirs = torch.autograd.grad(total(wanted, balance, z), inputs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_routing_and_losses_are_transformers_own() -> None:
    switch = pytest.importorskip("transformers.models.switch_transformers.modeling_switch_transformers")
    from transformers import SwitchTransformersConfig

    layer = sharp(capacity=1.0).train()
    config = SwitchTransformersConfig(d_model=8, num_experts=N_EXPERTS, expert_capacity=6, router_jitter_noise=0.0)
    router = switch.SwitchTransformersTop1Router(config).train()
    router.classifier.load_state_dict(layer.router.state_dict())
    x = torch.randn(1, 24, 8)
    routing = layer.route(x[0], None)  # 24 tokens: 6 to each of 4
    where, gate, logits = router(x.clone())
    assert torch.equal(where[0].sum(-1).bool(), routing.taken)
    assert torch.equal(where[0].argmax(-1)[routing.taken], routing.expert[routing.taken])
    torch.testing.assert_close(gate[0, :, 0], routing.gate)
    balance = switch.load_balancing_loss_func(logits.softmax(-1), logits.argmax(-1))
    torch.testing.assert_close(routing.losses["expert_balance"].mean, balance)
    torch.testing.assert_close(routing.losses["router_z"].mean, switch.router_z_loss_func(logits))


def test_one_expert_is_the_feed_forward_layer() -> None:
    c = shape(experts=1, capacity=9.0)
    one, dense = Experts(c), FeedForward(c.dim, c.hidden, c.activation, bias=False)
    dense.up.weight.data, dense.down.weight.data = one.up.data[0].T, one.down.data[0].T
    x = torch.randn(2, 5, 8)
    torch.testing.assert_close(one(x), dense(x))


def test_bfloat16_is_routed_in_float32() -> None:
    layer, x = sharp().eval(), torch.randn(50, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer.route(x, None).expert, layer.route(x.clone(), None).expert)
        assert layer.route(x, None).gate.dtype == torch.float32
        y = layer(x)
    wanted = layer(x)
    assert (y - wanted).abs().max() < 0.05 * wanted.abs().max()
    assert y.dtype == torch.bfloat16


def test_padding_and_batch_mates_change_no_state_in_evaluation() -> None:
    trunk = Transformer(shape()).eval()
    for p in trunk.parameters():
        nn.init.normal_(p, std=0.4)
    x, mask = torch.randn(3, 12, 8), lengths_to_mask(torch.tensor([12, 7, 3]), 12)
    together = trunk(x, mask)[-1]
    for row, length in enumerate((12, 7, 3)):
        torch.testing.assert_close(
            together[row, :length], trunk(x[row : row + 1, :length])[-1][0], atol=1e-5, rtol=1e-4
        )


def test_losses_are_sums_over_layers_and_every_second_block_has_experts() -> None:
    trunk = Transformer(TrunkConfig(8, 4, 2, dropout=0.0, experts=3)).eval()
    assert [isinstance(block.feed_forward, Experts) for block in trunk.blocks] == [False, True, False, True]
    kept: list[Any] = []
    for block in trunk.blocks[1::2]:
        block.feed_forward.register_forward_pre_hook(lambda module, inputs: kept.append((module, inputs[0])))
    losses: dict[str, Term] = {}
    trunk(torch.randn(2, 6, 8), losses=losses)
    alone = [module.route(x.flatten(0, 1), None).losses for module, x in kept]
    assert {*losses} == {*LOSSES}
    for name, term in losses.items():
        torch.testing.assert_close(term.sum, sum(one[name].sum for one in alone))
    assert [losses[name].scale for name in LOSSES] == [0.01, 0.0, 0.0, 0.0]


def test_shapes_that_cannot_be_are_refused() -> None:
    with pytest.raises(UserError, match="leave shared false"):
        TrunkConfig(8, 2, 2, shared=True, experts=2)
    with pytest.raises(UserError, match="widths that 8 divides; dim is 8 and ffn 12"):
        shape(ffn=12)
    with pytest.raises(UserError, match="leaves no block of 2"):
        TrunkConfig(8, 2, 2, experts=2, experts_every=3)


def data2vec(encoder: TextEncoder) -> Data2Vec:
    holes, decoder = Holes(0.5, 1, 0.0, False), Decoder(1, 16, 3, 2)
    return Data2Vec(encoder, 1, 2, holes, decoder, class_loss=0.0, optim=Optim(lr=1e-3))


@pytest.mark.parametrize(
    ("make", "own"),
    [(Electra, {"generator_loss": 1.0, "discriminator_loss": 50.0}), (data2vec, {"regression": 1.0})],
)
def test_electra_and_data2vec_learn_what_their_experts_ask_for(
    make: Any, own: dict[str, float], text_file: str, tmp_path: Path
) -> None:
    pl.seed_everything(0)
    data = Text(text_file, tokenizer="byte", max_length=64, batch_size=4)
    model = make(tiny_text_encoder(experts=3, dropout=0.0, router_z=1e-3))
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=4, default_root_dir=tmp_path, accumulate_grad_batches=2,
        enable_checkpointing=False, **QUIET,
    )  # fmt: skip
    trainer.fit(model, data)
    figures = trainer.callback_metrics
    scales = {**own, "expert_balance": 0.01, "router_z": 1e-3}
    wanted = sum(scale * figures[f"val/{name}"] for name, scale in scales.items())
    torch.testing.assert_close(figures["val/loss"], wanted)
    batch = next(iter(data.val_dataloader()))
    out = model.eval().step(batch)
    assert out.terms.keys() == {*own, *LOSSES}
    assert {name: float(term.count) for name, term in out.terms.items()} == {
        name: float(count) for name, count in model.counts(batch).items()
    }
    router = model.encoder.trunk.blocks[1].feed_forward.router.weight
    (gradient,) = torch.autograd.grad(out.terms["expert_balance"].mean, [router])
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("method", [MaskedLM, CausalLM])
def test_pretraining_adds_and_logs_what_the_experts_ask_for(method: Any, text_file: str, tmp_path: Path) -> None:
    pl.seed_everything(0)
    data = Text(text_file, tokenizer="byte", max_length=64, batch_size=4)
    encoder = tiny_text_encoder(causal=method is CausalLM, experts=3, dropout=0.0, router_z=1e-3)
    model = method(encoder)
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=4, log_every_n_steps=1, default_root_dir=tmp_path, accumulate_grad_batches=2,
        enable_checkpointing=False, **QUIET,
    )  # fmt: skip
    trainer.fit(model, data)
    figures = trainer.callback_metrics
    for name in ("token_loss", *LOSSES):
        assert f"train/{name}" in figures
        assert f"val/{name}" in figures
    wanted = figures["val/token_loss"] + 0.01 * figures["val/expert_balance"] + 1e-3 * figures["val/router_z"]
    torch.testing.assert_close(figures["val/loss"], wanted)
    torch.testing.assert_close(figures["val/perplexity"], figures["val/token_loss"].exp())
    batch = next(iter(data.val_dataloader()))
    out = model.eval().step(batch)
    assert {name: float(term.count) for name, term in out.terms.items()} == {
        name: float(count) for name, count in model.counts(batch).items()
    }


def test_the_balance_loss_evens_the_experts_out() -> None:
    """Inputs that all but one expert would lose: trained by the balance alone, the busiest has a fair share."""
    torch.manual_seed(0)
    layer = Experts(shape(balance=1.0)).train()
    x = torch.randn(512, 8) + 2.0
    with torch.no_grad():
        layer.router.weight[0] = 0.3
    optimizer = torch.optim.Adam([layer.router.weight], 0.02)
    shares = []
    for _ in range(150):
        routing = layer.route(x, None)
        shares.append(float(F.one_hot(routing.expert, N_EXPERTS).float().mean(0).max()))
        optimizer.zero_grad()
        routing.losses["expert_balance"].mean.backward()
        optimizer.step()
    assert shares[0] > 0.9
    assert shares[-1] < 0.4


def test_batches_of_tokens_reach_the_loss_through_output_at() -> None:
    model = MaskedLM(tiny_text_encoder(experts=3))
    model.special, model.mask_id, model.vocab_size = torch.arange(5), 4, 261
    out = model.step(text_batch([20, 12]))
    gradients = torch.autograd.grad(out.total(), [model.encoder.trunk.blocks[1].feed_forward.router.weight])  # type: ignore[union-attr]
    assert gradients[0].abs().max() > 0


@pytest.mark.parametrize("options", [{"experts": 3}, {"attention": "local"}, {"attention": "blocks"}], ids=str)
def test_neither_experts_nor_sparse_attention_wait_for_the_device(options: dict[str, Any]) -> None:
    model = MaskedLM(tiny_text_encoder(**options, window=4))
    model.special, model.mask_id, model.vocab_size = torch.arange(5), 4, 261
    batch = text_batch([60, 50])
    with HostWaits() as waits:
        model.step(batch).total().backward()
    assert waits.found == ["nonzero"]  # the masked positions, as of any trunk
