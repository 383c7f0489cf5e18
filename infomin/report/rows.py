"""Rows of runs, gathered from disk into one table."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.files import PathLike, read_lines, read_object

if TYPE_CHECKING:  # at run time pandas is imported where it is used: 0.2 s that a process which only trains need not wait
    import pandas as pd


def read_rows(folder: PathLike, *more: PathLike) -> "pd.DataFrame":
    """Gather rows into a DataFrame: each row.json below a folder in the order of the paths, or the lines of one .jsonl file.

    Rows that cannot be read are left out with one warning that names them. A run that is there several times counts once, as it
    is there first.

    Args:
        folder: a folder of runs, at any depth, or a .jsonl file.
        more: other such, whose rows follow.

    Raises:
        FileNotFoundError: no such folder or file.
        ValueError: it holds no row, or is another kind of file.
    """
    found = {place: _found(place) for place in map(Path, (folder, *more))}
    if bad := [name for pairs in found.values() for name, row in pairs if row is None]:
        warnings.warn(
            f"left out {len(bad)} rows that cannot be read: {'; '.join(bad)}; "
            "delete them and run the same command again, these runs will be repeated",
            stacklevel=2,
        )
    if empty := [
        str(place) for place, pairs in found.items() if all(row is None for _, row in pairs)
    ]:
        raise ValueError(
            f"{', '.join(empty)}: wanted row.json files below it or a row a line, got none that can be read; "
            "run a sweep with --out first, or wait until its first row is there"
        )
    return drop_repeats(
        to_frame([row for pairs in found.values() for _, row in pairs if row is not None])
    )


def _found(place: Path) -> list[tuple[str, dict[str, Any] | None]]:
    """What stands at one place of a table: each row's name, and the row, None where it cannot be read."""
    if not place.exists():
        raise FileNotFoundError(
            f"{place}: wanted a folder of runs or a .jsonl file, got nothing; check its name, or run a sweep with --out first"
        )
    if place.is_dir():
        return [(str(path), read_object(path)) for path in sorted(place.rglob("row.json"))]
    if place.is_file() and place.suffix.lower() != ".jsonl":  # a pipe has no such name
        raise ValueError(
            f"{place}: got another file, wanted a folder of runs or a .jsonl file of rows; name the folder that it lies in"
        )
    return [(f"{place}, line {number}", row) for number, row in read_lines(place)]


def drop_repeats(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Rows of which each run is there once, the first time; one without a key, as of one's own baselines, is like no other."""
    if "key" in frame:
        frame = frame[frame["key"].isna() | ~frame["key"].duplicated()]
    return frame.reset_index(drop=True)


def to_frame(rows: Sequence[Mapping[str, Any]]) -> "pd.DataFrame":
    """Rows as a DataFrame, each column behind the one that it follows in a row: what the first row lacks is not put last."""
    import pandas as pd

    columns: list[str] = []
    for names in dict.fromkeys(map(tuple, rows)):
        place = 0
        for name in names:
            if name not in columns:
                columns.insert(place, name)
            place = columns.index(name) + 1
    return pd.DataFrame(rows, columns=columns)
