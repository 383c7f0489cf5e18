"""Pictures beside the curves: the plane of several kinds of views, a table as dots, what learned spaces make of colours."""

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from .plots import ACCENT, INK, SOFT, STYLE, save_figure
from .summary import Rows, summary

COLORS = (
    "#1b1b1e",
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
)  # told apart by the colour-blind too
MARKERS = "osD^v<>p"


def nats_plane(
    rows: Rows, path: str | Path, task: str, color: str, marker: str, panel: str
) -> Path:
    """Accuracy against held-out I_NCE of views of several kinds: means and deviations over seeds, and the seeds as dots.

    Args:
        rows: as `run` returns them, with the columns below.
        path: the picture.
        task: what accuracy is measured on.
        color: the column that colours tell apart.
        marker: the column that markers tell apart; an empty one needs no name.
        panel: the column whose values have a panel each, side by side.
    """
    frame = pd.DataFrame(rows)
    frame = frame[frame["status"] != "diverged"]
    colors = dict(zip(dict.fromkeys(frame[color]), cycle(COLORS), strict=False))
    markers = dict(zip(dict.fromkeys(frame[marker]), cycle(MARKERS), strict=False))
    at, entropy = (
        summary(frame, [color, marker, panel], ["i_nce", f"acc_{task}"]),
        float(frame[f"entropy_{task}"].max()),
    )
    names = list(dict.fromkeys(frame[panel]))
    with rc_context(STYLE):
        figure = Figure(figsize=(1.4 + 4.1 * len(names), 4))
        for axes, name in zip(
            figure.subplots(1, len(names), sharex=True, sharey=True, squeeze=False)[0],
            names,
            strict=True,
        ):
            for _, row in frame[frame[panel] == name].iterrows():
                axes.plot(
                    row["i_nce"], row[f"acc_{task}"], ".", color=colors[row[color]], ms=3, alpha=0.5
                )
            for _, row in at[at[panel] == name].iterrows():
                deviations: Any = {
                    side: row[f"{of}_std"]
                    for side, of in (("xerr", "i_nce"), ("yerr", f"acc_{task}"))
                }
                form: Any = {
                    side: 0 if np.isnan(value) else value for side, value in deviations.items()
                }
                form |= {
                    "color": colors[row[color]],
                    "marker": markers[row[marker]],
                    "mec": "white",
                    "ms": 7,
                    "capsize": 2.5,
                }
                axes.errorbar(row["i_nce_mean"], row[f"acc_{task}_mean"], ls="none", lw=1, **form)
            axes.axvline(entropy, color=ACCENT, lw=1, ls="--")
            axes.set(xlabel="held-out $I_{NCE}(v_1; v_2)$ [nats]", title=name)
        figure.axes[0].set_ylabel(f"linear-probe accuracy, {task}")
        handles = [
            Line2D([], [], ls="", marker="o", color=c, label=name) for name, c in colors.items()
        ]
        handles += [
            Line2D([], [], ls="", marker=m, color=SOFT, label=name)
            for name, m in markers.items()
            if name
        ]
        handles += [Line2D([], [], ls="--", color=ACCENT, lw=1, label=f"H(y) = {entropy:.2f} nats")]
        figure.legend(handles=handles, loc="outside right center", fontsize=7.5)
        return save_figure(figure, path)


def dot_table(
    rows: Rows, path: str | Path, by: str, columns: Mapping[str, str], aside: Sequence[str] = ()
) -> Path:
    """A table as a figure: a panel for each column, a line for each group, means with deviations over seeds, and the seeds.

    Args:
        rows: with the columns below.
        path: the picture.
        by: the column that makes the groups, shown from top to bottom in the order of first appearance.
        columns: column -> what it is called; the least mean of each is filled.
        aside: groups that are shown, but do not compete for the least mean.
    """
    frame = pd.DataFrame(rows)
    at = summary(frame, by, list(columns))
    place = {name: -i for i, name in enumerate(at[by])}
    with rc_context(STYLE):
        figure = Figure(figsize=(2.2 + 2.3 * len(columns), 0.8 + 0.3 * len(at)))
        panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
        for axes, (column, label) in zip(panels, columns.items(), strict=True):
            axes.plot(frame[column], frame[by].map(place), ".", color=SOFT, ms=4)
            mean, deviation = at[f"{column}_mean"], at[f"{column}_std"].fillna(0)
            axes.errorbar(
                mean, at[by].map(place), xerr=deviation, fmt="none", color=INK, capsize=2.5, lw=1
            )
            least = mean[~at[by].isin(aside)].min()
            for i, value in enumerate(mean):
                axes.plot(value, -i, "o", color=INK, ms=6, mfc=INK if value == least else "white")
            axes.set(
                xlabel=label, xlim=(0, 1.05 * max(frame[column].max(), (mean + deviation).max()))
            )
            axes.grid(axis="y", color=SOFT, alpha=0.25)
        panels[0].set_yticks(list(place.values()), list(place))
        seeds, means = (
            Line2D([], [], ls="", marker=".", color=SOFT),
            Line2D([], [], marker="o", color=INK, lw=1, mfc="white"),
        )
        least = Line2D([], [], ls="", marker="o", color=INK)
        others = f" but for {' and '.join(aside)}" if aside else ""
        words = ["a seed", "mean and deviation over seeds", f"the least{others}"]
        figure.legend(
            [seeds, means, least], words, loc="outside lower center", ncols=3, fontsize=7.5
        )
        return save_figure(figure, path)


def space_pictures(
    maps: Mapping[str, Callable[[Tensor], Tensor]], image: Tensor, path: str | Path
) -> Path:
    """What colour spaces look like, a row each: the three channels of an image, and where the cube of RGB colours goes.

    In the last column, the surface of the cube is shown in its own colours; thick lines are the ways from black along R, G and B,
    the dashed one goes from black to white. The vertical axis is the first channel.

    Args:
        maps: name -> images `[B, 3, H, W]` in [0, 1], on the CPU, to as many channels, each pixel by itself.
        image: `[3, H, W]`, uint8 or in [0, 1], on the CPU.
        path: the picture.
    """
    picture = (image / 255 if image.dtype == torch.uint8 else image)[None].float()
    with rc_context(STYLE):
        figure = Figure(figsize=(7.2, 1.8 * len(maps)))
        places = figure.add_gridspec(len(maps), 4, width_ratios=(1, 1, 1, 1.25))
        for line, (name, space) in enumerate(maps.items()):
            with torch.no_grad():
                channels = space(picture)[0].float().cpu()
            for i, channel in enumerate(channels):
                axes = figure.add_subplot(places[line, i])
                axes.imshow(channel.numpy(), cmap="gray")
                axes.set(
                    xticks=[],
                    yticks=[],
                    xlabel=f"{float(channel.min()):.2f} … {float(channel.max()):.2f}",
                )
                axes.xaxis.label.set_fontsize(7)
                axes.spines[:].set_visible(False)
                if i == 0:
                    axes.set_ylabel(name.replace(", ", "\n"))
                if line == 0:
                    axes.set_title(f"channel {i + 1}", loc="center")
            _solid(figure.add_subplot(places[line, 3], projection="3d"), space)
    return save_figure(figure, path, dpi=100)


def _solid(axes: Any, space: Callable[[Tensor], Tensor]) -> None:
    def there(colors: Tensor) -> Any:
        with torch.no_grad():
            return space(colors.T[None, :, None].float())[0, :, 0].float().cpu().numpy()[[1, 2, 0]]

    ends, steps = torch.tensor([0.0, 1.0]), torch.linspace(0, 1, 13)
    faces = [
        torch.cartesian_prod(*(ends if axis == i else steps for i in range(3))) for axis in range(3)
    ]
    surface = torch.cat(faces)
    axes.scatter(*there(surface), c=surface.numpy(), s=5, depthshade=False, linewidths=0)
    way = torch.linspace(0, 1, 33)[:, None]
    for corner in product((0.0, 1.0), repeat=3):  # from black: along one axis, or to white
        if sum(corner) in (1, 3):
            form: Any = (
                {"color": corner, "lw": 2}
                if sum(corner) == 1
                else {"color": INK, "lw": 1, "ls": "--"}
            )
            axes.plot(*there(way * torch.tensor(corner)), **form)
    axes.set_box_aspect((1, 1, 1), zoom=1.2)
    axes.tick_params(labelsize=5, pad=-4)
    axes.view_init(elev=18, azim=-60)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_major_locator(MaxNLocator(3))
