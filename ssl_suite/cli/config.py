"""`ssl-suite config RECIPE`: prints a recipe."""

from __future__ import annotations

from ssl_suite.cli.parser import Parser

ABOUT = "print a recipe, to change and give back: ssl-suite config image/simclr > mine.yaml"


def command(arguments: list[str]) -> None:
    parser = Parser("ssl-suite config", description=ABOUT)
    parser.add_argument("recipe", help="as -c takes it: image/simclr, or a file")
    from ssl_suite.cli.recipes import find, read

    path = find(parser.parse_args(arguments).recipe)
    read(path)
    print(path.read_text(encoding="utf-8"), end="")
