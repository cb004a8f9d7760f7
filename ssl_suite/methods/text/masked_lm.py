"""MaskedLM: BERT's objective, computed at the masked positions only."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_suite.core.batch import TextBatch
from ssl_suite.core.encoder import Encoder, expect
from ssl_suite.core.method import Method, StepOutput
from ssl_suite.core.optim import Optim
from ssl_suite.encoders.text import TextEncoder
from ssl_suite.encoders.tokenizer import special_ids, token_id
from ssl_suite.methods.text.corrupt import bert_mask
from ssl_suite.methods.text.vocabulary import vocabulary_loss


class MaskedLM(Method):
    """Predict masked tokens from both sides (Devlin et al. 2019, arXiv:1810.04805).

    Args:
        encoder: a bidirectional text encoder.
        rate: share of tokens to predict, drawn anew every epoch; 0.15 in BERT, 0.3 in ModernBERT.
        val_rate: the same for validation.
        optim: how weights are updated.
    """

    encoder: TextEncoder
    perplexity = True
    heads = ("head",)
    special: Tensor

    def __init__(
        self,
        encoder: Encoder | str,
        rate: float = 0.15,
        val_rate: float = 0.15,
        optim: Optim = Optim(lr=1e-4, weight_decay=0.01, warmup_ratio=0.01, schedule="linear"),
    ) -> None:
        super().__init__(encoder, optim)
        expect(self.encoder, "text", "MaskedLM")
        self.rate, self.val_rate = rate, val_rate
        self.head = MaskedHead(self.encoder)
        self.take_heads()
        self.register_buffer("special", torch.empty(0, dtype=torch.long), persistent=False)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        tokenizer = self.encoder.tokenizer
        self.special = torch.tensor(special_ids(tokenizer), device=self.device)
        self.mask_id, self.vocab_size = token_id(tokenizer, "mask"), tokenizer.get_vocab_size()

    def step(self, batch: TextBatch) -> StepOutput:
        rate = self.rate if self.training else self.val_rate
        corrupted, chosen = bert_mask(batch, self.special, self.mask_id, self.vocab_size, rate)
        at = chosen.nonzero(as_tuple=True)
        output, targets = self.encoder.output_at(replace(batch, ids=corrupted), at), batch.ids[at]  # (M, D), (M,)
        states, words = self.head.transform(output), self.encoder.tokens.weight
        loss = vocabulary_loss(states, words, self.head.bias, targets) / max(1, len(targets))
        return StepOutput(loss, features=output, weight=len(targets))


class MaskedHead(nn.Module):
    """BERT's transform to the embedding's width, then the transposed word embedding with a bias of its own."""

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        tokens, trunk = encoder.tokens, encoder.trunk.config
        self.dense = nn.Linear(encoder.dim, tokens.embedding_dim)
        self.activation = nn.GELU("tanh" if trunk.activation == "gelu_tanh" else "none")
        self.norm = nn.LayerNorm(tokens.embedding_dim, trunk.eps)
        self.bias = nn.Parameter(torch.zeros(tokens.num_embeddings))
        self.tied = [tokens]  # in a list: the encoder owns the embedding

    def transform(self, x: Tensor) -> Tensor:
        """(M, D) → (M, E), what is compared with the word embedding."""
        return self.norm(self.activation(self.dense(x)))

    def forward(self, x: Tensor) -> Tensor:
        """(M, D) → (M, V) logits."""
        return F.linear(self.transform(x), self.tied[0].weight, self.bias)
