"""The front door, `ssl-suite COMMAND ...`: one file a command; fit, validate, test and predict share Lightning's.

What needs no torch does not load it: a command's file imports what it stands on when it is run.
"""

from __future__ import annotations

import os
import sys

from ssl_suite import __version__
from ssl_suite.cli import analyze, bench, config, embed, export, generate, listing, plan, prepare, report, results
from ssl_suite.cli.parser import row
from ssl_suite.core.errors import Interrupted, UserError, nearest

LIGHTNING = {
    "fit": "pretrain a method, or fine-tune or probe an encoder on a task",
    "validate": "score the validation split",
    "test": "score the test split and record the results",
    "predict": "write a task's answers, or a method's embeddings",
}
OTHERS = {
    "bench": bench,
    "analyze": analyze,
    "prepare": prepare,
    "embed": embed,
    "generate": generate,
    "export": export,
    "plan": plan,
    "list": listing,
    "config": config,
    "results": results,
    "report": report,
}
HELP = """usage: ssl-suite COMMAND [options]        (ssl-suite COMMAND --help for each)

self-supervised learning on text, images and speech

{commands}

examples
  ssl-suite fit -c image/simclr --data.source MY_IMAGES --out runs/mine
  ssl-suite fit -c image/probe --model.encoder runs/mine --test_after true
  ssl-suite embed runs/mine MY_IMAGES --out embeddings.parquet
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
        from ssl_suite.cli.explain import of_machine

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
    commands = LIGHTNING | {name: module.ABOUT for name, module in OTHERS.items()}
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP.format(commands="\n".join(row(name, text, 8) for name, text in commands.items())))
        return 0
    command, rest = arguments[0], arguments[1:]
    if command == "--version":
        print(__version__)
        return 0
    if command not in commands:
        raise UserError(f"There is no command {command!r}.{nearest(command, commands)}")
    if command in LIGHTNING:
        from ssl_suite.cli.fit import run

        run(arguments)
        return 0
    OTHERS[command].command(rest)
    return 0
