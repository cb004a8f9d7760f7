"""`ssl-suite plan -c RECIPE`: memory a GPU, FLOPs, days and what fits, computed without running anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ssl_suite.cli.parser import Parser
from ssl_suite.core.errors import UserError

if TYPE_CHECKING:
    from ssl_suite.core.module import TrainModule

ABOUT = "what a run would take: parameters, memory a GPU, FLOPs, days, and on how many GPUs it fits"
GPUS = (8, 16, 32, 64, 128, 256, 512, 1024)
GROUPS = (2, 4, 8)
"""Sizes of tensor-parallel groups: the GPUs of a machine at most."""


def command(arguments: list[str]) -> None:
    parser = Parser("ssl-suite plan", description=ABOUT, epilog="All else is as of fit: -c RECIPE, --model.…, --data.…")
    parser.add_argument("--memory", type=float, default=80.0, help="GiB of a GPU (80)")
    parser.add_argument("--gpu", default="H100", help="whose peak FLOP/s: H100, A100, V100, ...")
    parser.add_argument("--mfu", type=float, default=0.4, help="share of the peak that is reached (0.4)")
    parser.add_argument("--tokens", type=float, help="to train on; default: the recipe's steps")
    parser.add_argument("--rows", type=int, default=1, help="rows a GPU has at a time (1)")
    options, rest = parser.parse_known_args(arguments)
    from ssl_suite.cli.fit import resolve
    from ssl_suite.core.check import one_of, within
    from ssl_suite.core.flops import PEAK
    from ssl_suite.core.plan import on_meta

    one_of("--gpu", options.gpu, tuple(PEAK))
    within("--memory", options.memory, above=0)
    within("--mfu", options.mfu, above=0, high=1)
    within("--rows", options.rows, low=1, whole=True)
    if options.tokens is not None:
        within("--tokens", options.tokens, above=0)
    if not rest:
        raise UserError("plan needs a recipe: ssl-suite plan -c text/gpt.")
    run = resolve(["fit", *rest])
    chosen = run.settings.model.init_args
    encoder = chosen.get("encoder")
    if isinstance(encoder, str) and not encoder.startswith("random:"):  # its shape is planned, its weights are not read
        chosen.encoder = f"random:{encoder}"
    model = on_meta(lambda: run.make("model"))
    print("\n".join(described(model, run.settings, options)))


def described(model: TrainModule, settings: Any, options: Any) -> list[str]:
    """The lines to print.

    Args:
        model: on the meta device.
        settings: the resolved options of the run.
        options: of this command.
    """
    from ssl_suite.core.check import within
    from ssl_suite.core.plan import row_flops, sizes

    data, trainer = settings.data.init_args if settings.get("data") else {}, settings.trainer
    for name in ("max_length", "batch_size"):
        if data.get(name) is not None:
            within(f"data.{name}", data[name], low=1)
    length = data.get("max_length")
    flops = row_flops(model, length) if length else None
    s = sizes(model)
    frozen = "" if s.learned == s.weights else f", {short(s.learned)} of them learned"
    lines = [f"{type(model).__name__}: {s.weights:,} parameters ({short(s.weights)}){frozen}"]
    lines.append(f"  the largest block has {short(s.block)}, all outside blocks {short(s.root)}")
    days = None
    if flops is not None and length:
        rows = data.get("batch_size", 1) * (trainer.accumulate_grad_batches or 1)
        a_token = flops / length
        tokens = options.tokens or (trainer.max_steps * rows * length if trainer.max_steps > 0 else None)
        lines.append(f"  {a_token:.3g} FLOPs a token, attention's scores among them")
        lines.append(f"  {rows * flops:.3g} FLOPs a step of {rows:,} × {length:,} tokens")
        if tokens:
            by_rule = 6.0 * s.learned * tokens
            lines.append(f"  {tokens * a_token:.3g} FLOPs for {short(tokens)} tokens, {by_rule:.3g} at 6 a parameter")
            days = tokens * a_token / 86400
    else:
        lines.append(
            f"  FLOPs and activations are not computed for {type(model).__name__} on this data: --tokens, --rows, "
            "--gpu and --mfu change nothing"
        )
    return [*lines, "", *table(model, length if flops is not None else None, days, settings, options)]


def table(model: TrainModule, length: int | None, days: float | None, settings: Any, options: Any) -> list[str]:
    """Memory a GPU by their number and the way they share the model; what fits has a star."""
    from ssl_suite.core.flops import PEAK
    from ssl_suite.core.plan import SCHEMES, activation_bytes, experts, memory, sizes

    mixed = "16" in str(settings.trainer.precision or "32")
    ways = {scheme: (scheme, 1, sizes(model)) for scheme in SCHEMES}
    for size in GROUPS:
        try:
            ways[f"tensor {size}"] = "ZeRO-3", size, sizes(model, size)
        except UserError:
            break
    if most := experts(model):
        ways["experts"] = "ZeRO-3", 1, sizes(model, expert_parallel=True)
    fits: dict[str, int] = {}
    rows = []
    for gpus in GPUS:
        cells = []
        for name, (scheme, size, s) in ways.items():
            encoder = next(iter(model.encoders.values()))
            active = options.rows * activation_bytes(encoder, length, size, mixed) if length else 0.0
            can = gpus >= size and (name != "experts" or most % gpus == 0)
            taken = memory(s, scheme, gpus // size, active).total / 2**30 if can else None
            fit = taken is not None and taken <= options.memory
            if fit:
                fits.setdefault(name, gpus)
            cells.append("–" if taken is None else f"{taken:,.1f}{'*' if fit else ' '}")
        took = "" if days is None else f"{days / (gpus * PEAK[options.gpu] * options.mfu):,.3g}"
        rows.append([str(gpus), *cells, took])
    head = ["GPUs", *ways, "days" if days is not None else ""]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    made = ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]]
    found = ", ".join(f"{name} from {fits[name]}" if name in fits else f"{name} never" for name in ways)
    return [
        f"GiB a GPU{f', {options.rows} row(s) at a time' if length else ', without activations'}; * fits "
        f"{options.memory:g}; tensor N: Megatron over N, ZeRO-3 over the rest"
        + ("; experts: spread, the rest by ZeRO-3" if most else "")
        + (f"; days at {options.mfu:.0%} of {options.gpu}" if days is not None else ""),
        *made,
        f"fits: {found}",
    ]


def short(number: float) -> str:
    """174.6 G, 124 M, 8.1 k."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.4g} {unit}"
    return f"{number:g}"
