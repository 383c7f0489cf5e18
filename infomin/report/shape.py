"""The shape of a curve: its dial, and whether its best point is interior."""

import math
import re
from collections.abc import Sequence

import pandas as pd

from .summary import Rows, drop_diverged, encoder_rows, label_rows, points, varied_fields

# With fewer points an end and the best one are neighbours; with fewer seeds a spread says little.
LEAST_POINTS, LEAST_SEEDS = 4, 3


def dial_values(names: Sequence[str]) -> list[float] | None:
    """The numbers that the names of views differ in, or None unless they differ in one number only.

    `crop:0.2+grey:1`, `crop:0.4+grey:1` give 0.2, 0.4.

    >>> dial_values(["patch:8/32", "patch:16/32"]), dial_values(["color:lab", "color:rgb"])
    ([8.0, 16.0], None)
    """
    number = r"(?<![\w.])-?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?"
    templates = {re.sub(number, "#", name) for name in names}
    if len(templates) != 1:
        return None
    numbers = [[float(digits) for digits in re.findall(number, name)] for name in names]
    varied = [column for column in zip(*numbers, strict=True) if len(set(column)) > 1]
    return list(varied[0]) if len(varied) == 1 else None


def by_dial(at: pd.DataFrame, rows: Rows) -> pd.DataFrame:
    """Sort the points of a curve by their dial, or by first appearance if it is not a number.

    Args:
        at: the points, as `points(rows, task)` returns them.
        rows: the rows that they come from.

    Returns:
        the points, with a column `dial` if it is a number.
    """
    values = dial_values(list(at["view"]))
    if values is not None:
        return at.assign(dial=values).sort_values("dial", kind="stable").reset_index(drop=True)
    views = drop_diverged(label_rows(rows))["view"]
    order = {name: i for i, name in enumerate(dict.fromkeys(views))}
    in_order = at.sort_values("view", key=lambda names: names.map(order), kind="stable")
    return in_order.reset_index(drop=True)


def verdict(rows: Rows, task: str, *, dial: bool = False) -> str:
    """Say what the curve shows: whether its best point is interior, and by how much.

    An inverted U needs four points or more, of three seeds or more. A point with negative I_NCE,
    which bounds nothing, is never the best one. Where rows include untrained networks, a second
    sentence compares the most accurate point with its own.

    Args:
        rows: as `run` returns them.
        task: what accuracy is measured on.
        dial: order the points by the views' dial, see `by_dial`, not by shared information.
    """
    curve = points(rows, task)
    frame = encoder_rows(rows)
    others = varied_fields(frame) if frame["view"].nunique() > 1 else []
    if others:
        return (
            f"Several curves: the rows differ in view and in {' and '.join(others)}; choose rows "
            "that differ only in view."
        )
    curve = by_dial(curve, rows) if dial else curve
    best = int(curve[f"acc_{task}_mean"].idxmax())
    return _describe_shape(curve, task, best, dial) + _describe_untrained(curve, best)


def _describe_untrained(curve: pd.DataFrame, best: int) -> str:
    if "untrained" not in curve or math.isnan(curve["untrained"][best]):
        return ""
    accuracy, deviation = curve["untrained"][best], curve["untrained_std"][best]
    plus_minus = "" if math.isnan(deviation) else f" ± {deviation:.2f}"
    name = curve["view"][best]
    return f" Untrained, the network of {name} reaches {accuracy:.2f}{plus_minus}."


def _describe_shape(curve: pd.DataFrame, task: str, best: int, dial: bool) -> str:
    accuracy, spread = curve[f"acc_{task}_mean"], curve["spread"]
    last = len(curve) - 1

    def describe(i: int) -> str:
        plus_minus = f" ± {spread[i]:.2f}" if curve["n"][i] > 1 else ""  # unknown for one seed
        nats = curve["i_nce_mean"][i]
        return f"{curve['view'][i]} ({nats:.2f} nats, accuracy {accuracy[i]:.2f}{plus_minus})"

    highest = f"the highest accuracy is that of {describe(best)}"
    if len(curve) < LEAST_POINTS:
        return (
            f"Too few points for an inverted U, {len(curve)} of at least {LEAST_POINTS}: "
            f"{highest}; vary the view further."
        )
    if curve["i_nce_mean"][best] < 0:
        return f"No inverted U: {highest}, where I_NCE finds nothing shared."
    if best in (0, last):
        return (
            f"No inverted U: the best of {last + 1} points is at an end, {describe(best)}; the "
            f"other end is {describe(last - best)}."
        )
    gains = {end: accuracy[best] - accuracy[end] for end in (0, last)}
    clear = all(gain > spread[best] + spread[end] for end, gain in gains.items())
    if not clear:
        shape = "No clear inverted U (the gains are within the spread over seeds)"
    elif curve["n"].min() < LEAST_SEEDS:
        shape = f"Perhaps an inverted U (a sure one needs {LEAST_SEEDS} seeds or more)"
    else:
        shape = "An inverted U"
    least, most = ("", "") if dial else (", which shares least", ", which shares most")
    return (
        f"{shape}: the best point is {describe(best)}, {gains[0]:.2f} above {describe(0)}{least}, "
        f"and {gains[last]:.2f} above {describe(last)}{most}."
    )
