"""Read the rows of runs from disk into one table."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.files import PathLike, as_path, read_lines, read_object

SHOWN = 5  # rows that a warning names

if TYPE_CHECKING:  # importing pandas takes 0.2 s, so a process that only trains does without it
    import pandas as pd


def read_rows(folder: PathLike, *more: PathLike) -> "pd.DataFrame":
    """Read rows into a DataFrame: every row.json below a folder, or every line of a .jsonl file.

    Files are read in the order of their paths. Rows that are damaged, or that hold anything but
    text, finite numbers, true, false and null, are left out with one warning that names them. A run
    that occurs more than once counts only the first time.

    Args:
        folder: a folder of runs, at any depth, or a .jsonl file.
        more: further folders or .jsonl files, whose rows follow.

    Raises:
        FileNotFoundError: no such folder or file.
        ValueError: a folder or file without a readable row, another kind of file, or a .jsonl file
            of more than 256 MiB.
    """
    rows: list[dict[str, Any]] = []
    unreadable: list[str] = []
    empty: list[str] = []
    for path in dict.fromkeys(as_path(path, "read_rows") for path in (folder, *more)):
        before = len(rows)
        for name, row in _read_named_rows(path):
            if row is not None and all(map(_is_plain, row.values())):
                rows.append(row)
            else:
                unreadable.append(name)
        if len(rows) == before:
            empty.append(str(path))
    if unreadable:
        others = len(unreadable) - SHOWN
        warnings.warn(
            f"left out {len(unreadable)} {'row' if len(unreadable) == 1 else 'rows'} that cannot "
            f"be read: {'; '.join(unreadable[:SHOWN])}{f'; {others} more' if others > 0 else ''}; "
            "delete what is damaged and run the same command again to repeat those runs",
            stacklevel=2,
        )
    if empty:
        raise ValueError(
            f"{', '.join(empty)}: wanted row.json files or lines of rows, got none that can be "
            "read; run a sweep with --out first, or wait for its first row"
        )
    return drop_repeats(to_frame(rows))


def _is_plain(value: object) -> bool:
    """Whether a row may hold the value: text, a finite number, a truth value or nothing."""
    if isinstance(value, int | float):
        return abs(value) < 1e300  # not NaN
    return value is None or isinstance(value, str)


def _read_named_rows(path: Path) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """The name of each row in a folder or file, and the row itself, None if it cannot be read."""
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: wanted a folder of runs or a .jsonl file, got nothing; check its name, or "
            "run a sweep with --out first"
        )
    if path.is_dir():
        yield from ((str(file), read_object(file)) for file in sorted(path.rglob("row.json")))
    elif path.suffix.lower() == ".jsonl":
        yield from ((f"{path}, line {number}", row) for number, row in read_lines(path))
    else:
        raise ValueError(
            f"{path}: got another kind of file, wanted a folder of runs or a .jsonl file of rows; "
            "name the folder that contains it"
        )


def drop_repeats(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Keep the first row of each run; rows without a key, such as your own baselines, all stay."""
    if "key" in frame:
        frame = frame[frame["key"].isna() | ~frame["key"].duplicated()]
    return frame.reset_index(drop=True)


def to_frame(rows: Sequence[Mapping[str, Any]]) -> "pd.DataFrame":
    """Turn rows into a DataFrame that keeps their order of columns.

    A column that the first row lacks is inserted after the one it follows in its own row, not
    appended at the end.
    """
    import pandas as pd

    columns: list[str] = []
    for names in dict.fromkeys(map(tuple, rows)):
        position = 0
        for name in names:
            if name not in columns:
                columns.insert(position, name)
            position = columns.index(name) + 1
    return pd.DataFrame(rows, columns=columns)
