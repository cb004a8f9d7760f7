"""`ssl-suite generate ENCODER PROMPT ...`: text continued by a causal encoder."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence

from ssl_suite.cli.parser import Parser
from ssl_suite.core.errors import UserError

ABOUT = "continue a prompt by a causal text encoder"


def command(arguments: list[str]) -> None:
    parser = Parser("ssl-suite generate", description=ABOUT)
    parser.add_argument("encoder", help="causal text encoder: folder or URI")
    parser.add_argument("prompts", nargs="*", metavar="PROMPT", help="texts to continue; none: the lines of stdin")
    parser.add_argument("--length", type=int, default=50, help="most new tokens")
    parser.add_argument("--temperature", type=float, default=0.8, help="of the softmax; 0: the likeliest token")
    parser.add_argument("--top_k", type=int, default=0, help="draw among the k likeliest; 0: all")
    parser.add_argument("--top_p", type=float, default=1.0, help="draw among the likeliest that together reach p")
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
    import torch

    from ssl_suite.core.check import within
    from ssl_suite.core.load import load_encoder
    from ssl_suite.methods.text.causal_lm import CausalLM
    from ssl_suite.plugins import load_all

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
