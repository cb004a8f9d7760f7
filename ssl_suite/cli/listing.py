"""`ssl-suite list [KIND]`: what there is to name."""

from __future__ import annotations

from ssl_suite.cli.parser import Parser, row

ABOUT = "what there is: methods, encoders, tasks, data, callbacks, samples, recipes, benchmarks, plug-ins"


def command(arguments: list[str]) -> None:
    parser = Parser("ssl-suite list", description=ABOUT)
    parser.add_argument("kind", nargs="?", help="methods, encoders, tasks, data, callbacks, samples, recipes, ...")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    options = parser.parse_args(arguments)
    from ssl_suite.cli.catalog import select, to_json

    entries = select(options.kind)
    if options.format == "json":
        print(to_json(entries))
        return
    kind = ""
    for entry in entries:
        if entry.kind != kind:
            kind = entry.kind
            width = max(len(e.name) for e in entries if e.kind == kind)
            print(kind)
        origin = "" if entry.origin == "ssl_suite" else f" [{entry.origin}]"
        print(row(entry.name, f"{entry.summary}{origin}", width))
