"""What figures share: style and colours, numbered points with their key, untrained networks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

INK, SOFT, ACCENT = "#1b1b1e", "#8a8f98", "#c1121f"
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "infomin",
}
NUMBER_DISTANCE = 10  # points from the centre of a number to a point or to another number
KEY_LINE_HEIGHT = 0.16  # inches


def draw_numbered_points(axes: Axes, x: pd.Series, y: pd.Series) -> None:
    """Draw points with numbers that `add_key` explains: names would overlap where points crowd."""
    axes.plot(x, y, "o", color=INK, ms=4, zorder=4)
    style: Any = {
        "xytext": (NUMBER_DISTANCE, NUMBER_DISTANCE),
        "textcoords": "offset points",
        "ha": "center",
        "va": "center",
        "fontsize": 6,
        "color": INK,
        "bbox": {"boxstyle": "circle,pad=0.15", "fc": "white", "ec": INK, "lw": 0.5},
        "arrowprops": {"arrowstyle": "-", "color": INK, "lw": 0.5},
        "zorder": 5,
        "gid": "number",
    }
    for number, point in enumerate(zip(x, y, strict=True), start=1):
        axes.annotate(str(number), point, **style)


def spread_numbers(figure: Figure) -> None:
    """Move numbers apart until none covers another or a point; a line connects each to its own."""
    figure.draw_without_rendering()  # lays the axes out
    pixels_per_point = figure.dpi / 72
    for axes in figure.axes:
        notes: Any = [text for text in axes.texts if text.get_gid() == "number"]
        if not notes:
            continue
        points = axes.transData.transform([note.xy for note in notes]) / pixels_per_point
        angle = np.arange(len(notes)) * 2.4  # numbers of equal points start apart
        jitter = 0.1 * np.stack([np.cos(angle), np.sin(angle)], 1)
        numbers = points + NUMBER_DISTANCE * np.sqrt([0.5, 0.5]) + jitter
        for _ in range(300):
            for obstacles in (numbers, points):
                numbers += 0.3 * _repulsion(numbers, obstacles)
            numbers += 0.01 * (points - numbers)
        for note, offset in zip(notes, numbers - points, strict=True):
            note.xyann = tuple(offset)


def _repulsion(numbers: np.ndarray, obstacles: np.ndarray) -> np.ndarray:
    """How far each number `[N, 2]` has to move away from obstacles `[N, 2]` that are too close."""
    between = numbers[:, None] - obstacles
    distance = np.linalg.norm(between, axis=2)
    distance = np.where(distance == 0, NUMBER_DISTANCE, distance)  # from itself
    overlap = (NUMBER_DISTANCE - distance).clip(min=0)
    push: np.ndarray = (between / distance[..., None] * overlap[..., None]).sum(1)
    return push


def add_key(figure: Figure, names: Sequence[str]) -> None:
    """Explain the numbers of points below the axes; many names make the figure higher."""
    widest = 0.35 + 0.075 * max(map(len, names))  # inches, in this font size
    columns = max(1, min(len(names), int(figure.get_figwidth() / widest)))
    lines = -(-len(names) // columns)
    columns = -(-len(names) // lines)  # fill the lines evenly
    extra_lines = max(0, lines - 4)
    figure.set_figheight(figure.get_figheight() + KEY_LINE_HEIGHT * extra_lines)
    labels = [f"{number}  {name}" for number, name in enumerate(names, 1)]
    figure.legend(
        [Line2D([], [], ls="") for _ in names],
        [label.replace("$", r"\$") for label in labels],  # a bare $ would begin a formula
        loc="outside lower center",
        ncols=columns,
        fontsize=7.5,
        handlelength=0,
        handletextpad=0,
    )


def draw_untrained(
    axes: Axes, x: pd.Series, curve: pd.DataFrame, *, line: bool, note: str = ""
) -> None:
    """Draw the accuracy of each point's network without training, where rows have it.

    Args:
        axes: where to draw.
        x: the points' own positions.
        curve: as `points` returns it.
        line: whether a dotted line joins them.
        note: what the legend adds.
    """
    if "untrained" not in curve or curve["untrained"].isna().all():
        return
    style: Any = {
        "color": SOFT,
        "mfc": "white",
        "ms": 4,
        "lw": 1,
        "capsize": 2,
        "zorder": 2,
        "fmt": "o:" if line else "o",
        "label": f"the same network untrained{note}",
    }
    axes.errorbar(x, curve["untrained"], yerr=curve["untrained_std"].fillna(0), **style)
