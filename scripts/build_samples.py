"""Build the data packs under ssl_suite/data/samples from packages of npm, PyPI and Debian, and write their manifest.

    python scripts/build_samples.py [--only NAME] [--cache DIR] [--out DIR]

Needs, besides the suite: npm, apt-get with dpkg, ffmpeg (for G.722), and `pip install rdata pysword`.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import sample_sources as sources
from datasets import Audio, ClassLabel, Dataset, Features, Image, List, Value
from pyarrow import parquet
from rich.console import Console
from rich.table import Table

SAMPLES = Path(__file__).resolve().parents[1] / "ssl_suite/data/samples"
TEXT = Value("string")


@dataclass(frozen=True)
class Pack:
    """What the manifest says of a pack, and how its rows are made.

    Attributes:
        description: one line.
        packages: sources as ``client:name@version``, client one of npm, pip, apt.
        licence: SPDX expression or plain name.
        licence_files: texts in ``licenses/`` that have to travel with the pack.
        features: columns and their types.
        build: makes the rows of every split, given a function from a package to the folder it is unpacked in.
        notes: confounds, choices and departures that a reader of results has to know.
    """

    description: str
    packages: tuple[str, ...]
    licence: str
    licence_files: tuple[str, ...]
    features: Features
    build: Callable[[sources.Fetch], sources.Splits]
    notes: tuple[str, ...] = ()


PACKS = {
    "digits": Pack(
        "Handwritten digits, 28x28 grey: a class-balanced draw from MNIST.",
        (sources.MNIST,),
        "CC-BY-SA-3.0",
        ("MNIST.txt", "CC-BY-SA-3.0.txt"),
        Features({"id": TEXT, "image": Image(), "label": ClassLabel(names=[str(digit) for digit in range(10)])}),
        sources.build_digits,
        (
            (
                "train and validation are disjoint draws from MNIST's training part, test is drawn from its test part; "
                "results are not comparable with those on the full MNIST."
            ),
            "The npm package's ISC licence excludes the data; the licence given is the one MNIST's authors chose.",
        ),
    ),
    "emoji": Pack(
        "Colour emoji, 64x64 RGBA, of 10 categories: Google's Noto set.",
        (sources.EMOJI,),
        "Apache-2.0 AND MIT",
        ("NOTO-EMOJI.txt", "Apache-2.0.txt", "emoji-data-MIT.txt"),
        Features(
            {
                "id": TEXT,
                "image": Image(),
                "label": ClassLabel(names=sources.EMOJI_CATEGORIES),
                "name": TEXT,
                "subcategory": TEXT,
                "base": TEXT,
            }
        ),
        sources.build_emoji,
        (
            (
                f"Lossless WebP; at most {sources.SKIN_TONES_KEPT} skin-tone variants of a base emoji are kept (of "
                "5, or 25 for pairs), to save space. Pixels under full transparency are undefined."
            ),
            (
                "Split by base emoji, and further so that the man's, woman's and person's versions share a split; "
                "pictures that repeat another's pixels are dropped."
            ),
            (
                "Categories are unbalanced (People & Body 40 %, Component 5 pictures): report balanced accuracy too. "
                "Many categories can be told by colour or outline alone (flags, faces)."
            ),
        ),
    ),
    "corpus": Pack(
        "English documents to pre-train on: the King James Bible by chapter, and Brown corpus documents.",
        (sources.BIBLE, sources.BROWN),
        "Public domain (King James Bible) AND Brown corpus terms",
        ("KJV.txt", "BROWN.txt"),
        Features({"id": TEXT, "text": TEXT, "source": TEXT}),
        sources.build_corpus,
        (
            "Brown documents are those of the brown pack's train split alone, so tagging results stay clean.",
            (
                "One verse or sentence a line. The Bible repeats itself (Kings and Chronicles, the synoptic Gospels): "
                "chapters of different splits share passages. Its English is archaic; psalm titles are left out."
            ),
            "In the United Kingdom the Crown's letters patent restrict printing the King James Bible.",
        ),
    ),
    "brown": Pack(
        "English sentences with 12 universal part-of-speech tags, from 500 documents in 15 genres (1961).",
        (sources.BROWN,),
        "Brown corpus terms",
        ("BROWN.txt",),
        Features(
            {
                "id": TEXT,
                "tokens": List(TEXT),
                "tags": List(ClassLabel(names=sources.UNIVERSAL_TAGS)),
                "document": TEXT,
                "genre": TEXT,
            }
        ),
        sources.build_brown,
        (
            "Split by document within each genre; a random draw of each split's sentences is kept.",
            (
                "Tags follow Petrov et al. (2012) except ABL and ABN (DET), EX and PN (PRON); contractions take their "
                "first part's tag. Marks that this edition of the corpus doubles (; ? ! :) are written once."
            ),
        ),
    ),
    "sentences": Pack(
        "Movie-review snippets with the mean of at least 20 human sentiment ratings from -4 to 4.",
        (sources.VADER,),
        "MIT",
        ("VADER-MIT.txt",),
        Features(
            {"id": TEXT, "text": TEXT, "rating": Value("float64"), "label": ClassLabel(names=["negative", "positive"])}
        ),
        sources.build_sentences,
        (
            "label is the sign of rating; the 37 snippets rated exactly 0 are dropped.",
            (
                "The snippets are quotations of reviewers that Pang and Lee collected; the package publishes them and "
                "the ratings under MIT, which cannot license the reviewers' own rights."
            ),
            "The source does not say which review a snippet is from; equal texts share a split.",
        ),
    ),
    "dna": Pack(
        "Primate DNA around splice junctions, 60 nucleotides: donor (ei), acceptor (ie) or neither (n).",
        (sources.SPLICE,),
        "CC-BY-4.0",
        ("UCI-DNA.txt",),
        Features({"id": TEXT, "text": TEXT, "label": ClassLabel(names=["n", "ei", "ie"])}),
        sources.build_dna,
        (
            "The boundary lies between letters 30 and 31; the build checks GT after it (ei) and AG before it (ie).",
            (
                "Equal sequences share a split; near-equal ones (homologous genes) may not. Records with ambiguous "
                "nucleotides are not in the source."
            ),
        ),
    ),
    "prompts": Pack(
        "Transcribed telephone prompts in English (16 kHz), Spanish, French, Italian and Russian (8 kHz).",
        tuple(sources.asterisk(package) for package in sources.SPEECH_PACKAGES),
        "CC-BY-SA-3.0 (en, es, fr) AND CC-BY-3.0 (it, ru)",
        ("ASTERISK-SOUNDS.txt", "CC-BY-SA-3.0.txt", "CC-BY-3.0.txt"),
        Features(
            {
                "id": TEXT,
                "audio": Audio(),
                "text": TEXT,
                "language": ClassLabel(names=list(sources.VOICES)),
                "speaker": ClassLabel(names=["allison", "june", "carlo", "ivrvoiceru"]),
                "seconds": Value("float64"),
                "topic": ClassLabel(names=sorted({*sources.TOPICS.values(), "other"})),
            }
        ),
        sources.build_prompts,
        (
            (
                "Language, speaker and channel are confounded: one voice and one studio a language (allison speaks en "
                "and es), and only English is wide band. Accuracy on languages or speakers shows neither alone."
            ),
            "Opus in Ogg at 20 kbit/s, container included, from G.722 (en) or 14 kbit/s from 8 kHz PCM (others).",
            (
                "Clips of 0.3 to 12 s. Left out: sounds that are not speech, transcripts with stage directions in "
                "brackets or damage. Transcripts are the source's: Spanish often lacks accents, "
                "and some differ from what is said."
            ),
            "The same words in one language share a split; the same prompt in two languages need not.",
        ),
    ),
}


# ------------------------------------------------------------------------------------------------------------ fetching


def run_client(command: list[str], folder: Path, package: str) -> None:
    """Run a package client in a folder; stop with one sentence if it is missing or fails."""
    if shutil.which(command[0]) is None:
        sys.exit(f"{command[0]} is needed to download {package}: install it, or build another pack with --only.")
    done = subprocess.run(
        command, check=False, cwd=folder, capture_output=True, text=True, env=os.environ | {"LC_ALL": "C"}
    )
    if done.returncode:
        sys.exit(f"{command[0]} could not download {package}: {done.stderr.strip().splitlines()[-1:]}")


def download(client: str, name: str, version: str, folder: Path) -> None:
    """Download one package archive into a folder through its ordinary client."""
    commands = {
        "npm": ["npm", "pack", "--silent", f"{name}@{version}"],
        "pip": [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", f"{name}=={version}"],
        "apt": ["apt-get", "download", f"{name}={version}"],
    }
    run_client(commands[client], folder, f"{name} {version}")


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a .deb or .tar.gz archive."""
    if archive.suffix == ".deb":
        run_client(["dpkg", "-x", str(archive), str(folder)], folder, archive.name)
    else:
        with tarfile.open(archive) as files:
            files.extractall(folder, filter="data")


def fetcher(cache: Path) -> sources.Fetch:
    """Return a function that gives the folder a package is unpacked in, downloading it into the cache if need be."""

    def fetch(package: str) -> Path:
        client, name, version = package.replace("@", ":").split(":", 2)  # a version of Debian may hold a colon
        ready = cache / f"{client}-{name}-{version}"
        if not ready.exists():
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache) as scratch:
                download(client, name, version, Path(scratch))
                archive = next(Path(scratch).iterdir())
                (Path(scratch) / "tree").mkdir()
                unpack(archive, Path(scratch) / "tree")
                (Path(scratch) / "tree").rename(ready)
        inner = list(ready.iterdir())
        return inner[0] if client != "apt" and len(inner) == 1 else ready

    return fetch


# ------------------------------------------------------------------------------------------------------------- writing


def write_split(rows: list[sources.Row], features: Features, path: Path) -> dict[str, int | str]:
    """Write rows to a parquet file and return what the manifest says of it."""
    encoded = {
        "bytes": Value("binary"),
        "path": TEXT,
    }  # what Audio and Image store; Audio's own encoder needs torchcodec
    stored = Features({name: encoded if isinstance(of, Audio | Image) else of for name, of in features.items()})
    table = Dataset.from_list(rows, features=stored).with_format("arrow")[:]
    table = table.cast(features.arrow_schema)  # its metadata tells `datasets` the features
    temporary = path.with_suffix(".partial")
    # Not Dataset.to_parquet: it leaves images and audio uncompressed, whose headers (and stored PNGs) zstd packs well.
    parquet.write_table(table, temporary, compression="zstd", compression_level=19, data_page_size=1 << 23)
    temporary.rename(path)
    data = path.read_bytes()
    return {"rows": len(rows), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def describe(feature: object) -> str:
    """Return a column's type in words."""
    if isinstance(feature, List):
        return f"list of {describe(feature.feature)}"
    if isinstance(feature, ClassLabel):
        return "class: " + ", ".join(feature.names)
    return feature.dtype if isinstance(feature, Value) else type(feature).__name__.lower()


def build_pack(name: str, pack: Pack, out: Path, fetch: sources.Fetch) -> dict:
    """Build one pack and return its entry in the manifest."""
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    splits = {
        split: {"file": f"{name}/{split}.parquet"} | write_split(rows, pack.features, folder / f"{split}.parquet")
        for split, rows in pack.build(fetch).items()
    }
    keys = ("client", "name", "version")
    return {
        "description": pack.description,
        "licence": pack.licence,
        "licence_files": [f"licenses/{file}" for file in pack.licence_files],
        "sources": [dict(zip(keys, package.replace("@", ":").split(":"), strict=True)) for package in pack.packages],
        "columns": {column: describe(feature) for column, feature in pack.features.items()},
        "splits": splits,
        "notes": list(pack.notes),
    }


def update_manifest(out: Path, entries: dict[str, dict]) -> None:
    """Write the entries of freshly built packs into the manifest, keeping the others."""
    path = out / "MANIFEST.json"
    packs = (json.loads(path.read_text("utf-8"))["packs"] if path.exists() else {}) | entries
    ordered = {name: packs[name] for name in PACKS if name in packs}
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps({"version": 1, "packs": ordered}, indent=2, ensure_ascii=False) + "\n", "utf-8")
    temporary.rename(path)


def show(entries: dict[str, dict]) -> None:
    """Print rows, size and the start of the hash of every file."""
    table = Table("pack", "split", "rows", "kB", "sha256", title="Sample packs")
    for name, entry in entries.items():
        for split, file in entry["splits"].items():
            table.add_row(name, split, f"{file['rows']:,}", f"{file['bytes'] / 1e3:,.0f}", file["sha256"][:12])
    total = sum(file["bytes"] for entry in entries.values() for file in entry["splits"].values())
    table.add_row("total", "", "", f"{total / 1e3:,.0f}", "", style="bold")
    Console().print(table)


def main() -> None:
    """Build the packs that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PACKS, help="build this pack alone")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/ssl_suite/packages", help="for downloads")
    parser.add_argument("--out", type=Path, default=SAMPLES, help="folder of the packs and the manifest")
    options = parser.parse_args()
    if options.out.resolve() != SAMPLES:
        shutil.copytree(SAMPLES / "licenses", options.out / "licenses", dirs_exist_ok=True)
    names = [options.only] if options.only else list(PACKS)
    fetch = fetcher(options.cache.resolve())
    entries = {}
    for name in names:
        if name == "prompts" and shutil.which("ffmpeg") is None:
            sys.exit("prompts needs ffmpeg to decode G.722: install it, or build another pack with --only.")
        try:
            entries[name] = build_pack(name, PACKS[name], options.out, fetch)
        except ModuleNotFoundError as missing:
            sys.exit(f"{name} needs the Python package {missing.name}: pip install {missing.name}.")
        update_manifest(options.out, entries)
    show(entries)


if __name__ == "__main__":
    main()
