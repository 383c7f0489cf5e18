"""Rows in, numbers out: means and standard deviations over seeds, and the points of a curve."""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from .rows import drop_repeats, to_frame

Rows: TypeAlias = Sequence[Mapping[str, Any]] | pd.DataFrame
# Digests of the files of a data set and of a learned view: the same path can hold other content.
FILES = ("files", "learned")
# With the view, everything that the features of an untrained network depend on, except the seed.
NETWORK = ("data", "files", "learned", "size", "encoder", "width", "share_encoder", "probe_images")


def points(rows: Rows, task: str, by: str = "view") -> pd.DataFrame:
    """One point per value of `by`: means and deviations over seeds, in order of information.

    Untrained rows (steps=0) are not points. The mean and standard deviation of their accuracy are
    the columns `untrained` and `untrained_std` of the points with the same view, data and network,
    whatever training those had.

    Args:
        rows: as `run` or `read_rows` returns them; diverged ones are only counted. Rows of your own
            need the columns `by`, `i_nce` and `acc_TASK`.
        task: a task of the data, for example `digit`.
        by: the column that is varied.

    Returns:
        a pandas table (so `.to_csv(path)` works and, for a paper, `.to_latex()`): `by`, mean and
        standard deviation of each number as in `summarise`, nearest neighbours included where rows
        have them, and `spread`, the standard deviation of accuracy, 0 where it is unknown.

    Raises:
        ValueError: no row has this task (the message lists those there are), none has an I_NCE, a
            value of `by` has several views, or a number is none.
    """
    frame = label_rows(rows)
    if missing := [name for name in (by, "i_nce") if name not in frame]:
        raise ValueError(
            f"rows: need the columns {by} and i_nce, got none named {', '.join(missing)}; use rows "
            "of runs that did not diverge, or add the columns to your own"
        )
    accuracies = [column for column in frame if column.startswith("acc_")]
    accuracy = f"acc_{task}"
    if accuracy not in accuracies:
        known = ", ".join(column.removeprefix("acc_") for column in accuracies)
        raise ValueError(f"task: got {task!r}, wanted one of {known or '(no row has an accuracy)'}")
    numbers = ["i_nce", accuracy]
    if "true_nats" in frame and drop_diverged(frame)["true_nats"].notna().all():
        numbers = ["true_nats", *numbers]
    if f"knn_{task}" in frame:
        numbers = [*numbers, f"knn_{task}"]
    untrained = _is_untrained(frame)
    trained = frame[~untrained]
    _check_one_view_each(trained, by)
    curve = means(trained, by, numbers)
    curve = curve.dropna(subset=[f"{accuracy}_mean"])  # other data have other tasks
    curve = curve.reset_index(drop=True)
    if curve.empty:
        raise ValueError(
            "rows: got none with an I_NCE, need runs with two views or more that did not diverge"
        )
    if untrained.any():
        curve = _add_untrained(curve, trained, frame[untrained], accuracy, by)
    curve["spread"] = curve[f"{accuracy}_std"].fillna(0.0)
    return curve


def _check_one_view_each(frame: pd.DataFrame, by: str) -> None:
    views = frame.groupby(by, dropna=False)["view"].nunique()
    if views.max() > 1:
        raise ValueError(
            f"rows: got {views.max()} views with {by}={views.idxmax()}, wanted one; use by='view', "
            "or rows of a single view"
        )


def _add_untrained(
    curve: pd.DataFrame, trained: pd.DataFrame, untrained: pd.DataFrame, accuracy: str, by: str
) -> pd.DataFrame:
    """Add to each point the accuracy of its own network without training, averaged over seeds."""
    network = ["view_alone", *(name for name in NETWORK if name in trained)]
    accuracies = untrained.groupby(network, dropna=False)[accuracy]
    reached = accuracies.agg(untrained="mean", untrained_std="std")
    networks = trained.drop_duplicates(by)[list(dict.fromkeys([by, *network]))]
    matched = networks.merge(reached.reset_index(), how="left", on=network)
    return curve.merge(matched[[by, *reached]], on=by)


def encoder_rows(rows: Rows) -> pd.DataFrame:
    """Rows that describe an encoder (those of games do not), each run once."""
    if isinstance(rows, str | Path | Mapping):
        raise TypeError(
            f"rows: got {type(rows).__name__}, wanted a list of rows or a DataFrame; use "
            "infomin.read_rows(folder)"
        )
    frame = rows if isinstance(rows, pd.DataFrame) else to_frame(rows)
    if "method" in frame:
        frame = frame[frame["method"] != "game"]
    if frame.empty:
        got = "only rows of games" if len(rows) else "none"
        raise ValueError(
            f"rows: got {got}, wanted rows of runs; run a sweep first, or use "
            "infomin.read_rows(folder)"
        )
    return drop_repeats(frame)


def drop_diverged(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows that did not diverge; all of them if there is no column `status`."""
    return frame[frame["status"] != "diverged"] if "status" in frame else frame


def _is_untrained(frame: pd.DataFrame) -> "pd.Series[bool]":
    """Mask of the rows of untrained networks; if there are no others, those are the curve."""
    untrained = frame["steps"] == 0 if "steps" in frame else pd.Series(False, frame.index)
    return untrained & (not untrained.all())


def drop_untrained(rows: Rows) -> pd.DataFrame:
    """Rows without those of untrained networks, unless there are no others."""
    frame = pd.DataFrame(rows)
    return frame[~_is_untrained(frame)]


def label_rows(rows: Rows) -> pd.DataFrame:
    """Rows, each run once, whose `view` also names every other recipe field that varies.

    So no mean mixes two settings. The column `view_alone` keeps the view as it was.
    """
    frame = encoder_rows(rows)
    if "view" not in frame or not all(isinstance(view, str) for view in frame["view"]):
        raise ValueError(
            "rows: need a column view with a name in every row, got rows without; use rows of "
            "runs, or add it to your own"
        )
    frame = frame.assign(view_alone=frame["view"])
    for name in varied_fields(frame):
        frame["view"] += [f", {name}={value}" if pd.notna(value) else "" for value in frame[name]]
    return frame


def varied_fields(frame: pd.DataFrame) -> list[str]:
    """The recipe fields that differ between rows, besides view and seed."""
    if not {"key", "status"} <= set(frame):
        return []  # your own rows have no recipe
    frame = frame[~_is_untrained(frame)]
    # A row begins with its recipe, which ends before the status.
    recipe = list(frame.loc[:, "key":"status"])
    if not {"view", "seed"} <= set(recipe):
        raise ValueError(
            "rows: got columns in another order, wanted the order of a run's row, with view and "
            "seed between key and status"
        )
    fields = [name for name in recipe if name not in ("key", "view", "seed", "status")]
    varied = [name for name in fields if frame[name].nunique() > 1]
    source = [name for name in ("view", "data") if name in frame]
    digests = [name for name in FILES if name in frame]
    return varied + [name for name in digests if frame.groupby(source)[name].nunique().max() > 1]


def means(frame: pd.DataFrame, by: str, numbers: list[str]) -> pd.DataFrame:
    """Means and deviations over seeds, sorted by the first number; no groups without an I_NCE."""
    groups = summarise(frame, by, numbers).dropna(subset=["i_nce_mean"])
    return groups.sort_values(f"{numbers[0]}_mean", kind="stable").reset_index(drop=True)


def summarise(
    frame: pd.DataFrame, by: str | Sequence[str], columns: str | Sequence[str]
) -> pd.DataFrame:
    """Mean and standard deviation over seeds, one row per group in order of first appearance.

    Args:
        frame: rows as `read_rows` returns them.
        by: the column or columns that define a group, for example `view`.
        columns: the numbers to summarise, each in its own unit.

    Returns:
        a pandas table (so `.to_csv(path)` works and, for a paper, `.to_latex()`): `by`,
        `<column>_mean` and `<column>_std` for each column, `n`, `diverged`. Rows whose `status` is
        "diverged" only count in `diverged`. The deviation divides by n - 1, so for one seed it is
        NaN: unknown, not zero. If any row of a group lacks a number, its mean and deviation are
        NaN, because they would be of fewer than n rows.

    Raises:
        ValueError: a column that the frame does not have, or a value that is no finite number.
    """
    by = [by] if isinstance(by, str) else list(by)
    columns = [columns] if isinstance(columns, str) else list(columns)
    missing = [name for name in [*by, *columns] if name not in frame]
    if missing:
        raise ValueError(
            f"summarise: got unknown columns {', '.join(missing)}, wanted some of "
            f"{', '.join(frame)}"
        )
    groups = []
    for values, rows in frame.groupby(by, sort=False, dropna=False):
        done = drop_diverged(rows)
        group = dict(zip(by, values, strict=True))
        for name in columns:
            numbers = _numbers(done[name])
            group[f"{name}_mean"] = numbers.mean(skipna=False)
            group[f"{name}_std"] = numbers.std(skipna=False)
        group["n"] = len(done)
        group["diverged"] = len(rows) - len(done)
        groups.append(group)
    return pd.DataFrame(groups)


def largest(frame: pd.DataFrame, column: str) -> float:
    """The largest number of a column; your own rows may lack the column."""
    if column not in frame or frame[column].isna().all():
        raise ValueError(
            f"rows: got none with {column}, need it in nats for the line in the figure; add it to "
            "the rows"
        )
    return float(_numbers(frame[column]).max())


def _numbers(column: pd.Series) -> pd.Series:
    """A column as floats; a missing one is NaN."""
    for value in column:
        missing = value is None or value is pd.NA
        if not missing and (not isinstance(value, Real) or math.isinf(value)):
            raise ValueError(
                f"rows: {column.name} must be a finite number, got {value!r}; repair or drop that "
                "row"
            )
    return column.astype(object).where(column.notna(), math.nan).astype(float)
