"""Which files and folders of a source are its splits: those of exactly that name, and a few official layouts."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from pytorch_lightning.utilities import rank_zero_warn

from ssl_suite.core.errors import UserError
from ssl_suite.data.common.files import suffix_of
from ssl_suite.data.common.walk import files_below, visible

SPLITS = ("train", "validation", "test")
ALIASES = {"validation": ("validation", "valid", "val", "dev"), "train": ("train", "training"), "test": ("test",)}
SPLIT_OF = {alias: split for split, aliases in ALIASES.items() for alias in aliases}
SHARD = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})(-[0-9a-f]{16})?")
"""How the hub numbers the files of a split: `train-00000-of-00005.parquet`."""
NAMED = f"(?P<split>{'|'.join(SPLIT_OF)})"
OFFICIAL = tuple(
    re.compile(pattern)
    for pattern in (
        rf"{NAMED}-v\d+\.\d+\.json",  # SQuAD: dev-v1.1.json
        rf"(cmrc2018|DRCD)_{NAMED}\.json",
        rf"[\w-]+-ud-{NAMED}\.conllu",  # Universal Dependencies: en_ewt-ud-dev.conllu
    )
)
"""Names of files in layouts that put more in a name than the split."""
MANIFESTS = ("metadata.csv", "manifest.csv")
"""Tables in a folder of media files that name them."""

Names = Mapping[str, tuple[str, ...]]
"""Split → what it may be called; the first that is there is taken."""


@dataclass(frozen=True)
class Kinds:
    """What a modality looks for in a folder.

    Attributes:
        tables: suffixes of files that are a split each.
        loose: suffixes of files of which any number in a folder are a split.
        classes: whether subfolders are classes, so that they must not be taken for splits, nor splits for them.
    """

    tables: Collection[str]
    loose: Collection[str]
    classes: bool


def split_of(path: Path) -> str | None:
    """The split that a file or folder is by its name; None for one that is no split."""
    name = path.name.removesuffix(".gz")
    official = next((found for pattern in OFFICIAL if (found := pattern.fullmatch(name))), None)
    return SPLIT_OF.get(official["split"] if official else base_name(path))


def base_name(path: Path) -> str:
    """A file's name without its suffix and its number among the split's files; a folder's name."""
    name = path.name if path.is_dir() else _stem(path)
    shard = SHARD.fullmatch(name)
    return shard["name"] if shard else name


def _ending(path: Path) -> str:
    """The suffix, with that of a packed file."""
    return suffix_of(path) + ".gz" * (path.suffix == ".gz")


def _stem(path: Path) -> str:
    return path.name[: len(path.name) - len(_ending(path))]


def find_splits(
    folder: Path, kinds: Kinds, names: Names | None = None, given: Collection[str] = ()
) -> dict[str, list[Path]]:
    """Finds the splits in a folder, or further down where nothing else is there.

    Args:
        folder: to look in.
        kinds: what to look for.
        names: what splits are called there, in an official layout; other files are passed over without a word.
        given: splits that come from elsewhere.

    Returns:
        split → its files, or its folder alone; nothing where the folder has no splits.

    Raises:
        UserError: two files or folders are one split, splits and classes are mixed, or several folders have splits.
    """
    inside = visible(folder)
    files = [p for p in inside if suffix_of(p) in kinds.tables and p.is_file()]
    folders = [p for p in inside if p.is_dir()]
    if names is not None:
        return _named(folder, files, names, given)
    tables = {p: split for p in files if (split := split_of(p))}
    found = {p: split for p in folders if (split := split_of(p)) and _holds(p, kinds)}
    if tables and kinds.classes:  # their files may lie in folders of any name
        found = {}
    elif found:
        _apart([p for p in folders if p not in found and _holds(p, kinds)], folder, found, kinds.classes)
    else:
        inner = _further_down(folder, folders, kinds) if not tables else None
        if inner is not None:
            return find_splits(inner, kinds, None, given)
    found |= tables
    loose = [p for p in inside if suffix_of(p) in kinds.loose and p.is_file()]
    unused = {*files, *loose} if found else {*files}.difference(loose)  # without splits, the loose ones are the data
    if tables and kinds.classes:  # they say themselves which of the others are used
        unused = {*files}
    _name_unused(folder, sorted(p for p in unused if p not in found and p.name not in MANIFESTS))
    grouped = {s: [p for p in found if found[p] == s] for s in SPLITS if s in found.values() and s not in given}
    return {
        split: _one_of_a_kind(folder, split, paths, f", or name one with --data.{split}")
        for split, paths in grouped.items()
    }


def _named(folder: Path, files: list[Path], names: Names, given: Collection[str]) -> dict[str, list[Path]]:
    """The files of an official layout."""
    choices = {s: [[p for p in files if base_name(p) == name] for name in names[s]] for s in names if s not in given}
    there = {split: next(filter(None, found), []) for split, found in choices.items()}
    return {split: _one_of_a_kind(folder, split, paths) for split, paths in there.items() if paths}


def _holds(folder: Path, kinds: Kinds) -> bool:
    """Whether anything that can be read lies below a folder."""
    wanted = {*kinds.loose, *kinds.tables}
    return any(suffix_of(path).lower() in wanted for path in files_below(folder))


def _apart(others: list[Path], folder: Path, splits: Mapping[Path, str], classes: bool) -> None:
    """Raises UserError where folders beside the splits may be classes; elsewhere they are named and not used."""
    if others and classes:
        raise UserError(
            f"{folder} mixes splits ({_listed(list(splits))}) and other folders ({_listed(others)}): if all are "
            f"classes, move them into {folder / 'train'}; if not, move the others away."
        )
    _name_unused(folder, others)


def _further_down(folder: Path, folders: list[Path], kinds: Kinds) -> Path | None:
    """The folder that has the splits, where it is the only one with data."""
    with_splits = [p for p in folders if any((p / alias).is_dir() for alias in ALIASES["train"])]
    if not with_splits and len(folders) > 1:
        return None
    holders = [p for p in folders if _holds(p, kinds)]
    if len(holders) == 1 and not any(suffix_of(p) in kinds.loose for p in visible(folder)):
        inner = [p for p in visible(holders[0]) if split_of(p) and (p.is_dir() or suffix_of(p) in kinds.tables)]
        below = [p for p in visible(holders[0]) if p.is_dir()]
        return holders[0] if inner else _further_down(holders[0], below, kinds)
    if with_splits and kinds.classes:
        raise UserError(f"{folder} has splits inside {_listed(with_splits)}: name the one to read as the source.")
    return None


def _one_of_a_kind(folder: Path, split: str, paths: list[Path], remedy: str = "") -> list[Path]:
    """The files of a split, which are one table or its shards; raises UserError for two that are not."""
    shards = [SHARD.fullmatch(_stem(path)) for path in paths]
    families = {
        (shard["name"] if shard else path.name, shard and _ending(path)): path
        for path, shard in zip(paths, shards, strict=True)
    }
    if len(families) > 1:
        first, second, *_ = families.values()
        raise UserError(
            f"{folder} holds both {first.name} and {second.name} for the split {split}; keep one of them{remedy}."
        )
    if shards[0] and len(paths) != (total := int(shards[0]["total"])):
        rank_zero_warn(f"{folder}: of the {total} files of the split {split} only {len(paths)} are there.")
    return paths


def _name_unused(folder: Path, paths: list[Path]) -> None:
    if paths:
        rank_zero_warn(
            f"{folder}: not used: {_listed(paths)}. A split is a file or folder called train, validation (valid, "
            "val, dev) or test."
        )


def _listed(paths: list[Path], most: int = 5) -> str:
    more = f" and {len(paths) - most} more" if len(paths) > most else ""
    return ", ".join(p.name for p in paths[:most]) + more
