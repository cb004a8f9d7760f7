"""MaskedLM: BERT's objective, computed at the masked positions only, and the family's variations on it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_suite.core.batch import TextBatch
from ssl_suite.core.check import within
from ssl_suite.core.data import Request
from ssl_suite.core.encoder import Encoder, expect
from ssl_suite.core.errors import UserError
from ssl_suite.core.method import Method, StepOutput
from ssl_suite.core.optim import Optim
from ssl_suite.core.tensor_parallel import Plan, part_of
from ssl_suite.core.term import Term
from ssl_suite.encoders.text import TextEncoder
from ssl_suite.encoders.tokenizer import special_ids, token_id, word_starts
from ssl_suite.methods.text.corrupt import maskable, replace_tokens
from ssl_suite.methods.text.mask import Mask
from ssl_suite.methods.text.vocabulary import encoder_flops, product_flops, vocabulary_loss


class MaskedLM(Method):
    """Predict masked tokens from both sides (Devlin et al. 2019, arXiv:1810.04805).

    BERT, RoBERTa, ALBERT, SpanBERT and ERNIE are recipes of it, in configs/text. Validation masks as training does, but
    always at `val_rate`; `ssl-suite validate` with `--model.mask.kind token` compares runs of different masks.

    Args:
        encoder: a bidirectional text encoder.
        rate: share of tokens to predict, drawn anew every epoch; 0.15 in BERT, 0.3 in ModernBERT.
        final_rate: the share at the last step, reached linearly; default: `rate` throughout.
        val_rate: the same for validation.
        mask: what is masked together.
        pairs: the second objective: nsp, does the second segment follow the first or come from another document (BERT);
            sop, are two consecutive segments in order or swapped (ALBERT, arXiv:1909.11942, section 3.1).
        optim: how weights are updated.
    """

    encoder: TextEncoder
    perplexity = True
    heads: tuple[str, ...] = ("head",)
    special: Tensor
    word_starts: Tensor

    def __init__(
        self,
        encoder: Encoder | str,
        rate: float = 0.15,
        final_rate: float | None = None,
        val_rate: float = 0.15,
        mask: Mask = Mask(),
        pairs: Literal["none", "nsp", "sop"] = "none",
        optim: Optim = Optim(lr=1e-4, weight_decay=0.01, warmup_ratio=0.01, schedule="linear"),
    ) -> None:
        super().__init__(encoder, optim)
        final_rate = rate if final_rate is None else final_rate
        for name, share in (("rate", rate), ("final_rate", final_rate), ("val_rate", val_rate)):
            within(name, share, above=0, high=1)
        expect(self.encoder, "text", "MaskedLM")
        if not isinstance(self.encoder, TextEncoder) or self.encoder.trunk.config.causal:
            raise UserError("MaskedLM needs a bidirectional TextEncoder (causal: false), which sees both sides.")
        self.rate, self.final_rate, self.val_rate = rate, final_rate, val_rate
        self.mask, self.pairs, self.progress = mask, pairs, 0.0
        self.head = MaskedHead(self.encoder)
        if pairs != "none":
            if self.encoder.config.get("segments", 0) < 2:
                raise UserError(f"pairs: {pairs} needs an encoder with segments: 2, to tell the two segments apart.")
            self.pair_head = PairHead(self.encoder.dim)
            self.heads = ("head", "pair_head")
        if pairs != "none" or self.encoder.asks:
            self.likelihood = "token_loss"
        self.take_heads()
        self.register_buffer("special", torch.empty(0, dtype=torch.long), persistent=False)
        self.register_buffer("word_starts", torch.empty(0, dtype=torch.bool), persistent=False)

    def request(self) -> Request:
        pairs = None if self.pairs == "none" else self.pairs
        return replace(super().request(), pairs=pairs, phrases=self.mask.kind == "phrase")

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.use_tokenizer(self.encoder.tokenizer)

    def use_tokenizer(self, tokenizer: Any) -> None:
        """Takes from the tokenizer which ids are special and which begin a word."""
        self.special = torch.tensor(special_ids(tokenizer), device=self.device)
        self.word_starts = torch.tensor(word_starts(tokenizer), device=self.device)
        self.mask_id, self.vocab_size = token_id(tokenizer, "mask"), tokenizer.get_vocab_size()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_start(batch, batch_idx)
        self.progress = self.trainer.global_step / int(self.trainer.estimated_stepping_batches)

    def step(self, batch: TextBatch) -> StepOutput:
        corrupted, chosen = self.corrupt(batch)
        at, n = chosen.nonzero(as_tuple=True), len(batch)
        first = torch.arange(n, device=chosen.device) if self.pairs != "none" else at[0][:0]
        places = torch.cat([at[0], first]), torch.cat([at[1], torch.zeros_like(first)])
        losses: dict[str, Term] = {}
        output = self.encoder.output_at(replace(batch, ids=corrupted), places, losses)
        output, cls = output.tensor_split([len(at[0])])
        states, targets = self.head.transform(output), batch.ids[at]  # (M, D), (M,)
        words = self.encoder.tokens
        loss = vocabulary_loss(states, words.weight, self.head.bias, targets, part_of(words))
        terms = {self.likelihood: Term(loss, len(targets))}
        logs = {}
        if self.pairs != "none":
            assert batch.pair is not None
            logits = self.pair_head(cls)  # (B, 2)
            terms["pair_loss"] = Term(F.cross_entropy(logits, batch.pair, reduction="sum"), n)
            logs["pair_accuracy"] = (logits.argmax(1) == batch.pair).float().mean()
        return StepOutput.of(terms | losses, logs, output)

    def tensor_plan(self, size: int) -> Plan:
        return {f"encoder.{name}": style for name, style in self.encoder.tensor_plan(size).items()}

    def forward_flops(self, length: int) -> float:
        return self.flops_at(self.rate, length)

    def flops_at(self, rate: float, length: int) -> float:
        """FLOPs of a row of which that share is predicted."""
        predicted = rate * length
        heads = product_flops(self.head.dense.weight, predicted) + product_flops(self.encoder.tokens.weight, predicted)
        return encoder_flops(self.encoder, length, round(predicted)) + heads

    def counts(self, batch: TextBatch) -> dict[str, Tensor | float]:
        masked = self.corrupt(batch)[1].sum()
        pairs = {} if self.pairs == "none" else {"pair_loss": len(batch)}
        return {self.likelihood: masked, **pairs, **dict.fromkeys(self.encoder.asks, 1.0)}

    def corrupt(self, batch: TextBatch) -> tuple[Tensor, Tensor]:
        """Returns corrupted ids and the positions to predict, (B, T) bool."""
        rate = self.rate + self.progress * (self.final_rate - self.rate) if self.training else self.val_rate
        allowed = maskable(batch, self.special)
        words = allowed if self.mask.kind == "token" else self.word_starts[batch.ids]
        chosen, fate = self.mask.choose(allowed, words, batch.phrases, batch.seed, rate, self.progress)
        ids = replace_tokens(batch.ids, chosen, batch.seed, self.special, self.mask_id, self.vocab_size, fate)
        return ids, chosen


class MaskedHead(nn.Module):
    """BERT's transform to the embedding's width, then the transposed word embedding with a bias of its own."""

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        tokens, trunk = encoder.tokens, encoder.trunk.config
        self.dense = nn.Linear(encoder.dim, tokens.embedding_dim, trunk.bias)
        self.activation = nn.GELU("tanh" if trunk.activation == "gelu_tanh" else "none")
        self.norm = replace(trunk, dim=tokens.embedding_dim, heads=1).norm_layer()
        self.bias = nn.Parameter(torch.zeros(tokens.num_embeddings))
        self.tied = [tokens]  # in a list: the encoder owns the embedding

    def transform(self, x: Tensor) -> Tensor:
        """(M, D) → (M, E), what is compared with the word embedding."""
        return self.norm(self.activation(self.dense(x)))

    def forward(self, x: Tensor) -> Tensor:
        """(M, D) → (M, V) logits."""
        return F.linear(self.transform(x), self.tied[0].weight, self.bias)


class PairHead(nn.Module):
    """BERT's pooler of the first state and its classifier: 0 = the second segment follows as it should."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dense, self.out = nn.Linear(dim, dim), nn.Linear(dim, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) → (B, 2) logits."""
        return self.out(self.dense(x).tanh())
