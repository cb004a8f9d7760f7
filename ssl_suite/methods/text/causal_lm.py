"""CausalLM: GPT's objective, predict the next token, and generation from it."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_suite.core.batch import TextBatch
from ssl_suite.core.check import within
from ssl_suite.core.encoder import Encoder, expect
from ssl_suite.core.errors import UserError
from ssl_suite.core.method import Method, StepOutput
from ssl_suite.core.optim import Optim
from ssl_suite.core.tensor_parallel import Plan, part_of
from ssl_suite.core.term import Term
from ssl_suite.encoders.text import TextEncoder
from ssl_suite.encoders.tokenizer import special_ids, token_id
from ssl_suite.encoders.transformer import KVCache
from ssl_suite.methods.text.vocabulary import encoder_flops, product_flops, vocabulary_loss


class CausalLM(Method):
    """Predict each next token from those before it (Radford et al. 2019, GPT-2).

    Args:
        encoder: a causal text encoder.
        optim: how weights are updated; GPT-2 124M used lr 6e-4, betas (0.9, 0.95), weight decay 0.1.
    """

    encoder: TextEncoder
    perplexity = True

    def __init__(
        self,
        encoder: Encoder | str,
        optim: Optim = Optim(lr=6e-4, betas=(0.9, 0.95), weight_decay=0.1, warmup_ratio=0.01, final_lr=0.1),
    ) -> None:
        super().__init__(encoder, optim)
        expect(self.encoder, "text", "CausalLM")
        if not self.encoder.config.get("causal"):
            raise UserError("CausalLM needs an encoder with causal: true; this one would see the token it predicts.")
        if self.encoder.asks:
            self.likelihood = "token_loss"

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.end_id = token_id(self.encoder.tokenizer, "end")

    def step(self, batch: TextBatch) -> StepOutput:
        encoded, at = self.encoder(batch), self.predicted(batch).nonzero(as_tuple=True)
        states, targets = encoded.states[-1][:, :-1][at], batch.ids[:, 1:][at]
        words = self.encoder.tokens
        loss = Term(vocabulary_loss(states, words.weight, None, targets, part_of(words)), len(targets))
        return StepOutput.of({self.likelihood: loss, **encoded.losses}, features=encoded.pooled)

    def predicted(self, batch: TextBatch, ahead: int = 1) -> Tensor:
        """(B, T − ahead) which tokens are predicted from the one so many before."""
        return followers(batch, self.end_id, ahead)

    def tensor_plan(self, size: int) -> Plan:
        return {f"encoder.{name}": style for name, style in self.encoder.tensor_plan(size).items()}

    def forward_flops(self, length: int) -> float:
        return encoder_flops(self.encoder, length) + product_flops(self.encoder.tokens.weight, length - 1)

    def counts(self, batch: TextBatch) -> dict[str, Tensor | float]:
        return {self.likelihood: self.predicted(batch).sum(), **dict.fromkeys(self.encoder.asks, 1.0)}

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        if (density := self.data.tokens_per_byte("validation")) is not None:  # comparable across tokenizers
            self.log(
                "val/bits_per_byte", self.trainer.callback_metrics[f"val/{self.likelihood}"] / math.log(2) * density
            )

    def logits(self, states: Tensor) -> Tensor:
        """(…, D) → (…, V) by the transposed word embedding."""
        return F.linear(states, self.encoder.tokens.weight)

    @torch.no_grad()
    def generate(
        self, prompt: str, length: int = 50, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, seed: int = 0
    ) -> str:
        """Continues `prompt`.

        Args:
            prompt: text to continue.
            length: most new tokens; generation ends early at the end-of-document token, and where the encoder's
                learned positions end.
            temperature: of the softmax; 0 takes the likeliest token.
            top_k: draw among the k likeliest; 0 for all.
            top_p: draw among the likeliest whose probabilities reach p.
            seed: of the draws.

        Raises:
            UserError: an option is out of its range.
        """
        within("length", length, low=1, whole=True)
        within("temperature", temperature, low=0)
        within("top_k", top_k, low=0, whole=True)
        within("top_p", top_p, above=0, high=1)
        training = self.encoder.training
        try:
            return generate(self, prompt, length, temperature, top_k, top_p, seed)
        finally:
            self.encoder.train(training)


def followers(batch: TextBatch, end_id: int, ahead: int = 1) -> Tensor:
    """(B, T − ahead) which tokens follow the one so many before in its document: none across its end."""
    d = batch.documents
    if d is None:  # documents that ended before each token
        ended = (batch.ids == end_id).long()
        d = ended.cumsum(1) - ended
    return batch.mask[:, ahead:] & (d[:, :-ahead] == d[:, ahead:])


@torch.no_grad()
def generate(model: CausalLM, prompt: str, length: int, temperature: float, top_k: int, top_p: float, seed: int) -> str:
    """See `CausalLM.generate`; keys and values of what was read are kept, so each step costs one token."""
    encoder, tokenizer = model.encoder.eval(), model.encoder.tokenizer
    device = next(encoder.parameters()).device
    start, end = token_id(tokenizer, "start"), token_id(tokenizer, "end")
    banned = torch.tensor([i for i in special_ids(tokenizer) if i != end], device=device)
    generator = torch.Generator(device).manual_seed(seed)
    ids = [start, *tokenizer.encode(prompt, add_special_tokens=False).ids]
    limit = encoder.longest or len(ids) + length
    if len(ids) >= limit and length > 0:
        raise UserError(
            f"The prompt has {len(ids)} tokens with its start token, the encoder reads {limit}: nothing can follow it; "
            "shorten it."
        )
    cache, feed = KVCache(), ids
    for _ in range(min(length, limit - len(ids))):
        tokens = torch.tensor([feed], device=device)
        batch = TextBatch(
            tokens[:, 0], tokens[:, 0], None, tokens, torch.ones_like(tokens, dtype=torch.bool), dense=True
        )
        logits = model.logits(encoder(batch, cache).states[-1][0, -1]).float()
        logits[banned] = -torch.inf
        logits[tokenizer.get_vocab_size() :] = -torch.inf
        feed = [pick(logits, temperature, top_k, top_p, generator)]
        if feed[0] == end:
            break
        ids += feed
    return tokenizer.decode(ids)


def pick(logits: Tensor, temperature: float, top_k: int, top_p: float, generator: torch.Generator) -> int:
    """Draws a token from (V,) logits."""
    if temperature == 0:
        return int(logits.argmax())
    logits = logits / temperature
    if top_k:
        logits = logits.masked_fill(logits < logits.topk(min(top_k, len(logits))).values[-1], -torch.inf)
    probabilities, order = logits.softmax(-1).sort(descending=True)
    if top_p < 1:  # keep the fewest whose sum reaches p, always the first
        beyond = probabilities.cumsum(-1) - probabilities >= top_p
        beyond[0] = False
        probabilities = probabilities.masked_fill(beyond, 0)
    return int(order[torch.multinomial(probabilities, 1, generator=generator)])
