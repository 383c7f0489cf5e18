"""What figures share: style and colours, numbered points with their key, untrained networks."""

import textwrap
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
BELOW = 36  # points from the axes to a legend below them, with ticks and label between
# In inches.
KEY_LINE_HEIGHT, LETTER_WIDTH = 0.16, 0.075
NARROW = 5.0  # below this, panels do not stand side by side
LEAST_HEIGHT = 1.2  # of a panel
ROOM = 20.0  # more than keys and legends take


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
        notes = _numbers(axes)
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
    lines = _draw_key(figure, [f"{number}  {name}" for number, name in enumerate(names, 1)])
    extra_lines = max(0, lines - 4)
    figure.set_figheight(figure.get_figheight() + KEY_LINE_HEIGHT * extra_lines)


def _draw_key(figure: Figure, labels: Sequence[str]) -> int:
    """Draw the key in as many columns as the figure is wide; return how many lines it has."""
    width = figure.get_figwidth()
    most = max(10, int((width - 0.125) / LETTER_WIDTH))
    widest = 0.125 + LETTER_WIDTH * min(most, max(map(len, labels)))
    columns = max(1, min(len(labels), int(width / widest)))
    lines = -(-len(labels) // columns)
    columns = -(-len(labels) // lines)  # fill the lines evenly
    wrapped = [_wrap(label, most) for label in labels]
    key = figure.legend(
        [Line2D([], [], ls="") for _ in labels],
        [label.replace("$", r"\$") for label in wrapped],  # a bare $ would begin a formula
        loc="outside lower center",
        ncols=columns,
        fontsize=7.5,
        handlelength=0,
        handletextpad=0,
    )
    key.set_gid("key")
    key.set_label("\0".join(labels))  # as they were before wrapping
    return lines


def _wrap(label: str, most: int) -> str:
    """Break a label into lines, where it can be after a hyphen or a plus."""
    lines = textwrap.fill(label.replace("+", "+ "), most, subsequent_indent="    ")
    return lines.replace("+ ", "+")


def add_legend(axes: Axes, columns: int = 2) -> None:
    """Add a legend below the axes, because any place inside may have a point."""
    place: Any = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "borderaxespad": BELOW / 7.5}
    axes.legend(**place, fontsize=7.5, ncols=columns).set_gid("legend")


def fit_to_size(figure: Figure) -> None:
    """Arrange a figure with numbered points for the size that it has now.

    The width stays. Panels of a narrow figure stand one above the other, and the height grows until
    each panel has a least one and room for its label.
    """
    numbered = [axes for axes in figure.axes if _numbers(axes)]
    if not numbered:
        return
    height = figure.get_figheight()
    figure.set_figheight(height + ROOM)  # whatever stands below the axes, there is a layout
    if figure.get_figwidth() < NARROW:
        _stack(figure)
    for key in [legend for legend in figure.legends if legend.get_gid() == "key"]:
        if key.get_window_extent().width > figure.bbox.width:
            key.remove()
            _draw_key(figure, str(key.get_label()).split("\0"))
    legends: dict[Axes, Any] = {axes: axes.get_legend() for axes in numbered if _has_legend(axes)}
    for legend in legends.values():
        legend.set_in_layout(False)
    figure.draw_without_rendering()
    for axes, legend in legends.items():
        legend.set_in_layout(True)
        if legend.get_window_extent().width > axes.get_window_extent().width:
            add_legend(axes, columns=1)
    figure.draw_without_rendering()
    spare = []
    for axes in numbered:
        place: Any = axes.get_subplotspec()
        share = len(place.rowspan) / place.get_gridspec().nrows
        least = max(LEAST_HEIGHT, axes.yaxis.label.get_window_extent().height / figure.dpi)
        spare.append((axes.get_window_extent().height / figure.dpi - least) / share)
    figure.set_figheight(max(height, height + ROOM - min(spare)))


def _numbers(axes: Axes) -> list[Any]:
    return [text for text in axes.texts if text.get_gid() == "number"]


def _has_legend(axes: Axes) -> bool:
    """Whether the axes have the legend of `add_legend`, not one of the user's or none."""
    legend: Any = axes.get_legend()
    return legend is not None and legend.get_gid() == "legend"


def _stack(figure: Figure) -> None:
    """Put panels one above the other, column after column."""

    def place(axes: Axes) -> tuple[int, int]:
        where: Any = axes.get_subplotspec()
        return where.colspan.start, where.rowspan.start

    grid = figure.add_gridspec(len(figure.axes), 1)
    for row, axes in enumerate(sorted(figure.axes, key=place)):
        axes.set_subplotspec(grid[row])


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
