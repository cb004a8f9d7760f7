"""`ssl-suite generate ENCODER PROMPT ...`: text continued by a causal encoder, or said by an encoder–decoder."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from inspect import signature
from typing import TYPE_CHECKING

from ssl_suite.cli.parser import Parser
from ssl_suite.core.errors import UserError

if TYPE_CHECKING:
    from ssl_suite.encoders.encoder_decoder import EncoderDecoder

ABOUT = "continue a prompt by a causal text encoder, or answer it by an encoder-decoder"


def command(arguments: list[str]) -> None:
    parser = Parser("ssl-suite generate", description=ABOUT)
    parser.add_argument("encoder", help="causal text encoder or encoder-decoder: folder or URI")
    parser.add_argument("prompts", nargs="*", metavar="PROMPT", help="texts to continue; none: the lines of stdin")
    parser.add_argument("--length", type=int, default=50, help="most new tokens")
    parser.add_argument("--temperature", type=float, default=0.8, help="of the softmax; 0: the likeliest token")
    parser.add_argument("--top_k", type=int, default=0, help="draw among the k likeliest; 0: all")
    parser.add_argument("--top_p", type=float, default=1.0, help="draw among the likeliest that together reach p")
    parser.add_argument("--beams", type=int, default=1, help="of an encoder-decoder, outputs that are followed at once")
    parser.add_argument("--count", type=int, default=1, help="continuations of each prompt")
    parser.add_argument("--seed", type=int, default=0, help="of the first continuation")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="json: one object a line")
    options = vars(parser.parse_args(arguments))
    style, prompts = options.pop("format"), options.pop("prompts")
    lines = prompts or [line for line in sys.stdin.read().splitlines() if line.strip()]
    for prompt, text in continuations(prompts=lines, **options):
        print(json.dumps({"prompt": prompt, "text": text}, ensure_ascii=False) if style == "json" else f"{text}\n")


def continuations(
    encoder: str,
    prompts: Sequence[str],
    length: int = 50,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    count: int = 1,
    seed: int = 0,
    beams: int = 1,
) -> Iterator[tuple[str, str]]:
    """Continues prompts, see `CausalLM.generate`; an encoder–decoder says the likeliest, see its `generate`.

    Args:
        encoder: folder or URI.
        prompts: texts to continue.
        length: most new tokens.
        temperature: of the softmax; 0 takes the likeliest token.
        top_k: draw among the k likeliest; 0 for all.
        top_p: draw among the likeliest whose probabilities reach p.
        count: continuations of each prompt; number i is drawn with `seed` + i.
        seed: of the first.
        beams: of an encoder–decoder, which draws nothing: temperature, top_k, top_p, count and seed are not for it.

    Yields:
        (prompt, the prompt and what follows), or of an encoder–decoder (prompt, what it says).

    Raises:
        UserError: the encoder generates no text, or an option does not fit.
    """
    import torch

    from ssl_suite.core.check import within
    from ssl_suite.core.load import load_encoder
    from ssl_suite.encoders.encoder_decoder import EncoderDecoder
    from ssl_suite.methods.text.causal_lm import CausalLM
    from ssl_suite.plugins import load_all

    within("--count", count, low=1, whole=True)
    if not prompts:
        raise UserError("There is nothing to continue: give a PROMPT, or lines on stdin.")
    load_all()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = load_encoder(encoder)
    if isinstance(loaded, EncoderDecoder):
        given = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "count": count, "seed": seed}
        usual = signature(continuations).parameters
        if drawn := [f"--{name}" for name, value in given.items() if value != usual[name].default]:
            raise UserError(f"An encoder-decoder says the likeliest and draws nothing; leave {', '.join(drawn)} out.")
    elif loaded.modality == "text" and not loaded.config.get("causal"):
        raise UserError(
            f"{encoder} sees both sides of a token and continues nothing; generate takes a causal encoder (text/gpt) "
            "or an encoder-decoder (text/t5)."
        )
    elif beams != 1:
        raise UserError("--beams is for an encoder-decoder; a causal encoder draws, see --temperature and --count.")
    model = loaded if isinstance(loaded, EncoderDecoder) else CausalLM(loaded)
    if loaded.tokenizer is None:
        raise UserError(f"{encoder} has no tokenizer, so that it can neither read a prompt nor write text.")
    model.to(device)
    if isinstance(model, EncoderDecoder):
        yield from zip(prompts, answers(model, prompts, length, beams), strict=True)
        return
    for prompt in prompts:
        for number in range(count):
            yield prompt, model.generate(prompt, length, temperature, top_k, top_p, seed + number)


def answers(
    encoder: EncoderDecoder, prompts: Sequence[str], length: int, beams: int, together: int = 16
) -> Iterator[str]:
    """What an encoder–decoder says to each prompt, the marks of what it fills in (`<extra_id_0>`) with it."""
    import numpy as np

    from ssl_suite.data.text.items import TextItem, collate

    tokenizer, device = encoder.tokenizer, next(encoder.parameters()).device
    for first in range(0, len(prompts), together):
        read = tokenizer.encode_batch(list(prompts[first : first + together]))
        items = [TextItem(i, 0, np.array(e.ids), None, None) for i, e in enumerate(read)]
        for ids in encoder.generate(collate(items, tokenizer).to(device), length, beams):
            yield tokenizer.decode(ids, skip_special_tokens=False)
