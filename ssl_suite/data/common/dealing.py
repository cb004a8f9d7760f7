"""Splits that have speakers (or patients, or places) of their own, whatever splits a source has."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from ssl_suite.core.errors import UserError
from ssl_suite.data.common.kinds import spelled
from ssl_suite.data.common.source import Rows


def dealt(splits: dict[str, Rows], column: str, share: float = 0.1) -> dict[str, Rows]:
    """All rows, dealt anew so that no value of a column is in two splits; the same for every run.

    Args:
        splits: of a source; they are put together.
        column: whose values stay together.
        share: of the values that are for validation, and as many for test; at least one each.

    Raises:
        UserError: the column has fewer than three values, or is not in every split.
    """
    from datasets import concatenate_datasets

    names = ", ".join(rows.name for rows in splits.values())
    for rows in splits.values():
        rows.expect(column)
    values = [spelled(value) for rows in splits.values() for value in rows.column(column)]
    order = sorted(set(values), key=lambda value: hashlib.md5(value.encode()).hexdigest())
    if len(order) < 3:
        raise UserError(
            f"{names}: {column!r} has {len(order)} values, too few for three splits with others each; leave data.apart "
            "out."
        )
    held = max(1, round(share * len(order)))
    chosen = {"train": order[2 * held :], "validation": order[held : 2 * held], "test": order[:held]}
    try:
        table = concatenate_datasets([rows.table for rows in splits.values()])
    except Exception as error:  # one library, many errors
        raise UserError(f"{names} have other columns, so that data.apart cannot deal them anew: {error}.") from error
    pooled = _pooled(table, list(splits.values()))
    split_of = {value: split for split, found in chosen.items() for value in found}
    places = np.array([split_of[value] for value in values])
    return {split: pooled.take(np.flatnonzero(places == split)) for split in chosen}


def _pooled(table: Any, parts: list[Rows]) -> Rows:
    """The rows of several splits as those of one, each of which still knows its place in its file."""
    numbers, firsts, offset = [], [], 0
    for rows in parts:
        own = np.arange(len(rows)) if rows.numbers is None else rows.numbers
        numbers.append(own + offset)
        firsts += [(offset + first, name) for first, name in rows.parts or [(0, rows.name)]]
        offset += int(own.max(initial=-1)) + 1
    name, fingerprint = parts[0].name, "|".join(rows.fingerprint for rows in parts)
    return Rows(table, name, fingerprint, np.concatenate(numbers), firsts)
