"""What a curve says in numbers: its points, its dial, and whether its best point lies inside."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from .rows import drop_repeats, to_frame

Rows: TypeAlias = Sequence[Mapping[str, Any]] | pd.DataFrame
FILES = (
    "files",
    "learned",
)  # of data and of views: what stood at a path, not only the path, makes a run
# With the view, all that the features of a network depend on that took no step, but for the seed.
NETWORK = ("data", "files", "learned", "size", "encoder", "width", "share_encoder", "probe_images")


def points(rows: Rows, task: str, by: str = "view") -> pd.DataFrame:
    """One point per value of `by`: means and deviations over seeds, in order of information.

    Untrained rows (steps=0) are no points: the mean and standard deviation of their accuracy are the columns `untrained` and
    `untrained_std` of the points that have their view, data and network, whatever these were trained with.

    Args:
        rows: as `run` returns them or `table.read` reads them; diverged ones only count. Those of one's own baselines need the
            columns `by`, `i_nce` and `acc_TASK`.
        task: a task of the data, for example `digit`.
        by: the column that is varied.

    Returns:
        a pandas table, so with `.to_csv(path)` and, for a paper, `.to_latex()`: `by`, mean and standard deviation of each number
        as in `summary`, those of nearest neighbours where rows have them, and `spread`, the deviation of accuracy or 0.

    Raises:
        ValueError: no row says anything about the task, and the message lists the tasks there are; or none has an I_NCE.
    """
    frame = label_rows(rows)
    tasks = [column[4:] for column in frame if column.startswith("acc_")]
    if task not in tasks:
        raise ValueError(
            f"task: got {task!r}, wanted one of {', '.join(tasks) or '(no row has an accuracy)'}; pick one of those"
        )
    has_truth, neighbours = (
        "true_nats" in frame and bool(frame["true_nats"].notna().all()),
        f"knn_{task}",
    )
    bare = _bare(frame)
    if (several := frame[~bare].groupby(by, dropna=False)["view"].nunique()).max() > 1:
        raise ValueError(
            f"rows: got {several.max()} views of {by}={several.idxmax()}, wanted one; take by='view', or rows of one view"
        )
    found = means(
        frame[~bare],
        by,
        ["true_nats"] * has_truth + ["i_nce", f"acc_{task}"] + [neighbours] * (neighbours in frame),
    )
    found = found.dropna(subset=[f"acc_{task}_mean"]).reset_index(
        drop=True
    )  # other data have other tasks
    if found.empty:
        raise ValueError(
            "rows: got none with an I_NCE, wanted runs of two views or more that have not diverged; add some"
        )
    if bare.any():
        like = ["seen", *(name for name in NETWORK if name in frame)]
        reached = (
            frame[bare]
            .groupby(like, dropna=False)[f"acc_{task}"]
            .agg(untrained="mean", untrained_std="std")
        )
        networks = frame[~bare].drop_duplicates(by)[list(dict.fromkeys([by, *like]))]
        found = found.merge(
            networks.merge(reached.reset_index(), how="left", on=like)[[by, *reached]], on=by
        )
    found["spread"] = found[f"acc_{task}_std"].fillna(0.0)
    return found


def encoder_rows(rows: Rows) -> pd.DataFrame:
    """Rows of encoders, each run once."""
    if isinstance(rows, str | Path | Mapping):
        raise TypeError(
            f"rows: got a {type(rows).__name__}, wanted a list of rows or a DataFrame; take infomin.table.read(folder)"
        )
    frame = rows if isinstance(rows, pd.DataFrame) else to_frame(rows)
    if "method" in frame:
        frame = frame[frame["method"] != "game"]  # which has learned views, and no encoder to probe
    if frame.empty:
        games = " but those of games" if len(rows) else ""
        raise ValueError(
            f"rows: got none{games}, wanted those of runs; run a sweep first, or take infomin.table.read(folder)"
        )
    return drop_repeats(frame)


def drop_diverged(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows that have not diverged; where none has a status, all."""
    return frame[frame["status"] != "diverged"] if "status" in frame else frame


def _bare(frame: pd.DataFrame) -> "pd.Series[bool]":
    """Which rows are those of untrained networks, if there are trained ones beside them."""
    bare = frame["steps"] == 0 if "steps" in frame else pd.Series(False, frame.index)
    return bare & (not bare.all())


def drop_untrained(rows: Rows) -> pd.DataFrame:
    """Rows of networks that were trained, or were to be."""
    frame = pd.DataFrame(rows)
    return frame[~_bare(frame)]


def label_rows(rows: Rows) -> pd.DataFrame:
    """Rows, each run once; where more than views and seeds were varied, `view` says what else, so that no mean runs over it.

    The column `seen` has the view alone.
    """
    frame = encoder_rows(rows)
    frame = frame.assign(seen=frame.get("view"))  # rows of one's own may have none
    for name in varied_fields(frame):
        frame["view"] += [f", {name}={value}" if pd.notna(value) else "" for value in frame[name]]
    return frame


def varied_fields(frame: pd.DataFrame) -> list[str]:
    """What the recipes of rows differ in beside view and seed."""
    if "key" not in frame:
        return []
    frame = frame[~_bare(frame)]
    recipe = (
        list(frame.loc[:, "key":"status"]) if "status" in frame else []
    )  # a row begins with its recipe
    if not {"view", "seed"} <= set(recipe):
        raise ValueError(
            "rows: got columns in another order, wanted that of rows of a run, from key to status; leave it as it is"
        )
    names = [
        name
        for name in recipe
        if name not in ("key", "view", "seed", "status") and frame[name].nunique() > 1
    ]
    same = [name for name in ("view", "data") if name in frame]
    return names + [
        name for name in FILES if name in frame and frame.groupby(same)[name].nunique().max() > 1
    ]


def means(frame: pd.DataFrame, by: str, numbers: list[str]) -> pd.DataFrame:
    """Means and deviations over seeds in the order of the first number, without the groups that have diverged throughout."""
    found = summary(frame, by, numbers).dropna(subset=["i_nce_mean"])
    return found.sort_values(f"{numbers[0]}_mean", kind="stable").reset_index(drop=True)


def summary(
    frame: pd.DataFrame, by: str | Sequence[str], columns: str | Sequence[str]
) -> pd.DataFrame:
    """Mean and standard deviation over seeds, a row per group in the order of first appearance.

    Args:
        frame: rows as `table.read` returns them.
        by: the column or columns that make a group, for example `view`.
        columns: the numbers to summarise, each in its own unit.

    Returns:
        a pandas table, so with `.to_csv(path)` and, for a paper, `.to_latex()`: `by`, `<column>_mean` and `<column>_std` for each
        column, `n`, `diverged`. Rows whose `status` is "diverged" only count in `diverged`. std divides by n - 1, so it is NaN
        for one seed: unknown, not zero. Where another row lacks a number, that mean and std are NaN, since n would not be true
        of them.

    Raises:
        ValueError: a column that the frame does not have.
    """
    by, columns = ([names] if isinstance(names, str) else list(names) for names in (by, columns))
    if missing := [name for name in [*by, *columns] if name not in frame]:
        raise ValueError(
            f"summary: got unknown columns {', '.join(missing)}, wanted some of {', '.join(frame)}; pick from those"
        )
    groups = []
    for values, rows in frame.groupby(by, sort=False, dropna=False):
        done = drop_diverged(rows)
        group = dict(zip(by, values, strict=True))
        for name in columns:
            numbers = done[name].astype(float)
            group |= {
                f"{name}_mean": numbers.mean(skipna=False),
                f"{name}_std": numbers.std(skipna=False),
            }
        groups.append(group | {"n": len(done), "diverged": len(rows) - len(done)})
    return pd.DataFrame(groups)
