"""The front door: `ssl-suite COMMAND ...`. What needs no torch does not load it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_suite import __version__
from ssl_suite.core.errors import Interrupted, UserError, nearest

if TYPE_CHECKING:
    from ssl_suite.bench.stats import Cell

LIGHTNING = {
    "fit": "pretrain a method, or fine-tune or probe an encoder on a task",
    "validate": "score the validation split",
    "test": "score the test split and record the results",
    "predict": "write a task's answers, or a method's embeddings",
}
OTHERS = {
    "bench": "pretrain, probe and compare: every cell of a benchmark, then its report",
    "prepare": "train a tokenizer, or tokenise a corpus ahead of training",
    "embed": "data → a parquet file of ids and embeddings",
    "generate": "continue a prompt by a causal text encoder",
    "export": "encoder folder → a Hugging Face folder that transformers loads",
    "list": "what there is: methods, encoders, tasks, data, callbacks, samples, recipes, benchmarks, plug-ins",
    "config": "print a recipe, to change and give back: ssl-suite config image/simclr > mine.yaml",
    "results": "rows of a results file, as a table or JSON",
    "report": "one HTML page from a folder of runs",
}
HELP = """usage: ssl-suite COMMAND [options]        (ssl-suite COMMAND --help for each)

self-supervised learning on text, images and speech

{commands}

examples
  ssl-suite fit -c configs/image/simclr.yaml --data.source MY_IMAGES --out runs/mine
  ssl-suite fit -c configs/image/probe.yaml --model.encoder runs/mine/encoder --test_after true
  ssl-suite embed runs/mine/encoder MY_IMAGES --out embeddings.parquet
"""


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns its exit code: 0, or 2 after one sentence about what was wrong."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        return dispatch(arguments)
    except UserError as error:
        print(f"ssl-suite: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of a pipe has gone: `ssl-suite list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, MemoryError, RuntimeError) as error:
        from ssl_suite.explain import of_machine

        if (said := of_machine(error)) is None:
            raise
        print(f"ssl-suite: {said}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except Interrupted as error:
        started_by_us = os.environ.get("LOCAL_RANK", "0") != "0" and "TORCHELASTIC_RUN_ID" not in os.environ
        if started_by_us:  # a rank whose end with an error would have the first killed
            return 0
        print(f"ssl-suite: {error}", file=sys.stderr)
        return 128 + error.signal


def dispatch(arguments: list[str]) -> int:
    commands = LIGHTNING | OTHERS
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP.format(commands="\n".join(f"  {name:<10}{text}" for name, text in commands.items())))
        return 0
    command, rest = arguments[0], arguments[1:]
    if command == "--version":
        print(__version__)
        return 0
    if command not in commands:
        raise UserError(f"There is no command {command!r}.{nearest(command, commands)}")
    if command in LIGHTNING:
        from ssl_suite.lightning_cli import run

        run(arguments)
        return 0
    others = (list_, config, results, report, embed, generate, export, bench, prepare)
    {f.__name__.rstrip("_"): f for f in others}[command](rest)
    return 0


class Parser(argparse.ArgumentParser):
    """Raises UserError instead of printing a page."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UserError(f"{self.prog}: {message}. Try {self.prog} --help.")


def place(text: str) -> Path:
    """A path; nothing would mean the working folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; name one")
    return Path(text)


def list_(arguments: list[str]) -> None:
    """`ssl-suite list [KIND]`."""
    parser = Parser("ssl-suite list", description=OTHERS["list"])
    parser.add_argument("kind", nargs="?", help="methods, encoders, tasks, data, callbacks, samples, recipes, ...")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    options = parser.parse_args(arguments)
    from ssl_suite.catalog import select, to_json

    entries = select(options.kind)
    if options.format == "json":
        print(to_json(entries))
        return
    width = max((len(e.name) for e in entries), default=0) + 2
    kind = ""
    for entry in entries:
        if entry.kind != kind:
            kind = entry.kind
            print(f"{kind}")
        origin = "" if entry.origin == "ssl_suite" else f"  [{entry.origin}]"
        print(f"  {entry.name:<{width}}{entry.summary}{origin}")


def config(arguments: list[str]) -> None:
    """`ssl-suite config RECIPE`."""
    parser = Parser("ssl-suite config", description=OTHERS["config"])
    parser.add_argument("recipe", help="as -c takes it: image/simclr, or a file")
    from ssl_suite.recipes import find, read

    path = find(parser.parse_args(arguments).recipe)
    read(path)
    print(path.read_text(encoding="utf-8"), end="")


def results(arguments: list[str]) -> None:
    """`ssl-suite results FILE`."""
    parser = Parser("ssl-suite results", description=OTHERS["results"])
    parser.add_argument("file", help="results.sqlite, or the folder that holds it")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    for name in ("modality", "name", "method", "role", "task", "metric", "split"):
        parser.add_argument(f"--{name}", help=f"only this {name}")
    options = vars(parser.parse_args(arguments))
    path, style = Path(options.pop("file")), options.pop("format")
    path = path / "results.sqlite" if path.is_dir() else path
    if not path.exists():
        raise UserError(f"There is no results file {path}; `ssl-suite test` and `ssl-suite bench` write one.")
    from ssl_suite.bench.store import Store, to_json

    everything = Store(path).rows()
    wanted = {k: v for k, v in options.items() if v is not None}
    for name, value in wanted.items():
        there = sorted({str(getattr(row, name)) for row in everything})
        if value not in there:
            raise UserError(f"{path} has no {name} {value!r}; it has {', '.join(there) or 'no results'}.")
    rows = [row for row in everything if all(getattr(row, name) == value for name, value in wanted.items())]
    if not rows:
        asked = ", ".join(f"{name} {value}" for name, value in wanted.items())
        raise UserError(f"{path} has no results" + (f" with {asked} together." if asked else " yet."))
    if style == "json":
        print(to_json(rows))
        return
    from rich.console import Console

    from ssl_suite.bench.stats import summarise
    from ssl_suite.bench.table import format_table

    def shown(cell: Cell) -> bool:
        return all(getattr(cell, name) == value for name, value in wanted.items())

    Console().print(format_table(summarise(everything, path.parent), shown))
    for row in rows:
        if row.error:
            print(f"{row.run} gave no result: {row.error}")


def report(arguments: list[str]) -> None:
    """`ssl-suite report FOLDER`."""
    parser = Parser("ssl-suite report", description=OTHERS["report"])
    parser.add_argument("folder", type=place, help="with results.sqlite and the runs' folders")
    folder = parser.parse_args(arguments).folder
    if not (folder / "results.sqlite").exists():
        raise UserError(f"{folder} has no results.sqlite; `ssl-suite bench --out {folder}` makes one.")
    from ssl_suite.bench.report import build_report

    print(build_report(folder))


def prepare(arguments: list[str]) -> None:
    """`ssl-suite prepare tokenizer` and `ssl-suite prepare tokens`."""
    parser = Parser("ssl-suite prepare", description=OTHERS["prepare"])
    parts = parser.add_subparsers(dest="what", required=True, parser_class=Parser, metavar="tokenizer or tokens")
    tokenizer = parts.add_parser("tokenizer", help="train one", description="train a tokenizer on the training split")
    tokens = parts.add_parser("tokens", help="tokenise", description="build the token files that training will use")
    for part in (tokenizer, tokens):
        part.add_argument("--source", required=True, help="as data.source: samples:NAME, a folder, a file, or hf:NAME")
        part.add_argument("--column", default="text", help="of the text")
        part.add_argument("--vocab_size", type=int, default=8192, help="most entries of a tokenizer to train")
        part.add_argument(
            "--cased", action=argparse.BooleanOptionalAction, help="keep capitals (default: not in wordpiece)"
        )
    kinds = ("wordpiece", "bpe", "unigram", "char", "byte")
    tokenizer.add_argument("--kind", choices=kinds, default="wordpiece")
    tokenizer.add_argument("--out", type=place, required=True, help="folder for tokenizer.json")
    tokens.add_argument("--tokenizer", default="wordpiece", help="tokenizer.json, its folder, or a kind to train")
    options = vars(parser.parse_args(arguments))
    from ssl_suite.prepare import prepare_tokenizer, prepare_tokens

    make = prepare_tokenizer if options.pop("what") == "tokenizer" else prepare_tokens
    print("\n".join(make(**options)))


def embed(arguments: list[str]) -> None:
    """`ssl-suite embed ENCODER SOURCE`."""
    parser = Parser("ssl-suite embed", description=OTHERS["embed"])
    parser.add_argument("encoder", help="encoder folder or URI")
    parser.add_argument("source", help="samples:NAME, a folder, a table, or hf:NAME")
    parser.add_argument("--out", type=place, required=True, help="parquet file to write")
    parser.add_argument("--split", default="train", help="of the source; default: train")
    parser.add_argument("--readout", default="last", help="last, cls, mean or layer:K")
    parser.add_argument("--frames", action="store_true", help="keep the time axis: a list of embeddings a row")
    parser.add_argument("--column", help="of the input; default: text, image or audio")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0, help="processes that read")
    parser.add_argument("--on_error", choices=("raise", "skip"), default="raise", help="at an unreadable sample")
    parser.add_argument("--image_size", type=int, help="side in pixels, for images; default: as in training")
    options = parser.parse_args(arguments)
    from ssl_suite.embed import write_embeddings

    written = write_embeddings(**vars(options))
    skipped = f"; {written.skipped} unreadable samples left out" if written.skipped else ""
    print(f"{options.out}: {written.rows} embeddings of width {written.dim} ({options.split}){skipped}")


def generate(arguments: list[str]) -> None:
    """`ssl-suite generate ENCODER PROMPT ...`."""
    parser = Parser("ssl-suite generate", description=OTHERS["generate"])
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
    from ssl_suite.generate import continuations

    style, prompts = options.pop("format"), options.pop("prompts")
    lines = prompts or [line for line in sys.stdin.read().splitlines() if line.strip()]
    for prompt, text in continuations(prompts=lines, **options):
        print(json.dumps({"prompt": prompt, "text": text}, ensure_ascii=False) if style == "json" else f"{text}\n")


def export(arguments: list[str]) -> None:
    """`ssl-suite export --encoder ENCODER --out FOLDER`."""
    parser = Parser("ssl-suite export", description=OTHERS["export"])
    parser.add_argument("--encoder", required=True, help="encoder folder or URI")
    parser.add_argument("--out", type=place, required=True, help="new folder to write")
    parser.add_argument(
        "--family",
        choices=("bert", "roberta", "albert", "electra", "gpt2"),
        help="architecture to write it as; default: the one it has the shape of",
    )
    options = parser.parse_args(arguments)
    from ssl_suite.core.folder import load_encoder
    from ssl_suite.encoders.hub.export import export_encoder
    from ssl_suite.plugins import load_all

    load_all()
    family = export_encoder(load_encoder(options.encoder), options.out, options.family)
    print(f"{options.out}: written as {family.model_type}; transformers.AutoModel.from_pretrained loads it")


def bench(arguments: list[str]) -> None:
    """`ssl-suite bench -c FILE`."""
    parser = Parser("ssl-suite bench", description=OTHERS["bench"])
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
    options = parser.parse_args(arguments)
    from ssl_suite.bench.runner import run_benchmark
    from ssl_suite.recipes import find

    for setting in options.set:
        if "=" not in setting:
            parser.error(f"--set wants NAME=VALUE, not {setting!r}")
    settings = dict(setting.split("=", 1) for setting in options.set)
    path = find(options.config)
    run_benchmark(path, options.out, options.only, options.seeds, options.encoders, settings, options.tasks)


if __name__ == "__main__":
    sys.exit(main())
