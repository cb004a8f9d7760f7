"""Text continued by a causal encoder: `ssl-suite generate`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from ssl_suite.core.check import within
from ssl_suite.core.errors import UserError
from ssl_suite.core.folder import load_encoder
from ssl_suite.plugins import load_all


def continuations(
    encoder: str,
    prompts: Sequence[str],
    length: int = 50,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    count: int = 1,
    seed: int = 0,
) -> Iterator[tuple[str, str]]:
    """Continues prompts, see `CausalLM.generate`.

    Args:
        encoder: folder or URI.
        prompts: texts to continue.
        length: most new tokens.
        temperature: of the softmax; 0 takes the likeliest token.
        top_k: draw among the k likeliest; 0 for all.
        top_p: draw among the likeliest whose probabilities reach p.
        count: continuations of each prompt; number i is drawn with `seed` + i.
        seed: of the first.

    Yields:
        (prompt, the prompt and what follows).

    Raises:
        UserError: the encoder generates no text, or an option does not fit.
    """
    from ssl_suite.methods.text.causal_lm import CausalLM

    within("--count", count, low=1, whole=True)
    if not prompts:
        raise UserError("There is nothing to continue: give a PROMPT, or lines on stdin.")
    load_all()
    model = CausalLM(load_encoder(encoder))
    if model.encoder.tokenizer is None:
        raise UserError(f"{encoder} has no tokenizer, so that it can neither read a prompt nor write text.")
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    for prompt in prompts:
        for number in range(count):
            yield prompt, model.generate(prompt, length, temperature, top_k, top_p, seed + number)
