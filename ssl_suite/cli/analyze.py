"""`ssl-suite analyze NAME ...`: why it works: rows, and a page with figures, from encoders and data."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_suite.cli.parser import Parser, place
from ssl_suite.core.errors import UserError, nearest

if TYPE_CHECKING:
    from ssl_suite.analysis.findings import Findings

ABOUT = "look into encoders: similarity of layers, rank"
NAMES = {
    "layers": "how alike the layers of encoders are (CKA), of any modality",
    "rank": "how many directions each layer uses, and signs of collapse, of any modality",
}


def command(arguments: list[str]) -> None:
    parser = Parser("ssl-suite analyze", description=ABOUT)
    parts = parser.add_subparsers(dest="name", required=True, parser_class=Parser, metavar="NAME")
    made = {name: parts.add_parser(name, help=about, description=about) for name, about in NAMES.items()}
    for name, part in made.items():
        part.add_argument("-c", "--config", help="a recipe: options of this command in a file (analysis/...)")
        part.add_argument("--out", type=place, default=Path("runs") / "analyses" / name, help="folder to write")
        ADD[name](part)
    options = vars(parser.parse_args(with_recipe(arguments, made)))
    name, out, _ = options.pop("name"), options.pop("out"), options.pop("config")
    page = publish(RUN[name](**options), out, f"ssl-suite analyze {shlex.join(arguments)}")
    print(page)


def with_recipe(arguments: list[str], parsers: dict[str, Parser]) -> list[str]:
    """Takes the options of a recipe as defaults of its command; what stands on the command line is said last."""
    if not arguments or arguments[0] not in parsers:
        return arguments
    parser = parsers[arguments[0]]
    given = argparse.ArgumentParser(add_help=False)
    given.add_argument("-c", "--config")
    path = given.parse_known_args(arguments[1:])[0].config
    if path is None:
        return arguments
    from ssl_suite.cli.recipes import find, read

    settings = read(find(path))
    known = {action.dest: action for action in parser._actions}
    for name in settings:
        if name not in known:
            raise UserError(f"{path}: `analyze {arguments[0]}` has no option {name!r}.{nearest(name, known)}")
        known[name].required = False
        if not known[name].option_strings:
            known[name].nargs = "*"
    parser.set_defaults(**settings)
    return arguments


def publish(found: Findings, out: Path, said: str) -> Path:
    from ssl_suite.analysis.findings import publish as write

    print(found.answer)
    return write(found, out, said)


def add_items(part: Parser) -> None:
    """Options of the analyses on encoders of any modality."""
    part.add_argument(
        "encoders", nargs="+", help="encoder folders, runs, checkpoints or URIs; random:... for untrained"
    )
    part.add_argument("--data", required=True, help="samples:NAME, a folder, a table, or hf:NAME")
    part.add_argument("--split", default="test", help="of the data; default: test")
    part.add_argument("--count", type=int, default=1000, help="most items, evenly over the split")
    part.add_argument("--column", help="of the input; default: text, image or audio")
    part.add_argument("--image_size", type=int, help="side in pixels, for images; default: as in training")
    part.add_argument("--batch_size", type=int, default=64)
    part.add_argument("--positions", action="store_true", help="single tokens, patches or frames, not means of items")


def on_items(name: str, encoders: list[str], positions: bool, count: int, data: str, **items: Any) -> Findings:
    from ssl_suite.analysis.layers import layers
    from ssl_suite.analysis.rank import rank
    from ssl_suite.analysis.states import Items

    return {"layers": layers, "rank": rank}[name](encoders, Items(data, wanted=count, **items), positions)


ADD = {"layers": add_items, "rank": add_items}
RUN = {
    "layers": lambda **options: on_items("layers", **options),
    "rank": lambda **options: on_items("rank", **options),
}
