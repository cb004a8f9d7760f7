"""`ssl-suite analyze NAME ...`: why it works: rows, and a page with figures, from encoders and data."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_suite.cli.parser import Parser, place
from ssl_suite.core.errors import UserError, nearest

if TYPE_CHECKING:
    from ssl_suite.analysis.findings import Findings

ABOUT = "why it works: layers, rank, landscape, embryology, senses, alignment, language-shift, zero-shot"


def command(arguments: list[str]) -> None:
    parser = Parser("ssl-suite analyze", description=ABOUT)
    parts = parser.add_subparsers(dest="name", required=True, parser_class=Parser, metavar="NAME")
    made = {name: parts.add_parser(name, help=it.about, description=it.about) for name, it in ANALYSES.items()}
    for name, part in made.items():
        part.add_argument("-c", "--config", help="a recipe: options of this command in a file (analysis/...)")
        part.add_argument("--out", type=place, default=Path("runs") / "analyses" / name, help="folder to write")
        ANALYSES[name].options(part)
    take_recipe(arguments, made)
    options = vars(parser.parse_args(arguments))
    name, out = options.pop("name"), options.pop("out")
    del options["config"]
    from ssl_suite.analysis.findings import check_out, publish

    check_out(out)
    found = ANALYSES[name].run(out, options)
    page = publish(found, out, f"ssl-suite analyze {shlex.join(arguments)}")
    print(f"{found.answer}\n{page}")


def take_recipe(arguments: list[str], parsers: Mapping[str, Parser]) -> None:
    """Makes the options of a recipe the defaults of its command; what stands on the command line is said last.

    Raises:
        UserError: the recipe is not there, or has an option that the command does not.
    """
    parser = parsers.get(arguments[0]) if arguments else None
    asked = argparse.ArgumentParser(add_help=False)
    asked.add_argument("-c", "--config")
    if parser is None or (path := asked.parse_known_args(arguments[1:])[0].config) is None:
        return
    from ssl_suite.cli.recipes import find, read

    settings = read(find(path))
    known = {action.dest: action for action in parser._actions} | dict.fromkeys(parser._defaults)
    for name, value in settings.items():
        if name not in known or name in ("help", "config"):
            raise UserError(f"{path}: `analyze {arguments[0]}` has no option {name!r}.{nearest(name, known)}")
        if (action := known[name]) is None:
            continue
        if action.nargs in ("+", "*") and not isinstance(value, list | dict):
            raise UserError(f"{path}: {name} is {value!r}, but must be a list.")
        action.required = False
        if not action.option_strings:
            action.nargs = "*"
    parser.set_defaults(**settings)


def on_items(part: Parser) -> None:
    """Options of what looks at encoders of any modality."""
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


def layers(out: Path, options: dict[str, Any]) -> Findings:
    from ssl_suite.analysis.layers import layers

    return layers(*items_of(options))


def rank(out: Path, options: dict[str, Any]) -> Findings:
    from ssl_suite.analysis.rank import rank

    return rank(*items_of(options))


def items_of(options: dict[str, Any]) -> tuple[Any, ...]:
    from ssl_suite.analysis.states import Items

    encoders, data, count, positions = (options.pop(name) for name in ("encoders", "data", "count", "positions"))
    return encoders, Items(data, wanted=count, **options), positions


def on_tuning(part: Parser) -> None:
    part.add_argument("encoder", nargs=1, help="encoder folder, run, checkpoint or URI")
    part.add_argument("--recipe", nargs="+", default=["text/tag"], help="of fine-tuning, as `fit -c` takes it")
    part.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="options of fine-tuning")
    part.add_argument(
        "--other_recipe", nargs="+", help="of the task that is the second direction; default: no surfaces"
    )
    part.add_argument("--other_set", nargs="+", default=[], metavar="NAME=VALUE", help="its options")
    part.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of fine-tuning and of random weights")
    part.add_argument("--count", type=int, default=256, help="items the loss is the mean over")
    part.add_argument("--grid", type=int, default=11, help="points of a surface along each direction")


def landscape(out: Path, options: dict[str, Any]) -> Findings:
    from ssl_suite.analysis.landscape import Tuning, landscape
    from ssl_suite.cli import fit

    (encoder,) = options["encoder"]
    task = Tuning(options["recipe"], settings("set", options))
    other = Tuning(options["other_recipe"], settings("other_set", options)) if options["other_recipe"] else None
    return landscape(encoder, task, fit, out, other, options["seeds"], options["count"], options["grid"])


def on_runs(part: Parser) -> None:
    part.add_argument("runs", nargs="*", help="folders of runs that kept Milestones; none: --recipe is run")
    on_pretraining(part)
    part.add_argument("--words", type=int, default=2000, help="words that are masked, one at a time")
    part.set_defaults(probes=None)


def on_pretraining(part: Parser) -> None:
    part.add_argument("--recipe", nargs="+", default=[], help="of pretraining, as `fit -c` takes it")
    part.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="options of pretraining")
    part.add_argument("--seeds", nargs="+", type=int, default=[0], help="of pretraining")


def embryology(out: Path, options: dict[str, Any]) -> Findings:
    from ssl_suite.analysis.embryology import PROBES, Probe, embryology, pretrained
    from ssl_suite.cli import fit

    try:
        given = {name: Probe(**probe) for name, probe in (options["probes"] or {}).items()}
    except (TypeError, AttributeError) as error:
        raise UserError(f"probes: each has a source, a column and a target ({error}).") from None
    runs = [Path(run) for run in options["runs"]]
    if not runs and not options["recipe"]:
        raise UserError("Name runs, or a --recipe to run: -c analysis/embryology has one.")
    if not runs:
        runs = pretrained(options["recipe"], settings("set", options), options["seeds"], out, fit)
    return embryology(runs, given or PROBES, Probe(), options["words"])


def on_senses(part: Parser) -> None:
    part.add_argument("encoder", nargs=1, help="text encoder: folder, run, checkpoint or URI")
    part.add_argument("--word", required=True, help="that is looked at")
    part.add_argument("--data", default="samples:brown", help="TSV of sense and sentence, or tagged sentences")
    part.add_argument("--most", type=int, default=8, help="sentences of each sense")
    part.add_argument("--corpus", default="samples:brown", help="sentences in which neighbours are looked for")


def senses(out: Path, options: dict[str, Any]) -> Findings:
    from ssl_suite.analysis.senses import senses

    (encoder,) = options.pop("encoder")
    return senses(encoder, **options)


def on_pairs(part: Parser) -> None:
    part.add_argument("--pairs", required=True, help="TSV: a text and its translation a line")
    part.add_argument("--languages", nargs=2, default=["first", "second"], metavar="NAME", help="of the two columns")


def on_aligned(part: Parser) -> None:
    part.add_argument("encoders", nargs="*", help="text encoders: folders, runs, ...; none: --recipe is run")
    on_pairs(part)
    part.add_argument("--dictionary", help="TSV of words and their translations, which are ranked too")
    part.add_argument("--amounts", nargs="+", default=[], type=float, help="of data, one an encoder: shown against it")
    on_pretraining(part)


def alignment(out: Path, options: dict[str, Any]) -> Findings:
    from ssl_suite.analysis.alignment import alignment
    from ssl_suite.analysis.amounts import grown
    from ssl_suite.cli import fit

    chosen = settings("set", options)
    encoders, amounts, recipe, seeds, _ = (
        options.pop(name) for name in ("encoders", "amounts", "recipe", "seeds", "set")
    )
    if encoders:
        return alignment(encoders, amounts=[] if isinstance(amounts, dict) else amounts, **options)
    if not recipe or not isinstance(amounts, dict):
        raise UserError("Name encoders, or a recipe and its amounts to run: -c analysis/alignment has both.")
    made = grown(recipe, chosen, amounts, seeds, out, fit)
    return alignment(list(made), amounts=list(made.values()), **options)


def on_shift(part: Parser) -> None:
    part.add_argument("encoder", nargs=1, help="text encoder of both languages: folder, run, checkpoint or URI")
    on_pairs(part)
    part.add_argument("--layer", type=int, help="state that is shifted; default: the middle one")
    part.add_argument("--alphas", nargs="+", type=float, default=[1.0, 2.0, 3.0], help="how many times")


def language_shift(out: Path, options: dict[str, Any]) -> Findings:
    from ssl_suite.analysis.language_shift import language_shift

    (encoder,) = options.pop("encoder")
    return language_shift(encoder, **options)


def on_zero_shot(part: Parser) -> None:
    part.add_argument("encoders", nargs="+", help="of several languages: folders, runs, checkpoints or URIs")
    part.add_argument("--train", nargs="+", metavar="LANGUAGE=SOURCE", required=True, help="what is learned from, each")
    part.add_argument("--test", nargs="+", metavar="LANGUAGE=FILE", required=True, help="what is tested on, each")
    part.add_argument("--recipe", nargs="+", default=["text/squad"], help="of fine-tuning, as `fit -c` takes it")
    part.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="its options")
    part.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of fine-tuning and of random weights")


def zero_shot(out: Path, options: dict[str, Any]) -> Findings:
    from ssl_suite.analysis.landscape import Tuning
    from ssl_suite.analysis.zero_shot import zero_shot
    from ssl_suite.cli import fit

    train, test, chosen = (settings(name, options) for name in ("train", "test", "set"))
    task = Tuning(options["recipe"], chosen)
    return zero_shot(options["encoders"], task, train, test, fit, out, options["seeds"])


def settings(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Options of a run: NAME=VALUE each, or names and values in a recipe."""
    given = options[name]
    if isinstance(given, dict):
        return given
    made: dict[str, Any] = {}
    for setting in given:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UserError(f"--{name} wants NAME=VALUE, not {setting!r}.")
        if key in made:
            raise UserError(f"--{name} has {key} twice, {made[key]!r} and {value!r}; leave one out.")
        made[key] = value
    return made


@dataclass(frozen=True)
class Analysis:
    """A name of `ssl-suite analyze`.

    Attributes:
        about: what it tells.
        options: adds its options to a parser.
        run: (folder, options) → what was found.
    """

    about: str
    options: Callable[[Parser], None]
    run: Callable[[Path, dict[str, Any]], Findings]


ANALYSES = {
    "layers": Analysis("how alike the layers of encoders are (CKA), of any modality", on_items, layers),
    "rank": Analysis("how many directions each layer uses, and signs of collapse, of any modality", on_items, rank),
    "embryology": Analysis(
        "when a masked language model learns what, over the checkpoints of runs", on_runs, embryology
    ),
    "senses": Analysis(
        "a word of several senses in many sentences, layer by layer, and its neighbours", on_senses, senses
    ),
    "alignment": Analysis(
        "whether translations are near each other (MRR), by state or amount of data", on_aligned, alignment
    ),
    "language-shift": Analysis("language means, and translation by their difference", on_shift, language_shift),
    "zero-shot": Analysis("fine-tuning in one language, tests in others", on_zero_shot, zero_shot),
    "landscape": Analysis(
        "fine-tuning from pretrained and random weights: loss curves and landscapes", on_tuning, landscape
    ),
}
