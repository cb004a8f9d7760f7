"""Make sentences in which some words have a supersense, a coarse class of meaning, for `ssl-suite analyze embryology`.

    python scripts/build_supersenses.py OUT [--cache DIR]

The sentences are `samples:brown`. A noun or a verb is labelled where all senses that WordNet 3.0 (Debian's package, its
own free licence, copied to OUT) knows of it lie in one of 41 classes, `noun.animal`, `verb.motion` and so on (Ciaramita
and Johnson 2003); other words are `_`. Those labelled in training and in testing are different lemmas: to know a
word is not to know its class. It takes apt-get and dpkg.
"""

from __future__ import annotations

import argparse
import shutil
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow.parquet as pq
import sample_sources as sources
from build_samples import TEXT, fetcher, write_split
from datasets import Features, List

PACKAGE = "apt:wordnet-base@1:3.0-37"
BROWN = Path(__file__).parents[1] / "ssl_suite/data/samples/brown"
NOUNS = """Tops act animal artifact attribute body cognition communication event feeling food group location motive
object person phenomenon plant possession process quantity relation shape state substance time"""
VERBS = """body change cognition communication competition consumption contact creation emotion motion perception
possession social stative weather"""
NAMES = [*(f"noun.{name}" for name in NOUNS.split()), *(f"verb.{name}" for name in VERBS.split())]
CLASSES = {f"{number:02}": name for number, name in enumerate(NAMES, 3)}
"""Number of a lexicographer file → its name (lexnames(5WN))."""
ENDINGS = {
    "noun": [("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("men", "man"),
             ("ies", "y")],
    "verb": [("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")],
}  # fmt: skip
"""Rules of detachment (morphy(7WN)): ending → that of the lemma."""
NONE = "_"


class Lexicon:
    """The class of each noun or verb whose senses have but one.

    Args:
        folder: with `index.noun`, `data.noun`, `noun.exc` and likewise for verbs.
        kind: noun or verb.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.kind = kind
        files = {line.split()[0]: line.split()[1] for line in _lines(folder / f"data.{kind}")}
        self.classes: dict[str, set[str]] = {}
        for line in _lines(folder / f"index.{kind}"):
            lemma, _, senses, pointers, *rest = line.split()
            offsets = rest[int(pointers) + 2 :]
            assert len(offsets) == int(senses), line
            self.classes[lemma] = {CLASSES[files[offset]] for offset in offsets}
        self.irregular = {line.split()[0]: line.split()[1:] for line in _lines(folder / f"{kind}.exc")}

    def lemmas(self, word: str) -> list[str]:
        """Known base forms of a word."""
        regular = [word, *(word.removesuffix(a) + b for a, b in ENDINGS[self.kind] if word.endswith(a))]
        return [form for form in dict.fromkeys([*self.irregular.get(word, []), *regular]) if form in self.classes]

    def label(self, word: str, half: int | None) -> str:
        """The class; `_` where it has none or several, or its lemma belongs to the other half (None: whichever)."""
        found = self.lemmas(word.lower())
        classes = set().union(*(self.classes[form] for form in found))
        if len(classes) != 1 or (half is not None and zlib.crc32(found[0].encode()) % 2 != half):
            return NONE
        return classes.pop()


def _lines(path: Path) -> Iterator[str]:
    return (line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith(" "))


def rows(brown: Path, lexicons: Mapping[str, Lexicon], half: int) -> list[sources.Row]:
    """Sentences of a split with the supersenses of one half of the lemmas."""
    made = []
    for row in pq.read_table(brown, columns=["id", "tokens", "tags"]).to_pylist():
        pairs = zip(row["tokens"], (sources.UNIVERSAL_TAGS[tag] for tag in row["tags"]), strict=True)
        labels = [lexicons[tag].label(word, half) if tag in lexicons else NONE for word, tag in pairs]
        if set(labels) != {NONE}:
            made.append({"id": row["id"], "tokens": row["tokens"], "supersenses": labels})
    return made


def main() -> None:
    """Write OUT/{train,test}.parquet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/ssl_suite/packages", help="for downloads")
    options = parser.parse_args()
    package = fetcher(options.cache.resolve())(PACKAGE)
    lexicons = {kind.upper(): Lexicon(package / "usr/share/wordnet", kind) for kind in ENDINGS}
    options.out.mkdir(parents=True, exist_ok=True)
    shutil.copy(package / "usr/share/doc/wordnet-base/copyright", options.out / "copyright")
    features = Features({"id": TEXT, "tokens": List(TEXT), "supersenses": List(TEXT)})
    for half, split in enumerate(("train", "test")):
        made = rows(BROWN / f"{split}.parquet", lexicons, half)
        write_split(made, features, options.out / f"{split}.parquet")
        print(f"{options.out / split}.parquet: {len(made)} sentences")


if __name__ == "__main__":
    main()
