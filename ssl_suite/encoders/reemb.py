"""`reemb:ENCODER`: a pretrained text encoder whose word vectors are dealt out anew."""

from __future__ import annotations

import torch

from ssl_suite.core.encoder import Encoder
from ssl_suite.core.errors import UserError
from ssl_suite.core.load import add_scheme, load_encoder
from ssl_suite.core.random import drawn_from, run_seed
from ssl_suite.encoders.text import TextEncoder
from ssl_suite.encoders.tokenizer import special_ids


def reembedded(source: str) -> Encoder:
    """Shuffles the rows of the token embedding ("re-emb", arXiv:2103.07162): what words mean is lost, the trunk stays.

    The special tokens keep their vectors. The draw is from the run's seed, as that of `random:` is.

    Args:
        source: an encoder folder or URI.
    """
    encoder = load_encoder(source)
    if not isinstance(encoder, TextEncoder):
        raise UserError(f"reemb: shuffles the word vectors of a text encoder; {source} is {type(encoder).__name__}.")
    special = set(special_ids(encoder.tokenizer)) if encoder.tokenizer is not None else set()
    words = torch.tensor([i for i in range(encoder.tokens.num_embeddings) if i not in special])
    with torch.no_grad(), drawn_from(run_seed()):
        encoder.tokens.weight[words] = encoder.tokens.weight[words[torch.randperm(len(words))]]
    return encoder


add_scheme("reemb", reembedded)
