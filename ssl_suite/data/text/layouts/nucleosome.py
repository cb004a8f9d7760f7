"""Yeast DNA around nucleosomes (Nguyen et al. 2016, after Pokholok et al. 2005): does a histone mark lie there?"""

from __future__ import annotations

from pathlib import Path

from ssl_suite.core.errors import UserError
from ssl_suite.data.common.lists import Splits, options
from ssl_suite.data.text.layouts.fasta import records

DATASETS = {
    "H3": 1, "H4": 2, "H3K9ac": 4, "H3K14ac": 5, "H4ac": 8,
    "H3K4me1": 10, "H3K4me2": 11, "H3K4me3": 12, "H3K36me3": 13, "H3K79me3": 14,
}  # fmt: skip
"""The number that each is published under, as dataset01.txt."""


def nucleosome(folder: Path, part: str) -> Splits:
    """Rows of `id`, `text` (500 nucleotides) and `label` (1 where the mark is), all of them `train`.

    There is no official test set; `data.apart: id` deals one.

    Args:
        folder: with H3.txt, or as it was published dataset01.txt, of three lines a row: >ID, sequence, 0 or 1.
        part: H3, H4, H3K9ac or another of the ten.
    """
    marks = sorted(options(part, DATASETS, "nucleosome"))
    if len(marks) != 1:
        raise UserError(f"The layout nucleosome wants one of {', '.join(DATASETS)}: nucleosome/H3:{folder}.")
    names = (f"{marks[0]}.txt", f"dataset{DATASETS[marks[0]]:02}.txt")
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        raise UserError(f"{folder} has neither {names[0]} nor {names[1]}, so there is no {marks[0]} in it.")
    rows = []
    for where, name, below in records(path):
        *sequence, label = below
        if not sequence or label not in ("0", "1"):
            raise UserError(f"{where}: below the title come a sequence and a line of 0 or 1, not {below[-1][:40]!r}.")
        rows.append({"id": name, "text": "".join(sequence), "label": label})
    return {"train": rows}
