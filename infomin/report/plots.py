"""Rows in, figure out. Every number in a figure comes from a row, or is a mean over seeds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..common.checks import check_choice
from ..common.files import atomic_write
from .drawing import (
    ACCENT,
    INK,
    SOFT,
    STYLE,
    add_key,
    add_legend,
    draw_numbered_points,
    draw_untrained,
    fit_to_size,
    spread_numbers,
)
from .shape import Verdict, by_dial, verdict, verdicts
from .summary import Rows, drop_diverged, drop_untrained, label_rows, largest, means, points

__all__ = [
    "Verdict",
    "calibration",
    "dial_curve",
    "dial_figure",
    "points",
    "save_figure",
    "u_curve",
    "u_figure",
    "verdict",
    "verdicts",
    "view_strip",
]

# Untrained networks are drawn at the I_NCE of the trained point, although their own differs.
AT_TRAINED_I_NCE = "\n(at the $I_{NCE}$ of the trained one)"
REGIMES = (("missing information", "#e8f1f8"), ("excess noise", "#fdf0e3"))
# Left out of the metadata, the version and the time, so that equal rows give equal bytes.
UNDATED: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None},
    "svg": {"Date": None},
}
SUFFIXES = tuple(f".{name}" for name in UNDATED)


def u_curve(rows: Rows, path: str | Path, task: str = "digit") -> Path:
    """Plot accuracy against held-out I_NCE: one point per view, error bars are one std over seeds.

    Also drawn: the ceiling log K, the line I(x; y) = H(y) with a regime on each side (InfoMin),
    single seeds as dots and, where the shared information is known in closed form, a second panel
    with I_NCE against the truth.

    `u_figure` and `save_figure` let you change the figure before it is saved; `points(rows, task)`
    is the table of its numbers.

    Args:
        rows: of one task and one K.
        path: the picture to write, `.png`, `.pdf` or `.svg`.
        task: what accuracy is measured on.

    Returns:
        the path.
    """
    return save_figure(u_figure(rows, task), path)


def u_figure(rows: Rows, task: str = "digit") -> Figure:
    """The figure of `u_curve`, unsaved: change its `axes`, then `save_figure(figure, path)`."""
    curve, frame = points(rows, task), pd.DataFrame(rows)
    has_truth = "true_nats_mean" in curve
    with rc_context(STYLE):
        if has_truth:
            figure = Figure(figsize=(9.6, 4.8))
            plane, calibration_axes = figure.subplots(1, 2, width_ratios=(1.55, 1))
            _draw_accuracy(plane, frame, curve, task)
            _draw_calibration(calibration_axes, frame, curve)
        else:
            figure = Figure(figsize=(6.4, 4.8))
            _draw_accuracy(figure.subplots(), frame, curve, task)
        add_key(figure, curve["view"])
    return figure


def _draw_accuracy(axes: Axes, frame: pd.DataFrame, curve: pd.DataFrame, task: str) -> None:
    """Draw accuracy against I_NCE over the whole range of information, with its regimes."""
    entropy, ceiling = largest(frame, f"entropy_{task}"), largest(frame, "ceiling")
    nats, accuracy = curve["i_nce_mean"], curve[f"acc_{task}_mean"]
    right = max(ceiling, entropy, nats.max()) * 1.06
    left = min(-0.06 * right, nats.min() - 0.03 * right)
    _draw_regimes(axes, left, entropy, right)
    _draw_entropy(axes, entropy)
    axes.axvline(ceiling, color=SOFT, lw=1, ls=":", label=f"ceiling log K = {ceiling:.2f} nats")
    ordered = "true_nats_mean" in curve
    draw_untrained(axes, nats, curve, line=ordered, note=AT_TRAINED_I_NCE)
    several = curve["n"].max() > 1
    seeds = drop_untrained(drop_diverged(frame))
    dots: Any = {"color": SOFT, "ms": 4, "label": "a seed" if several else None, "zorder": 3}
    axes.plot(seeds["i_nce"], seeds[f"acc_{task}"], ".", **dots)
    bars: Any = {
        "xerr": curve["i_nce_std"].fillna(0),
        "yerr": curve["spread"],
        "fmt": "-" if ordered else "none",
        "label": "mean ± standard deviation over seeds" if several else "one seed",
        "color": INK,
        "lw": 1.2,
        "capsize": 2.5,
        "zorder": 2,
    }
    axes.errorbar(nats, accuracy, **bars)
    draw_numbered_points(axes, nats, accuracy)
    axes.set(
        xlabel="held-out $I_{NCE}(v_1; v_2)$ [nats]",
        ylabel=f"linear-probe accuracy, {task}",
        xlim=(left, right),
        ylim=(0, 1.02),
    )
    add_legend(axes)


def _draw_regimes(axes: Axes, left: float, entropy: float, right: float) -> None:
    """Shade the two sides of H(y) and name them, with the sweet spot between."""
    text: Any = {"ha": "center", "va": "bottom", "fontsize": 7.5, "textcoords": "offset points"}
    text["xycoords"] = axes.get_xaxis_transform()
    spans = ((left, entropy), (entropy, right))
    for (name, shade), (start, end) in zip(REGIMES, spans, strict=True):
        axes.axvspan(start, end, color=shade, lw=0, zorder=0)
        axes.annotate(name, ((max(start, 0) + end) / 2, 1), xytext=(0, 4), color=SOFT, **text)
    axes.annotate("sweet spot", (entropy, 1), xytext=(0, 15), color=ACCENT, **text)


def _draw_entropy(axes: Axes, entropy: float) -> None:
    label = f"I(x; y) = H(y) = {entropy:.2f} nats"
    axes.axvline(entropy, color=ACCENT, lw=1, ls="--", label=label)


def _draw_calibration(axes: Axes, frame: pd.DataFrame, curve: pd.DataFrame) -> None:
    """Draw I_NCE against the true information; values far beyond the ceiling stay at the edge."""
    ceiling = largest(frame, "ceiling")
    edge = 1.12 * ceiling
    nats, truth = curve["i_nce_mean"], curve["true_nats_mean"]
    shown = truth.clip(upper=edge)
    axes.plot([0, ceiling], [0, ceiling], color=ACCENT, lw=1, ls="--", label="$I_{NCE} = I$")
    axes.axhline(ceiling, color=SOFT, lw=1, ls=":", label="ceiling log K")
    deviation = curve["i_nce_std"].fillna(0)
    axes.errorbar(shown, nats, yerr=deviation, fmt="none", color=INK, capsize=2.5)
    draw_numbered_points(axes, shown, nats)
    text: Any = {
        "xytext": (-9, 1),
        "textcoords": "offset points",
        "ha": "right",
        "va": "bottom",
        "fontsize": 7.5,
        "bbox": {"fc": "white", "ec": "none", "pad": 0.5},  # no line runs through it
    }
    for x, y, value in zip(shown, nats, truth, strict=True):
        if value > edge:
            axes.annotate(f"at {value:.1f} →", (x, y), **text)
    bottom = min(-0.05 * ceiling, nats.min() - 0.03 * ceiling)
    axes.set(
        xlabel="true $I(v_1; v_2)$ of the factors [nats]",
        ylabel="held-out $I_{NCE}$ [nats]",
        ylim=(bottom, 1.1 * ceiling),
    )
    axes.legend(loc="upper left", fontsize=7.5, bbox_to_anchor=(0, 0.92))


def calibration(rows: Rows, path: str | Path) -> Path:
    """Plot held-out I_NCE against the known information, with the line of equality and the ceiling.

    Args:
        rows: with `true_nats`.
        path: the picture to write.
    """
    frame = pd.DataFrame(rows)
    curve = means(drop_untrained(label_rows(rows)), "view", ["true_nats", "i_nce"])
    with rc_context(STYLE):
        figure = Figure(figsize=(4.4, 4.2))
        _draw_calibration(figure.subplots(), frame, curve)
        add_key(figure, curve["view"])
        return save_figure(figure, path)


def dial_curve(rows: Rows, path: str | Path, task: str, label: str = "view") -> Path:
    """Plot a sweep: I_NCE and accuracy against the dial, and accuracy against I_NCE.

    Points are means, error bars one standard deviation over seeds. `dial_figure` and `save_figure`
    let you change the figure before it is saved.

    Args:
        rows: as `run` returns them.
        path: the picture to write, `.png`, `.pdf` or `.svg`.
        task: what accuracy is measured on.
        label: what the dial is, with its unit. Views that differ in one number are placed at it, on
            a logarithmic axis if it spans a factor of ten; others side by side, in row order.

    Returns:
        the path.
    """
    return save_figure(dial_figure(rows, task, label), path)


def dial_figure(rows: Rows, task: str, label: str = "view") -> Figure:
    """The figure of `dial_curve`, unsaved: change its `axes`, then `save_figure(figure, path)`."""
    curve = by_dial(points(rows, task), rows)
    entropy = largest(pd.DataFrame(rows), f"entropy_{task}")
    numeric = "dial" in curve
    x = curve["dial"] if numeric else pd.Series(range(1, len(curve) + 1))
    with rc_context(STYLE):
        figure = Figure(figsize=(9.6, 4.4))
        panels = figure.subplot_mosaic([["nats", "plane"], ["accuracy", "plane"]])
        bars: Any = {"color": INK, "lw": 1.2, "capsize": 2.5, "fmt": "-" if numeric else "none"}

        nats = panels["nats"]
        nats.errorbar(x, curve["i_nce_mean"], yerr=curve["i_nce_std"].fillna(0), **bars)
        draw_numbered_points(nats, x, curve["i_nce_mean"])
        _set_dial_ticks(nats, x, numeric)
        nats.set(ylabel="held-out $I_{NCE}$ [nats]")

        accuracy = panels["accuracy"]
        accuracy.errorbar(x, curve[f"acc_{task}_mean"], yerr=curve["spread"], **bars)
        draw_numbered_points(accuracy, x, curve[f"acc_{task}_mean"])
        draw_untrained(accuracy, x, curve, line=numeric)
        _set_dial_ticks(accuracy, x, numeric)
        accuracy.set(ylabel=f"accuracy, {task}", xlabel=label)

        _draw_plane(panels["plane"], curve, task, entropy, line=numeric)
        add_key(figure, curve["view"])
    return figure


def _set_dial_ticks(axes: Axes, x: pd.Series, numeric: bool) -> None:
    if not numeric:
        axes.set_xticks([])
    elif x.min() > 0 and x.max() >= 10 * x.min():
        axes.set_xscale("log")
        axes.set_xticks(x, [f"{value:g}" for value in x])
        axes.minorticks_off()


def _draw_plane(axes: Axes, curve: pd.DataFrame, task: str, entropy: float, *, line: bool) -> None:
    """Draw accuracy against I_NCE, close up; a line joins the points in the order of the dial."""
    nats, accuracy = curve["i_nce_mean"], curve[f"acc_{task}_mean"]
    bars: Any = {
        "xerr": curve["i_nce_std"].fillna(0),
        "yerr": curve["spread"],
        "color": INK,
        "ecolor": SOFT,
        "lw": 1,
        "capsize": 2.5,
        "fmt": "-" if line else "none",
    }
    axes.errorbar(nats, accuracy, **bars)
    draw_numbered_points(axes, nats, accuracy)
    draw_untrained(axes, nats, curve, line=line, note=AT_TRAINED_I_NCE)
    left, right = axes.get_xlim()
    if left < entropy < right:
        _draw_entropy(axes, entropy)
    if axes.get_legend_handles_labels()[0]:
        add_legend(axes)
    axes.set(xlabel="held-out $I_{NCE}(v_1; v_2)$ [nats]", ylabel=f"linear-probe accuracy, {task}")


def view_strip(views: Mapping[str, Sequence[Tensor]], path: str | Path, across: int = 1) -> Path:
    """Draw a sheet of pictures: one row per name, one picture per view.

    Args:
        views: name -> views of one image, each `[C, H, W]`. One channel is shown grey, two as red
            and blue against green, three as they are. A view that exceeds [0, 1] is scaled by its
            largest magnitude; if it has negative values, 0 becomes middle grey.
        path: the picture to write.
        across: how many names share a line.

    Returns:
        the path.
    """
    columns, lines = max(map(len, views.values())), -(-len(views) // across)
    with rc_context(STYLE):
        figure = Figure(figsize=(1.5 * columns * across + 0.8, 1.5 * lines))
        grid = figure.subplots(lines, columns * across, squeeze=False)
        strips = grid.reshape(lines * across, columns)
        for axes in strips.flat:
            axes.set_axis_off()
        for strip, (name, row) in zip(strips, views.items(), strict=False):
            for axes, view in zip(strip, row, strict=False):
                axes.set_anchor("N")  # at the top, where the title is
                axes.imshow(_picture(view), vmin=0, vmax=1, cmap="gray")
            strip[0].set_title(name, fontsize=8)
    return save_figure(figure, path, dpi=100)  # photographs make large files


def _picture(view: Tensor) -> Any:
    """A view `[C, H, W]` as imshow takes it: `[H, W]` or `[H, W, 3]` in [0, 1]."""
    view = view.detach().float().cpu()
    largest = view.abs().amax()
    if view.amin() < 0:
        view = view / largest / 2 + 0.5
    elif largest > 1:  # by rounding, for example
        view = view / largest
    if len(view) == 2:  # green balances red and blue, so that zero chroma has no colour
        view = torch.stack([view[0], 1 - view.mean(0), view[1]])
    return view[0].numpy() if len(view) == 1 else view[:3].permute(1, 2, 0).numpy()


def save_figure(figure: Figure, path: str | Path, dpi: int = 200) -> Path:
    """Write a figure atomically, after fitting its panels and texts to its size.

    For a column of a paper, `figure.set_size_inches(3.25, 3)` first: the width stays, the height
    grows if panels would become too low. Figures of equal rows give equal bytes. Saving the same
    figure twice may change its layout a little.

    Args:
        figure: the figure.
        path: the picture to write, `.png`, `.pdf` or `.svg`.
        dpi: pixels per inch.

    Returns:
        the path.

    Raises:
        ValueError: another suffix.
    """
    path = Path(path)
    suffix = path.suffix.lower().removeprefix(".")
    file_format = check_choice(suffix, UNDATED, f"figure {path}: format")
    with rc_context(STYLE), atomic_write(path) as file:
        fit_to_size(figure)
        spread_numbers(figure)
        figure.savefig(file, format=file_format, metadata=UNDATED[file_format], dpi=dpi)
    return path
