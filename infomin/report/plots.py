"""Rows in, figure out; never trains. Every number in a figure is a row's, or a mean over seeds of rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from ..common.checks import check_choice
from ..common.files import atomic_write
from .shape import by_dial, verdict
from .summary import Rows, drop_diverged, drop_untrained, label_rows, means, points

__all__ = [
    "calibration",
    "dial_curve",
    "dial_figure",
    "points",
    "save_figure",
    "u_curve",
    "u_figure",
    "verdict",
    "view_strip",
]

DISC = 10  # points between the middles of two numbers, and of a number and a point
LINE = 0.16  # inches that a line of the key is high
INK, SOFT, ACCENT = "#1b1b1e", "#8a8f98", "#c1121f"
THERE = "\n(at the $I_{NCE}$ of the trained one)"  # its accuracy is held against that point, its own I_NCE is another
REGIMES = (("missing information", "#e8f1f8"), ("excess noise", "#fdf0e3"))
# What makes pictures of equal rows differ: the program's version and the time.
UNDATED: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None},
    "svg": {"Date": None},
}
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


def u_curve(rows: Rows, path: str | Path, task: str = "digit") -> Path:
    """Accuracy against held-out I_NCE, one point a view, with error bars over seeds (one standard deviation).

    Drawn with it: the ceiling log K, the line I(x; y) = H(y), the regimes on its sides (InfoMin), the single seeds as
    dots and, where the shared information is known in closed form, a second panel that holds I_NCE against the truth.

    To change it first, take `u_figure` and `save_figure`. Its numbers are `points(rows, task)`, a pandas table (`.to_latex()`).

    Args:
        rows: of one task and one K.
        path: the picture, `.png`, `.pdf` or `.svg`.
        task: what accuracy is measured on.

    Returns:
        the path.
    """
    return save_figure(u_figure(rows, task), path)


def u_figure(rows: Rows, task: str = "digit") -> Figure:
    """The figure of `u_curve`, not saved yet: change its `axes` as matplotlib allows, then `save(figure, path)`."""
    at, frame = points(rows, task), pd.DataFrame(rows)
    truth = "true_nats_mean" in at
    with rc_context(STYLE):
        figure = Figure(figsize=(9.6, 4.8) if truth else (6.4, 4.8))
        axes = figure.subplots(
            1, 2 if truth else 1, width_ratios=(1.55, 1) if truth else None, squeeze=False
        )[0]
        _accuracy(axes[0], frame, at, task)
        if truth:
            _calibration(axes[1], frame, at)
        _key(figure, at["view"])
    return figure


def _accuracy(axes: Axes, frame: pd.DataFrame, at: pd.DataFrame, task: str) -> None:
    entropy, ceiling = _given(frame, f"entropy_{task}"), _given(frame, "ceiling")
    right = max(ceiling, entropy, at["i_nce_mean"].max()) * 1.06
    left = min(-0.06 * right, at["i_nce_mean"].min() - 0.03 * right)
    for (name, shade), (a, b) in zip(REGIMES, ((left, entropy), (entropy, right)), strict=True):
        axes.axvspan(a, b, color=shade, lw=0, zorder=0)
        axes.text(
            (max(a, 0) + b) / 2,
            1.02,
            name,
            ha="center",
            va="bottom",
            color=SOFT,
            transform=axes.get_xaxis_transform(),
        )
    axes.text(
        entropy,
        1.07,
        "sweet spot",
        ha="center",
        va="bottom",
        color=ACCENT,
        transform=axes.get_xaxis_transform(),
    )
    axes.axvline(entropy, color=ACCENT, lw=1, ls="--", label=f"I(x; y) = H(y) = {entropy:.2f} nats")
    axes.axvline(ceiling, color=SOFT, lw=1, ls=":", label=f"ceiling log K = {ceiling:.2f} nats")
    done = drop_untrained(drop_diverged(frame))
    _untrained(axes, at["i_nce_mean"], at, line="true_nats_mean" in at, note=THERE)
    several = at["n"].max() > 1
    axes.plot(
        done["i_nce"],
        done[f"acc_{task}"],
        ".",
        color=SOFT,
        ms=4,
        label="a seed" if several else None,
        zorder=3,
    )
    bars = {
        "xerr": at["i_nce_std"].fillna(0),
        "yerr": at["spread"],
        "color": INK,
        "lw": 1.2,
        "capsize": 2.5,
        "zorder": 2,
    }
    axes.errorbar(
        at["i_nce_mean"],
        at[f"acc_{task}_mean"],
        fmt="-" if "true_nats_mean" in at else "none",
        label="mean ± standard deviation over seeds" if several else "one seed",
        **bars,
    )
    _numbered(axes, at["i_nce_mean"], at[f"acc_{task}_mean"])
    axes.set(
        xlabel="held-out $I_{NCE}(v_1; v_2)$ [nats]",
        ylabel=f"linear-probe accuracy, {task}",
        xlim=(left, right),
        ylim=(0, 1.02),
    )
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.14), fontsize=7.5, ncols=2
    )  # inside, any place may have a point


def _given(frame: pd.DataFrame, name: str) -> float:
    """The greatest value of a column that is drawn as a line; rows of one's own may lack it."""
    if name not in frame or frame[name].isna().all():
        raise ValueError(
            f"rows: got none with {name}, wanted it in nats, for the figure has a line there; add it to the rows"
        )
    return float(frame[name].max())


def _calibration(axes: Axes, frame: pd.DataFrame, at: pd.DataFrame) -> None:
    ceiling = _given(frame, "ceiling")
    edge = 1.12 * ceiling
    shown = at["true_nats_mean"].clip(upper=edge)
    axes.plot([0, ceiling], [0, ceiling], color=ACCENT, lw=1, ls="--", label="$I_{NCE} = I$")
    axes.axhline(ceiling, color=SOFT, lw=1, ls=":", label="ceiling log K")
    axes.errorbar(
        shown, at["i_nce_mean"], yerr=at["i_nce_std"].fillna(0), fmt="none", color=INK, capsize=2.5
    )
    _numbered(axes, shown, at["i_nce_mean"])
    for x, y, true in zip(shown, at["i_nce_mean"], at["true_nats_mean"], strict=True):
        if true > edge:
            axes.annotate(
                f"at {true:.1f} →",
                (x, y),
                xytext=(-9, 1),
                textcoords="offset points",
                ha="right",
                va="bottom",
                fontsize=7.5,
            )
    low = min(-0.05 * ceiling, at["i_nce_mean"].min() - 0.03 * ceiling)
    axes.set(
        xlabel="true $I(v_1; v_2)$ of the factors [nats]",
        ylabel="held-out $I_{NCE}$ [nats]",
        ylim=(low, 1.1 * ceiling),
    )
    axes.legend(loc="upper left", fontsize=7.5, bbox_to_anchor=(0, 0.92))


def _untrained(axes: Axes, x: pd.Series, at: pd.DataFrame, *, line: bool, note: str = "") -> None:
    """What the network of each point reaches before it is trained, where rows tell; drawn at the point's own `x`."""
    if "untrained" in at and at["untrained"].notna().any():
        form: Any = {
            "color": SOFT,
            "mfc": "white",
            "ms": 4,
            "lw": 1,
            "capsize": 2,
            "zorder": 2,
            "fmt": "o:" if line else "o",
        }
        axes.errorbar(
            x,
            at["untrained"],
            yerr=at["untrained_std"].fillna(0),
            label=f"the same network untrained{note}",
            **form,
        )


def _numbered(axes: Axes, x: pd.Series, y: pd.Series) -> None:
    """Points, and beside each a number, explained by `_key`: names beside crowded points could not be read."""
    axes.plot(x, y, "o", color=INK, ms=4, zorder=4)
    disc, line = (
        {"boxstyle": "circle,pad=0.15", "fc": "white", "ec": INK, "lw": 0.5},
        {"arrowstyle": "-", "color": INK, "lw": 0.5},
    )
    where: Any = {
        "xytext": (DISC, DISC),
        "textcoords": "offset points",
        "ha": "center",
        "va": "center",
    }
    for number, place in enumerate(zip(x, y, strict=True), start=1):
        note: Any = {
            "fontsize": 6,
            "color": INK,
            "bbox": disc,
            "arrowprops": line,
            "zorder": 5,
            "gid": "number",
        }
        axes.annotate(str(number), place, **where, **note)


def _apart(figure: Figure) -> None:
    """Move numbers so far that none lies upon another or upon a point; a line leads back to its own, which stays."""
    figure.draw_without_rendering()  # lays the axes out
    points = figure.dpi / 72
    for axes in figure.axes:
        notes: Any = [text for text in axes.texts if text.get_gid() == "number"]
        if not notes:
            continue
        home = axes.transData.transform([note.xy for note in notes]) / points
        angle = np.arange(len(notes)) * 2.4  # numbers of equal points have to part
        place = (
            home + DISC * np.sqrt([0.5, 0.5]) + 0.1 * np.stack([np.cos(angle), np.sin(angle)], 1)
        )
        for _ in range(300):
            for others in (place, home):
                between = place[:, None] - others
                distance = np.linalg.norm(between, axis=2)
                distance = np.where(distance == 0, DISC, distance)  # from itself
                place += 0.3 * (
                    between / distance[..., None] * (DISC - distance).clip(min=0)[..., None]
                ).sum(1)
            place += 0.01 * (home - place)
        for note, offset in zip(notes, place - home, strict=True):
            note.xyann = tuple(offset)


def _key(figure: Figure, names: Sequence[str]) -> None:
    handles = [Line2D([], [], ls="") for _ in names]
    widest = 0.35 + 0.075 * max(map(len, names))  # inches, at this size of letters
    columns = max(1, min(len(names), int(figure.get_figwidth() / widest)))
    lines = -(-len(names) // columns)
    columns = -(
        -len(names) // lines
    )  # as few as there need be, or one name would stand alone in the second line
    figure.set_figheight(
        figure.get_figheight() + LINE * max(0, lines - 4)
    )  # many names take no room from the axes
    told = [
        f"{number}  {name}".replace("$", r"\$") for number, name in enumerate(names, 1)
    ]  # which would begin a formula
    figure.legend(
        handles,
        told,
        loc="outside lower center",
        ncols=columns,
        fontsize=7.5,
        handlelength=0,
        handletextpad=0,
    )


def calibration(rows: Rows, path: str | Path) -> Path:
    """Held-out I_NCE against the information that the views are known to share, with the line of equality and the ceiling.

    Args:
        rows: with `true_nats`.
        path: the picture.
    """
    frame = pd.DataFrame(rows)
    with rc_context(STYLE):
        figure, at = (
            Figure(figsize=(4.4, 4.2)),
            means(drop_untrained(label_rows(rows)), "view", ["true_nats", "i_nce"]),
        )
        _calibration(figure.subplots(), frame, at)
        _key(figure, at["view"])
        return save_figure(figure, path)


def dial_curve(rows: Rows, path: str | Path, task: str, label: str = "view") -> Path:
    """A sweep in one figure: I_NCE and accuracy against the dial, and accuracy against I_NCE; mean ± standard deviation.

    To change it first, take `dial_figure` and `save_figure`.

    Args:
        rows: as `run` returns them.
        path: the picture.
        task: what accuracy is measured on.
        label: what the dial is, with its unit. Views that differ in one number stand at it, on a logarithmic axis where it spans
            a factor of ten; others stand side by side in the order of the rows.
    """
    return save_figure(dial_figure(rows, task, label), path)


def dial_figure(rows: Rows, task: str, label: str = "view") -> Figure:
    """The figure of `dial_curve`, not saved yet: change its `axes` as matplotlib allows, then `save(figure, path)`."""
    at, entropy = by_dial(points(rows, task), rows), _given(pd.DataFrame(rows), f"entropy_{task}")
    acc, numeric = at[f"acc_{task}_mean"], "dial" in at
    with rc_context(STYLE):
        figure = Figure(figsize=(9.6, 4.4))
        panels = figure.subplot_mosaic([["nats", "plane"], ["accuracy", "plane"]])
        x = at["dial"] if numeric else pd.Series(range(1, len(at) + 1))
        for name, y, deviation in (
            ("nats", at["i_nce_mean"], at["i_nce_std"]),
            ("accuracy", acc, at["spread"]),
        ):
            axes = panels[name]
            form: Any = {"color": INK, "lw": 1.2, "capsize": 2.5, "fmt": "-" if numeric else "none"}
            axes.errorbar(x, y, yerr=deviation.fillna(0), **form)
            _numbered(axes, x, y)
            if name == "accuracy":
                _untrained(axes, x, at, line=numeric)
            if numeric and x.min() > 0 and x.max() >= 10 * x.min():
                axes.set_xscale("log")
                axes.set_xticks(x, [f"{value:g}" for value in x])
                axes.minorticks_off()
            if not numeric:
                axes.set_xticks([])
        panels["nats"].set(ylabel="held-out $I_{NCE}$ [nats]")
        panels["accuracy"].set(ylabel=f"accuracy, {task}", xlabel=label)
        _plane(panels["plane"], at, task, entropy, line=numeric)
        _key(figure, at["view"])
    return figure


def _plane(axes: Axes, at: pd.DataFrame, task: str, entropy: float, *, line: bool) -> None:
    """Accuracy against I_NCE, close up; the points are joined in the order of the dial."""
    x, y = at["i_nce_mean"], at[f"acc_{task}_mean"]
    form: Any = {
        "color": INK,
        "ecolor": SOFT,
        "lw": 1,
        "capsize": 2.5,
        "fmt": "-" if line else "none",
    }
    axes.errorbar(x, y, xerr=at["i_nce_std"].fillna(0), yerr=at["spread"], **form)
    _numbered(axes, x, y)
    _untrained(axes, x, at, line=line, note=THERE)
    if axes.get_xlim()[0] < entropy < axes.get_xlim()[1]:
        axes.axvline(
            entropy, color=ACCENT, lw=1, ls="--", label=f"I(x; y) = H(y) = {entropy:.2f} nats"
        )
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            loc="best", fontsize=7.5, frameon=True, framealpha=1, edgecolor="none"
        )  # lines end where its words begin
    axes.set(xlabel="held-out $I_{NCE}(v_1; v_2)$ [nats]", ylabel=f"linear-probe accuracy, {task}")


def view_strip(views: Mapping[str, Sequence[Tensor]], path: str | Path, across: int = 1) -> Path:
    """A sheet of pictures: a row per name, a picture per view.

    Args:
        views: name -> views of one image, each `[C, H, W]`. One channel is shown grey, two as red and blue against green, three
            as they are. A view that leaves [0, 1] is scaled to its greatest value; with signs, 0 is middle grey.
        path: the picture.
        across: names that share a row.
    """
    columns, rows = max(map(len, views.values())), -(-len(views) // across)
    with rc_context(STYLE):
        figure = Figure(figsize=(1.5 * columns * across + 0.8, 1.5 * rows))
        places = figure.subplots(rows, columns * across, squeeze=False).reshape(
            rows * across, columns
        )
        for place in places.flat:
            place.set_axis_off()
        for line, (name, row) in zip(places, views.items(), strict=False):
            for place, view in zip(line, row, strict=False):
                place.set_anchor("N")  # none rises above its title
                place.imshow(_picture(view), vmin=0, vmax=1, cmap="gray")
            line[0].set_title(name, fontsize=8)
    return save_figure(figure, path, dpi=100)  # photographs make large files


def _picture(view: Tensor) -> Any:
    view = view.detach().float().cpu()
    high = view.abs().amax()
    if view.amin() < 0:
        view = view / high / 2 + 0.5
    elif high > 1:  # by a rounding, say
        view = view / high
    if len(view) == 2:  # green makes up for both, so that no chroma is no colour
        view = torch.stack([view[0], 1 - view.mean(0), view[1]])
    return view[0].numpy() if len(view) == 1 else view[:3].permute(1, 2, 0).numpy()


def save_figure(figure: Figure, path: str | Path, dpi: int = 200) -> Path:
    """Write a figure atomically, `dpi` pixels an inch, the numbers of its points moved apart.

    Figures of equal rows give equal bytes; one that is saved twice may be laid out a little otherwise.
    """
    path = Path(path)
    form = check_choice(
        path.suffix.lower().removeprefix("."), UNDATED, f"figure {path}: kind of picture"
    )
    with rc_context(STYLE), atomic_write(path) as file:
        _apart(figure)
        figure.savefig(file, format=form, metadata=UNDATED[form], dpi=dpi)
    return path
