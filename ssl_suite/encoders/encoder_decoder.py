"""EncoderDecoder: T5's and BART's two stacks over one word embedding, with generation from them."""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_suite.core.batch import TextBatch
from ssl_suite.core.check import one_of, within
from ssl_suite.core.encoder import Encoded, Encoder, Tokens, masked_mean
from ssl_suite.core.errors import UserError
from ssl_suite.core.seq2seq import Seq2SeqBatch
from ssl_suite.encoders.feed_forward import Activation
from ssl_suite.encoders.generation import beam_search, greedy
from ssl_suite.encoders.masks import AttentionMask, positions_within
from ssl_suite.encoders.seq2seq_layers import DecoderCache, Seen, Shape, Stack, StackConfig
from ssl_suite.encoders.tokenizer import token_id
from ssl_suite.encoders.transformer import Dropout


class EncoderDecoder(Encoder):
    """A transformer that reads a sequence and says another (T5, arXiv:1910.10683; BART, arXiv:1910.13461).

    As an encoder, to probes and tasks, it is its first stack.

    Args:
        vocab_size: rows of the embedding; at least the tokenizer's size.
        dim: width.
        layers: blocks of the encoder.
        decoder_layers: blocks of the decoder; default: as many.
        heads: attention heads.
        head_dim: width of each; default: dim / heads.
        ffn: feed-forward width; default 4 · dim.
        shape: t5: norms before the branches, no biases, a bias of logits for each distance; bart: norms after them and
            learned positions.
        activation: relu (T5), geglu_tanh (T5 1.1), gelu (BART), gelu_tanh, geglu or swiglu.
        tied: whether words are predicted by the word embedding, T5's states times D^(−½) then; T5 1.1 has a table more.
        max_length: longest sequence, in or out, for learned positions.
        buckets: of T5's distances.
        reach: the distance from which on all are one.
        dropout: on embeddings and residual branches.
        eps: of the norms; default 1e-6 for T5, 1e-5 for BART.
        start_id: what a decoder begins with: 0, padding, in T5 and in our vocabularies, 2 in BART's.
    """

    modality = "text"

    def __init__(
        self,
        vocab_size: int = 8192,
        dim: int = 256,
        layers: int = 4,
        decoder_layers: int | None = None,
        heads: int = 4,
        head_dim: int | None = None,
        ffn: int | None = None,
        shape: Shape = "t5",
        activation: Activation = "relu",
        tied: bool = True,
        max_length: int = 512,
        buckets: int = 32,
        reach: int = 128,
        dropout: float = 0.1,
        eps: float | None = None,
        start_id: int = 0,
    ) -> None:
        super().__init__()
        counts = {"vocab_size": vocab_size, "dim": dim, "heads": heads, "max_length": max_length, "layers": layers}
        optional = {"decoder_layers": decoder_layers, "head_dim": head_dim, "ffn": ffn}
        for name, value in (counts | {k: v for k, v in optional.items() if v is not None}).items():
            within(name, value, low=1, whole=True)
        one_of("shape", shape, get_args(Shape))
        one_of("activation", activation, get_args(Activation))
        within("dropout", dropout, low=0, below=1)
        within("start_id", start_id, low=0, below=vocab_size, whole=True)
        if head_dim is None and dim % heads:
            raise UserError(f"heads ({heads}) must divide dim ({dim}), or head_dim say how wide each is.")
        eps = eps if eps is not None else 1e-6 if shape == "t5" else 1e-5
        rest = (heads, head_dim or dim // heads, ffn or 4 * dim, shape, activation, dropout, eps)
        self.dim, self.num_states, self.max_length, self.start_id = dim, layers + 1, max_length, start_id
        self.tokens = nn.Embedding(vocab_size, dim)
        self.output = None if tied else nn.Linear(dim, vocab_size, bias=False)
        learned = shape == "bart"
        self.longest = max_length if learned else None
        self.positions = nn.Embedding(max_length, dim) if learned else None
        self.decoder_positions = nn.Embedding(max_length, dim) if learned else None
        self.embedding_norm = nn.LayerNorm(dim, eps) if learned else nn.Identity()
        self.decoder_embedding_norm = nn.LayerNorm(dim, eps) if learned else nn.Identity()
        self.dropout = Dropout(dropout)
        self.encoder = Stack(StackConfig(dim, layers, *rest, buckets=buckets, reach=reach))
        deep = layers if decoder_layers is None else decoder_layers
        self.decoder = Stack(StackConfig(dim, deep, *rest, decodes=True, buckets=buckets, reach=reach))
        self.scale = dim**-0.5 if tied and shape == "t5" else 1.0
        for table in (self.tokens, self.positions, self.decoder_positions):
            if table is not None:
                nn.init.normal_(table.weight, std=0.02 if learned else 1.0)
        if self.output is not None:
            nn.init.normal_(self.output.weight, std=dim**-0.5)

    @property
    def words(self) -> Tensor:
        """(V, D), what the decoder's states are compared with."""
        return self.tokens.weight if self.output is None else self.output.weight

    def embed(self, batch: TextBatch) -> Tokens:
        x = self.dropout(self.embedding_norm(self._placed(batch, self.positions)))
        return Tokens(x, batch.mask, documents=batch.documents, dense=batch.dense)

    def _placed(
        self, batch: TextBatch, table: nn.Embedding | None, places: Tensor | None = None, start: int = 0
    ) -> Tensor:
        """(B, T, D) words, with learned positions where there are some."""
        x, t = self.tokens(batch.ids), batch.ids.shape[1]
        if table is None:
            return x
        if start + t > self.max_length:
            raise UserError(f"A sequence of {start + t} tokens is longer than max_length {self.max_length}.")
        if places is None and batch.documents is not None:
            places = positions_within(batch.documents)
        return x + (table.weight[start : start + t] if places is None else table(places))

    def contextualise(self, tokens: Tokens) -> Encoded:
        x, size = tokens.values, tokens.values.shape[1]
        mask = AttentionMask(False, None if tokens.dense else tokens.mask, tokens.documents).tensor()
        states = self.encoder(x, self.encoder.sight(mask, size, tokens.places, device=x.device))
        return Encoded(states, tokens.mask, masked_mean(states[-1], tokens.mask))

    def decode(self, batch: Seq2SeqBatch, memory: Encoded) -> Tensor:
        """(B, U, D), the states from which `batch.wanted` are predicted by `words`."""
        out, x_mask = batch.decoder, None if batch.decoder.dense else batch.decoder.mask
        x = self._enter(out, batch.places)
        mask = AttentionMask(True, x_mask, out.documents).tensor()
        seen = self.decoder.sight(mask, x.shape[1], None, device=x.device)
        seen.memory = memory_mask(batch, out.documents)
        return self.decoder(x, seen, memory.states[-1])[-1] * self.scale

    def _enter(self, out: TextBatch, places: Tensor | None = None, start: int = 0) -> Tensor:
        return self.dropout(self.decoder_embedding_norm(self._placed(out, self.decoder_positions, places, start)))

    def said(self, batch: Seq2SeqBatch, at: tuple[Tensor, ...]) -> Tensor:
        """(M, D), `decode` at the places `at`."""
        return self.decode(batch, self(batch))[at]

    def logits(self, states: Tensor) -> Tensor:
        """(…, D) of `decode` → (…, V)."""
        return F.linear(states, self.words)

    def next_logits(self, ids: Tensor, memory: Encoded, seen: Tensor | None, cache: DecoderCache) -> Tensor:
        """(N, 1) ids that follow what the cache holds → (N, V) logits of the next.

        Args:
            ids: of N rows, as many for each of the memory's B.
            memory: of the inputs.
            seen: (B, 1, 1, T) which of it is real; None: all.
            cache: of those rows.
        """
        start = cache.own.length
        first = ids[:, 0]
        out = TextBatch(first, first, None, ids, torch.ones_like(ids, dtype=torch.bool), dense=True)
        x = self._enter(out, start=start)
        sight = self.decoder.sight(None, 1, None, start, x.device)
        state = self.decoder(x, Seen(sight.own, sight.causal, seen), memory.states[-1], cache)[-1]
        return self.logits(state[:, -1] * self.scale)

    @torch.no_grad()
    def generate(
        self, batch: TextBatch, length: int = 50, beams: int = 1, length_penalty: float = 1.0, end: int | None = None
    ) -> list[list[int]]:
        """Says what follows from each input, the likeliest as far as a search finds it.

        Args:
            batch: of B inputs.
            length: most new tokens.
            beams: outputs that are followed at once; 1 takes the likeliest token each time.
            length_penalty: power of the length that a beam's log-likelihood is divided by.
            end: id of the end token; default: the tokenizer's.

        Returns:
            B lists of ids, without start and end.
        """
        within("length", length, low=1, whole=True)
        within("beams", beams, low=1, high=len(self.words), whole=True)
        within("length_penalty", length_penalty, low=0)
        if self.longest is not None and length > self.longest:
            raise UserError(f"length is {length}, the decoder writes {self.longest} tokens; lower it to that.")
        end = token_id(self.tokenizer, "end") if end is None else end
        training = self.training
        self.eval()
        try:
            memory, seen, cache = self(batch), memory_mask(batch, None), DecoderCache()
            n, device = len(batch.ids), batch.ids.device

            def advance(ids: Tensor, rows: Tensor | None) -> Tensor:
                if rows is not None:
                    cache.select(rows)
                return self.next_logits(ids, memory, seen, cache).float().log_softmax(-1)

            if beams == 1:
                return greedy(advance, n, self.start_id, end, length, device)
            return beam_search(advance, n, self.start_id, end, length, beams, length_penalty, device)
        finally:
            self.train(training)

    def unread(self) -> list[nn.Parameter]:
        first = (self.tokens, self.positions, self.embedding_norm, self.encoder)
        read = {id(p) for module in first if module is not None for p in module.parameters()}
        return [p for p in self.parameters() if id(p) not in read]

    def blocks(self) -> list[nn.Module]:
        return [*self.encoder.blocks, *self.decoder.blocks]

    def feed_forwards(self) -> list[nn.Module]:
        return [block.feed_forward for block in self.encoder.blocks]  # type: ignore[misc]

    def layers(self) -> list[list[nn.Parameter]]:
        """Embeddings and distances, then each block of the encoder and of the decoder."""
        inside = {id(p) for block in self.blocks() for p in block.parameters()}
        above = [*self.decoder.norm.parameters(), *(self.output.parameters() if self.output is not None else [])]
        inside |= {id(p) for p in above}
        first = [p for p in self.parameters() if id(p) not in inside]
        layers: list[Any] = [first, *(list(block.parameters()) for block in self.blocks())]
        layers[-1] += above
        return layers


def memory_mask(batch: TextBatch, documents: Tensor | None) -> Tensor | None:
    """(B, 1, 1 or U, T) which of a batch's inputs a decoder sees: real ones, of its own (B, U) `documents`."""
    seen = None if batch.dense else batch.mask[:, None, None, :]
    if documents is None or batch.documents is None:
        return seen
    own = (documents[:, :, None] == batch.documents[:, None, :])[:, None]
    return own if seen is None else own & seen
