"""Muon: orthogonal updates of AdamW's size, fused matrices taken apart, each parameter with one optimizer."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny import tiny_image_encoder, tiny_speech_encoder, tiny_text_encoder
from torch import nn

from ssl_suite.core.errors import UserError
from ssl_suite.core.muon import Muon, MuonAdamW, hidden_matrices, orthogonalize, split_matrices
from ssl_suite.core.optim import Optim, build_optimizer, build_schedule, check_cover, parameter_groups
from ssl_suite.methods.text.causal_lm import CausalLM
from ssl_suite.methods.text.masked_lm import MaskedLM


@pytest.mark.parametrize("shape", [(32, 32), (96, 24), (24, 96), (3, 32, 16)])
def test_an_update_has_all_singular_values_near_one(shape: tuple[int, ...]) -> None:
    matrix = torch.randn(shape) * 1e-3
    made = orthogonalize(matrix)
    values = torch.linalg.svdvals(made)
    assert values.min() > 0.3
    assert values.max() < 1.25
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    cosine = (made * (u @ v)).sum((-2, -1)) / (made.norm(dim=(-2, -1)) * (u @ v).norm(dim=(-2, -1)))
    assert cosine.min() > 0.97


def test_steps_are_those_of_torch() -> None:
    """Which has the iteration in bfloat16; so the tolerance."""
    ours, theirs = (nn.Parameter(torch.linspace(-1, 1, 24 * 16).view(24, 16).sin()) for _ in range(2))
    mine = Muon([{"params": [ours], "parts": 1, "weight_decay": 0.1}], lr=0.02)
    torchs = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        gradient = torch.randn(24, 16)
        before = ours.detach().clone()
        for p, optimizer in ((ours, mine), (theirs, torchs)):
            p.grad = gradient.clone()
            optimizer.step()
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0.02 * (ours - before).abs().max().item() * 4)


def test_an_update_is_as_large_as_adamws() -> None:
    """arXiv:2502.16982: root mean square 0.2 to 0.4; the scale is that of the matrix's longer side."""
    for shape in ((16, 64), (64, 16), (40, 40)):
        p = nn.Parameter(torch.zeros(shape))
        p.grad = torch.randn(shape)
        Muon([{"params": [p]}], lr=1.0).step()
        assert p.detach().square().mean().sqrt() == pytest.approx(0.2, rel=0.25)


def test_a_fused_matrix_is_updated_as_three_matrices() -> None:
    fused = nn.Parameter(torch.randn(48, 16))
    apart = [nn.Parameter(part.clone()) for part in fused.detach().chunk(3)]
    together = Muon([{"params": [fused], "parts": 3}], lr=0.1, weight_decay=0.1)
    alone = Muon([{"params": apart}], lr=0.1, weight_decay=0.1)
    for _ in range(3):
        fused.grad = torch.randn(48, 16) * torch.tensor([1.0, 1e-4, 50.0]).repeat_interleave(16)[:, None]
        for part, gradient in zip(apart, fused.grad.chunk(3), strict=True):
            part.grad = gradient.clone()
        together.step()
        alone.step()
    torch.testing.assert_close(fused.detach(), torch.cat([p.detach() for p in apart]))


@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
def test_only_hidden_matrices_are_muons_and_nothing_is_left_out(activation: str) -> None:
    model = MaskedLM(tiny_text_encoder(activation=activation, segments=2))
    groups = split_matrices(parameter_groups(model, 0.1), hidden_matrices(model))
    check_cover(model, groups)
    names = {id(p): name for name, p in model.named_parameters()}
    parts = {names[id(p)]: g["parts"] for g in groups if "parts" in g for p in g["params"]}
    per_block = {"attention.qkv": 3, "attention.out": 1, "feed_forward.up": 1, "feed_forward.down": 1}
    per_block["feed_forward.up"] = 2 if activation == "swiglu" else 1
    wanted = {f"encoder.trunk.blocks.{i}.{name}.weight": n for i in range(2) for name, n in per_block.items()}
    assert parts == wanted
    assert all(g["weight_decay"] == 0.1 for g in groups if "parts" in g)


def test_every_transformer_has_hidden_matrices_and_others_say_so() -> None:
    assert len(hidden_matrices(tiny_speech_encoder(trunk="transformer"))) == 8
    with pytest.raises(UserError, match="hidden matrices"):
        split_matrices(parameter_groups(tiny_image_encoder(), 0.0), hidden_matrices(tiny_image_encoder()))


def test_rest_is_adamws_and_schedule_acts_on_both() -> None:
    model, twin = (CausalLM(tiny_text_encoder(causal=True, dropout=0.0)) for _ in range(2))
    twin.load_state_dict(model.state_dict())
    optim = Optim("muon", warmup_steps=4, betas=(0.8, 0.9))
    groups = split_matrices(parameter_groups(model, 0.1), hidden_matrices(model))
    optimizer = build_optimizer(optim, groups, lr=0.4)
    adamw = build_optimizer(Optim(betas=(0.8, 0.9)), parameter_groups(twin, 0.1), lr=0.4)
    schedules = [build_schedule(optim, o, 10, 5) for o in (optimizer, adamw)]
    assert isinstance(optimizer, MuonAdamW)
    for step in range(3):
        for p, q in zip(model.parameters(), twin.parameters(), strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        for o, schedule in zip((optimizer, adamw), schedules, strict=True):
            o.step()
            schedule.step()
        assert {g["lr"] for g in optimizer.muon.param_groups} == {g["lr"] for g in optimizer.adamw.param_groups}
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.4 * min(1, (step + 2) / 4))
    hidden = {id(p) for p in hidden_matrices(model)}
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q) != (id(p) in hidden)


def test_state_goes_round_a_file_and_the_halves_still_share_it() -> None:
    def made() -> tuple[CausalLM, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = CausalLM(tiny_text_encoder(causal=True))
        groups = split_matrices(parameter_groups(model, 0.1), hidden_matrices(model))
        return model, build_optimizer(Optim("muon"), groups, lr=0.1)

    def advance(model: CausalLM, optimizer: torch.optim.Optimizer, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()

    model, optimizer = made()
    advance(model, optimizer, 1)
    other, second = made()
    other.load_state_dict(model.state_dict())
    second.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for m, o in ((model, optimizer), (other, second)):
        for group in o.param_groups:
            group["lr"] = 0.03
        advance(m, o, 2)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True))


def test_muon_with_layer_decay_keeps_each_layers_rate() -> None:
    hidden = {nn.Parameter(torch.ones(2, 2)): 1, nn.Parameter(torch.ones(6, 2)): 3}
    vector = nn.Parameter(torch.ones(2))
    groups = [{"params": [p], "weight_decay": 0.1, "lr_factor": 0.5**i} for i, p in enumerate([*hidden, vector])]
    optimizer = build_optimizer(Optim("muon"), split_matrices(groups, hidden), lr=1.0)
    assert [(g["lr"], g.get("parts")) for g in optimizer.param_groups] == [(1.0, 1), (0.5, 3), (0.25, None)]


def test_experts_are_hidden_matrices_each_of_its_own() -> None:
    encoder = tiny_text_encoder(experts=3, experts_every=1, activation="gelu")
    layer = encoder.trunk.blocks[0].feed_forward
    hidden = hidden_matrices(encoder)
    assert hidden[layer.up] == hidden[layer.down] == 3
    before, gradient = layer.up.detach().clone(), torch.randn(layer.up.shape)
    layer.up.grad = gradient
    Muon([{"params": [layer.up], "parts": 3}], lr=1e-2).step()
    alone = [nn.Parameter(w.clone()) for w in before]
    for p, g in zip(alone, gradient, strict=True):
        p.grad = g.clone()
    Muon([{"params": alone, "parts": 1}], lr=1e-2).step()
    torch.testing.assert_close(layer.up.detach(), torch.stack([p.detach() for p in alone]))
