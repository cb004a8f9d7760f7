"""`ssl-suite bench -c FILE`: pretrain, judge and compare."""

from __future__ import annotations

from ssl_suite.cli.parser import Parser, place

ABOUT = "pretrain, probe and compare: every cell of a benchmark, then its report"


def command(arguments: list[str]) -> None:
    parser = Parser("ssl-suite bench", description=ABOUT)
    parser.add_argument("-c", "--config", required=True, help="a benchmark: bench/quickstart, or a file")
    parser.add_argument("--out", type=place, help="folder for runs, results and report; default: runs/NAME")
    parser.add_argument("--only", action="extend", nargs="+", metavar="NAME", help="only these encoders")
    parser.add_argument("--seeds", action="extend", nargs="+", type=int, help="instead of the benchmark's own")
    parser.add_argument("--tasks", action="extend", nargs="+", metavar="NAME", help="only these tasks")
    parser.add_argument(
        "--encoders", action="extend", nargs="+", metavar="WHERE", help="folders or URIs of encoders to judge too"
    )
    parser.add_argument(
        "--set", action="extend", nargs="+", default=[], metavar="NAME=VALUE", help="options of all tasks"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="runs of tasks at a time, which share out the threads of one; default: 1"
    )
    options = parser.parse_args(arguments)
    from ssl_suite.bench.runner import run_benchmark
    from ssl_suite.cli import fit
    from ssl_suite.cli.recipes import find
    from ssl_suite.core.check import within

    for setting in options.set:
        if "=" not in setting:
            parser.error(f"--set wants NAME=VALUE, not {setting!r}")
    settings = dict(setting.split("=", 1) for setting in options.set)
    within("--jobs", options.jobs, low=1, whole=True)
    path = find(options.config)
    run_benchmark(
        path, fit, options.out, options.only, options.seeds, options.encoders, settings, options.tasks, options.jobs
    )
