"""What a curve shows: its dial, and whether its best point lies inside."""

import math
import re
from collections.abc import Sequence

import pandas as pd

from .summary import Rows, drop_diverged, encoder_rows, label_rows, points, varied_fields


def dial_values(names: Sequence[str]) -> list[float] | None:
    """The numbers that views differ in, if they differ in one number only: `crop:0.2+grey:1`, `crop:0.4+grey:1` -> 0.2, 0.4.

    >>> dial_values(["patch:8/32", "patch:16/32"]), dial_values(["color:lab", "color:rgb"])
    ([8.0, 16.0], None)
    """
    number = r"(?<![\w.])-?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?"
    if len({re.sub(number, "#", name) for name in names}) != 1:
        return None
    columns = list(zip(*(map(float, re.findall(number, name)) for name in names), strict=True))
    varied = [column for column in columns if len(set(column)) > 1]
    return list(varied[0]) if len(varied) == 1 else None


def by_dial(at: pd.DataFrame, rows: Rows) -> pd.DataFrame:
    """Points of rows in the order of their dial, if it is a number (then in a column `dial`), otherwise as the rows come."""
    values = dial_values(list(at["view"]))
    if values is None:
        frame = label_rows(rows)
        order = {name: i for i, name in enumerate(dict.fromkeys(drop_diverged(frame)["view"]))}
        return at.sort_values(
            "view", key=lambda names: names.map(order), kind="stable"
        ).reset_index(drop=True)
    return at.assign(dial=values).sort_values("dial", kind="stable").reset_index(drop=True)


def verdict(rows: Rows, task: str, *, dial: bool = False) -> str:
    """What the curve shows, derived from its numbers: whether the best point is interior, and by how much.

    Where rows tell what networks reach without training, a second sentence holds the best point against its own.

    Args:
        rows: as `run` returns them.
        task: what accuracy is measured on.
        dial: whether the curve is taken along the views' dial, see `by_dial`, instead of along what is shared.
    """
    at = points(rows, task)
    frame = encoder_rows(rows)
    if frame["view"].nunique() > 1 and (others := varied_fields(frame)):
        return f"Several curves: rows differ in view and in {' and '.join(others)}; choose rows that differ in the view alone."
    at = by_dial(at, rows) if dial else at
    best = int(at[f"acc_{task}_mean"].idxmax())
    bare, spread = (
        at[name][best] if name in at else math.nan for name in ("untrained", "untrained_std")
    )
    said = (
        f" Untrained, its network has {bare:.2f}{'' if math.isnan(spread) else f' ± {spread:.2f}'}."
    )
    return _shape(at, task, best, dial) + ("" if math.isnan(bare) else said)


def _shape(at: pd.DataFrame, task: str, best: int, dial: bool) -> str:
    acc, names, last = at[f"acc_{task}_mean"], at["view"], len(at) - 1

    def say(i: int) -> str:
        spread = (
            f" ± {at['spread'][i]:.2f}" if at["n"][i] > 1 else ""
        )  # of a single seed it is not known
        return f"{names[i]} ({at['i_nce_mean'][i]:.2f} nats, accuracy {acc[i]:.2f}{spread})"

    if last == 0:
        return f"One point is no curve: {say(0)}; vary the view."
    if best in (0, last):
        return f"No inverted U: the best of {len(at)} points is an end, {say(best)}; the other end is {say(last - best)}."
    gains = acc[best] - acc[0], acc[best] - acc[last]
    clear = all(
        gain > at["spread"][best] + at["spread"][end]
        for gain, end in zip(gains, (0, last), strict=True)
    )
    ends = ("", "") if dial else (", where the least is shared", ", where the most is")
    shape = (
        "An inverted U"
        if clear
        else "No clear inverted U, for the gains are within the spread over seeds"
    )
    shape = (
        shape
        if at["n"].min() > 1
        else "Perhaps an inverted U, but with one seed the spread is not known"
    )
    return (
        f"{shape}: the best point is {say(best)}, "
        f"{gains[0]:.2f} above {say(0)}{ends[0]}, and {gains[1]:.2f} above {say(last)}{ends[1]}."
    )
