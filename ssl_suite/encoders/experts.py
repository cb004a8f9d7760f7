"""Experts: a feed-forward layer of which each token uses one part (Switch Transformer, arXiv:2101.03961).

What is unusual: tokens are sorted by expert and multiplied in groups, so that no room is kept for those that never come
and the work is a dense layer's; a capacity is held in training alone, so that no batch mate changes a state elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_suite.core.expert_parallel import ExpertLayer, Journey, averaged, inverse
from ssl_suite.core.term import Term
from ssl_suite.encoders.feed_forward import activated
from ssl_suite.encoders.trunk import TrunkConfig

LEAST_CAPACITY = 4
"""Tokens an expert takes whatever the capacity factor, as in the authors' Mesh TensorFlow."""
LOSSES = ("expert_balance", "router_z", "dropped_tokens", "busiest_expert")
"""What `Experts` asks to be added to a loss; the last two are figures, of scale 0."""


@dataclass(frozen=True, eq=False)
class Routing:
    """Where N tokens go.

    Attributes:
        expert: (N,) the expert of each.
        gate: (N,) its probability, float32.
        taken: (N,) False where the expert was full.
        order: (N,) the tokens sorted by expert.
        ends: (E,) int32, how many tokens experts 0 to e have between them.
        losses: terms of `LOSSES`.
    """

    expert: Tensor
    gate: Tensor
    taken: Tensor
    order: Tensor
    ends: Tensor
    losses: dict[str, Term]


class Experts(ExpertLayer):
    """E gated-by-a-router copies of a feed-forward layer, without biases.

    Losses are means over the tokens of a layer, and sums over layers: the balance α·E·Σ f·P of equation 4, f the share
    of tokens whose first choice an expert is, whether it had room or not; and the router's z-loss (arXiv:2202.08906,
    equation 5). Where the experts are spread over processes, tokens are those of all of them.
    """

    of_experts = ("up", "down")

    def __init__(self, c: TrunkConfig) -> None:
        super().__init__()
        self.config = c
        self.router = nn.Linear(c.dim, c.experts, bias=False)
        self.up = nn.Parameter(torch.empty(c.experts, c.dim, 2 * c.hidden if c.gated else c.hidden))
        self.down = nn.Parameter(torch.empty(c.experts, c.hidden, c.dim))
        nn.init.normal_(self.up, std=0.02)
        nn.init.normal_(self.down, std=0.02)

    def forward(self, x: Tensor, real: Tensor | None = None, losses: dict[str, Term] | None = None) -> Tensor:
        """(…, D) → (…, D): the chosen expert's output times its probability, zero where that expert was full.

        Args:
            x: states.
            real: (…) False = padding, which takes no expert's room and counts in no loss.
            losses: the layer's own are added to these.
        """
        tokens = x.flatten(0, -2)  # (N, D)
        routing = self.route(tokens, None if real is None else real.flatten())
        if losses is not None:
            for name, term in routing.losses.items():
                before = losses.get(name, Term(torch.zeros_like(term.sum), 1.0))
                losses[name] = Term(before.sum + term.sum, 1.0, term.scale)
        if self.part.size > 1:
            y = self.compute_abroad(tokens, routing)
        else:
            y = self.compute(tokens.index_select(0, routing.order), routing.ends)
            y = y.index_select(0, inverse(routing.order))
        return (y * (routing.gate * routing.taken).to(y.dtype)[:, None]).view(*x.shape[:-1], -1)

    def matrices(self) -> dict[Tensor, int]:
        return {weight: len(weight) for weight in (self.up, self.down)}  # of the experts that are here

    def compute(self, tokens: Tensor, ends: Tensor) -> Tensor:
        """(N, D) sorted by expert → (N, D)."""
        device, dtype = tokens.device.type, tokens.dtype
        if tokens.is_meta:
            dtype = torch.bfloat16  # the one that the product has there, where plans are made
        elif torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        up, down = (averaged(weight.to(dtype), self.part) for weight in (self.up, self.down))
        hidden = F.grouped_mm(tokens.to(dtype), up, offs=ends)
        return F.grouped_mm(activated(hidden, self.config.activation), down, offs=ends)

    def compute_abroad(self, tokens: Tensor, routing: Routing) -> Tensor:
        """(N, D) → (N, D) by the processes that hold the experts; tokens without room stay, as zeros."""
        leaving = routing.order[routing.taken[routing.order]]
        expert = torch.arange(self.config.experts, device=tokens.device)
        counts = (routing.expert[leaving][:, None] == expert).sum(0)
        journey = Journey(counts, self.part)
        y = journey.back(self.compute(journey.out(tokens.index_select(0, leaving)), journey.ends))
        return torch.zeros_like(tokens, dtype=y.dtype).index_copy(0, leaving, y)

    def route(self, tokens: Tensor, real: Tensor | None) -> Routing:
        """Sends (N, D) tokens to their experts; logits and softmax in float32, whatever the precision (section 2.4)."""
        c, n = self.config, len(tokens)
        x = tokens.float()
        if self.training and c.router_jitter:
            x = x * torch.empty_like(x).uniform_(1 - c.router_jitter, 1 + c.router_jitter)
        with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):
            logits = F.linear(x, self.router.weight.float())  # (N, E)
        probabilities = logits.softmax(-1)
        gate, expert = probabilities.max(-1)
        counted = torch.ones(n, device=x.device) if real is None else real.float()
        chosen = (expert[:, None] == torch.arange(c.experts, device=x.device)).float()  # (N, E)
        firsts = self.part.gather((chosen * counted[:, None]).sum(0))  # (processes, E)
        total = firsts.sum().clamp(min=1)
        first = firsts.sum(0) / total  # f, the share of each expert
        taken = torch.ones(n, dtype=torch.bool, device=x.device)
        if self.training:
            capacity = (total * c.capacity / c.experts).floor().clamp(min=LEAST_CAPACITY)
            before = (chosen * counted[:, None]).cumsum(0) + firsts[: self.part.rank].sum(0)
            before = before.gather(1, expert[:, None])[:, 0]  # tokens of its expert up to it
            taken = (before <= capacity) | (counted == 0)
        squares = logits.logsumexp(-1, keepdim=True).square()
        sums = (torch.cat([probabilities, squares], 1) * counted[:, None]).sum(0)  # (E + 1,)
        mean, z = (self.part.enter(self.part.leave(sums)) / total).split([c.experts, 1])  # P, and that of the z-loss
        full = self.part.sum(((~taken).float() * counted).sum()) / total
        losses = {
            "expert_balance": Term(c.experts * (first * mean).sum(), 1.0, c.balance),
            "router_z": Term(z.sum(), 1.0, c.router_z),
            "dropped_tokens": Term(full / c.expert_layers, 1.0, 0.0),
            "busiest_expert": Term(c.experts * first.amax() / c.expert_layers, 1.0, 0.0),
        }
        ends = chosen.sum(0).cumsum(0).int()
        return Routing(expert, gate, taken, expert.argsort(stable=True), ends, losses)
