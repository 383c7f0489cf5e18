"""Figures beside the curves: a plane of several kinds of views, a table as dots, colour spaces."""

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from .drawing import ACCENT, INK, SOFT, STYLE
from .plots import save_figure
from .summary import Rows, drop_diverged, encoder_rows, largest, summarise

# Colour-blind readers can tell these apart.
COLORS = ("#1b1b1e", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
MARKERS = "osD^v<>p"


def nats_plane(
    rows: Rows, path: str | Path, task: str, color: str, marker: str, panel: str
) -> Path:
    """Plot accuracy against held-out I_NCE for several kinds of views.

    Large markers are means with standard deviations over seeds, dots are single seeds.

    Args:
        rows: as `run` returns them, or your own, with the columns below, i_nce, acc_TASK and
            entropy_TASK; diverged ones are left out.
        path: the picture to write.
        task: what accuracy is measured on.
        color: the column that sets the colour.
        marker: the column that sets the marker; an empty value gets no entry in the legend.
        panel: the column with one panel per value, side by side.
    """
    frame = drop_diverged(encoder_rows(rows))
    accuracy = f"acc_{task}"
    means = summarise(frame, [color, marker, panel], ["i_nce", accuracy])
    entropy = largest(frame, f"entropy_{task}")
    colors = dict(zip(dict.fromkeys(frame[color]), cycle(COLORS), strict=False))
    markers = dict(zip(dict.fromkeys(frame[marker]), cycle(MARKERS), strict=False))
    names = list(dict.fromkeys(frame[panel]))
    with rc_context(STYLE):
        figure = Figure(figsize=(1.4 + 4.1 * len(names), 4))
        panels = figure.subplots(1, len(names), sharex=True, sharey=True, squeeze=False)[0]
        for axes, name in zip(panels, names, strict=True):
            for _, row in frame[frame[panel] == name].iterrows():
                seed_color = colors[row[color]]
                axes.plot(row["i_nce"], row[accuracy], ".", color=seed_color, ms=3, alpha=0.5)
            for _, row in means[means[panel] == name].iterrows():
                _draw_mean(axes, row, accuracy, colors[row[color]], markers[row[marker]])
            axes.axvline(entropy, color=ACCENT, lw=1, ls="--")
            axes.set(xlabel="held-out $I_{NCE}(v_1; v_2)$ [nats]", title=name)
        panels[0].set_ylabel(f"linear-probe accuracy, {task}")
        handles = _plane_handles(colors, markers)
        handles += [Line2D([], [], ls="--", color=ACCENT, lw=1, label=f"H(y) = {entropy:.2f} nats")]
        figure.legend(handles=handles, loc="outside right center", fontsize=7.5)
        return save_figure(figure, path)


def _draw_mean(axes: Axes, row: Any, accuracy: str, color: str, marker: str) -> None:
    """Draw a mean over seeds with the bars that are known: one seed has none."""
    deviations = {"xerr": row["i_nce_std"], "yerr": row[f"{accuracy}_std"]}
    style: Any = {side: 0 if np.isnan(std) else std for side, std in deviations.items()}
    style |= {"color": color, "marker": marker, "mec": "white", "ms": 7, "capsize": 2.5}
    axes.errorbar(row["i_nce_mean"], row[f"{accuracy}_mean"], ls="none", lw=1, **style)


def _plane_handles(colors: Mapping[str, str], markers: Mapping[str, str]) -> list[Line2D]:
    """Legend entries of the colours, then of the markers that have a name."""
    by_color = [
        Line2D([], [], ls="", marker="o", color=color, label=name) for name, color in colors.items()
    ]
    by_marker = [
        Line2D([], [], ls="", marker=marker, color=SOFT, label=name)
        for name, marker in markers.items()
        if name
    ]
    return by_color + by_marker


def dot_table(
    rows: Rows, path: str | Path, by: str, columns: Mapping[str, str], aside: Sequence[str] = ()
) -> Path:
    """Plot a table as dots: a panel per column, a line per group.

    Circles are means with standard deviations over seeds, small dots are single seeds.

    Args:
        rows: with the columns below.
        path: the picture to write.
        by: the column that defines the groups, shown top to bottom in order of first appearance.
        columns: column -> its label; the lowest mean of each is filled.
        aside: groups that are shown but cannot be the lowest.
    """
    frame = encoder_rows(rows)
    means = summarise(frame, by, list(columns))
    heights = {name: -i for i, name in enumerate(means[by])}
    competing = ~means[by].isin(aside)
    with rc_context(STYLE):
        figure = Figure(figsize=(2.2 + 2.3 * len(columns), 0.8 + 0.3 * len(means)))
        panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
        for axes, (column, label) in zip(panels, columns.items(), strict=True):
            axes.plot(frame[column], frame[by].map(heights), ".", color=SOFT, ms=4)
            mean, deviation = means[f"{column}_mean"], means[f"{column}_std"].fillna(0)
            bars: Any = {"xerr": deviation, "fmt": "none", "color": INK, "capsize": 2.5, "lw": 1}
            axes.errorbar(mean, means[by].map(heights), **bars)
            lowest = mean[competing].min()
            for i, value in enumerate(mean):
                fill = INK if value == lowest else "white"
                axes.plot(value, -i, "o", color=INK, ms=6, mfc=fill)
            right = 1.05 * max(frame[column].max(), (mean + deviation).max())
            axes.set(xlabel=label, xlim=(0, right))
            axes.grid(axis="y", color=SOFT, alpha=0.25)
        panels[0].set_yticks(list(heights.values()), list(heights))
        handles = [
            Line2D([], [], ls="", marker=".", color=SOFT),
            Line2D([], [], marker="o", color=INK, lw=1, mfc="white"),
            Line2D([], [], ls="", marker="o", color=INK),
        ]
        exception = f" but for {' and '.join(aside)}" if aside else ""
        labels = ["a seed", "mean and deviation over seeds", f"the least{exception}"]
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=7.5)
        return save_figure(figure, path)


def space_pictures(
    maps: Mapping[str, Callable[[Tensor], Tensor]], image: Tensor, path: str | Path
) -> Path:
    """Draw colour spaces, one per row: the three channels of an image, and the mapped RGB cube.

    The last column shows the surface of the cube in its own colours. Thick lines run from black
    along R, G and B, the dashed one from black to white. The vertical axis is the first channel.

    Args:
        maps: name -> a map of images `[B, 3, H, W]` in [0, 1], on the CPU, to images of the same
            shape, pixel by pixel.
        image: `[3, H, W]`, uint8 or in [0, 1], on the CPU.
        path: the picture to write.
    """
    unit = image / 255 if image.dtype == torch.uint8 else image
    batch = unit[None].float()
    with rc_context(STYLE):
        figure = Figure(figsize=(7.2, 1.8 * len(maps)))
        grid = figure.add_gridspec(len(maps), 4, width_ratios=(1, 1, 1, 1.25))
        for line, (name, space) in enumerate(maps.items()):
            with torch.no_grad():
                channels = space(batch)[0].float().cpu()
            for i, channel in enumerate(channels):
                axes = figure.add_subplot(grid[line, i])
                _draw_channel(axes, channel)
                if i == 0:
                    axes.set_ylabel(name.replace(", ", "\n"))
                if line == 0:
                    axes.set_title(f"channel {i + 1}", loc="center")
            _draw_cube(figure.add_subplot(grid[line, 3], projection="3d"), space)
    return save_figure(figure, path, dpi=100)


def _draw_channel(axes: Axes, channel: Tensor) -> None:
    """Draw a channel in grey, with its range below."""
    axes.imshow(channel.numpy(), cmap="gray")
    limits = f"{float(channel.min()):.2f} … {float(channel.max()):.2f}"
    axes.set(xticks=[], yticks=[], xlabel=limits)
    axes.xaxis.label.set_fontsize(7)
    axes.spines[:].set_visible(False)


def _draw_cube(axes: Any, space: Callable[[Tensor], Tensor]) -> None:
    """Draw where the surface of the RGB cube goes, with lines from black."""

    def locate(colors: Tensor) -> Any:
        """Coordinates `[3, N]` of colours `[N, 3]`, the first channel last: it is the height."""
        with torch.no_grad():
            mapped = space(colors.T[None, :, None].float())
        return mapped[0, :, 0].float().cpu().numpy()[[1, 2, 0]]

    ends, steps = torch.tensor([0.0, 1.0]), torch.linspace(0, 1, 13)
    faces = [
        torch.cartesian_prod(ends, steps, steps),
        torch.cartesian_prod(steps, ends, steps),
        torch.cartesian_prod(steps, steps, ends),
    ]
    surface = torch.cat(faces)
    axes.scatter(*locate(surface), c=surface.numpy(), s=5, depthshade=False, linewidths=0)
    fractions = torch.linspace(0, 1, 33)[:, None]
    for corner in product((0.0, 1.0), repeat=3):
        style: Any = {"color": corner, "lw": 2}
        if sum(corner) == 3:
            style = {"color": INK, "lw": 1, "ls": "--"}
        if sum(corner) in (1, 3):  # along one axis, or to white
            axes.plot(*locate(fractions * torch.tensor(corner)), **style)
    axes.set_box_aspect((1, 1, 1), zoom=1.2)
    axes.tick_params(labelsize=5, pad=-4)
    axes.view_init(elev=18, azim=-60)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_major_locator(MaxNLocator(3))
