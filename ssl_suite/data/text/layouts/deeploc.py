"""DeepLoc (Almagro Armenteros et al. 2017): where in a cell a protein is, ten places."""

from __future__ import annotations

from pathlib import Path

from pytorch_lightning.utilities import rank_zero_warn

from ssl_suite.core.errors import UserError
from ssl_suite.data.common.lists import Splits, options, require
from ssl_suite.data.text.layouts.fasta import records

FILE = "deeploc_data.fasta"
TWO = "Cytoplasm-Nucleus"
"""Proteins of two places, which are none of the ten classes."""


def deeploc(folder: Path, part: str) -> Splits:
    """Rows of `id`, `text`, `label` (the place) and `membrane` (M bound, S soluble, U unknown); the official test set.

    Args:
        folder: with deeploc_data.fasta, whose titles are `>Q9H400 Cell.membrane-M test`.
        part: none.
    """
    options(part, (), "deeploc")
    splits: Splits = {"train": [], "test": []}
    both = 0
    for where, title, below in records(require(folder / FILE, "DeepLoc")):
        name, *told = title.split()
        place, dash, membrane = told[0].rpartition("-") if told else ("", "", "")
        if not dash or membrane not in ("M", "S", "U") or told[1:] not in ([], ["test"]):
            raise UserError(f"{where}: DeepLoc has titles >ID PLACE-M (or -S, -U) and perhaps `test`, not {title!r}.")
        if place == TWO:
            both += 1
            continue
        row = {"id": name, "text": "".join(below), "label": place, "membrane": membrane}
        splits["test" if told[1:] else "train"].append(row)
    if both:
        rank_zero_warn(f"{folder / FILE}: {both} proteins of both {TWO.replace('-', ' and ')} are left out.")
    return splits
