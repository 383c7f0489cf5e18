"""Rows in, figure out; never trains. Every number in a figure is a row's, or a mean over seeds of rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from .check import known
from .table import atomic, summary

Rows: TypeAlias = Sequence[Mapping[str, Any]] | pd.DataFrame
INK, SOFT, ACCENT = "#1b1b1e", "#8a8f98", "#c1121f"
REGIMES = (("missing information", "#e8f1f8"), ("excess noise", "#fdf0e3"))
# What makes pictures of equal rows differ: the program's version and the time.
UNDATED: dict[str, dict[str, Any]] = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "savefig.dpi": 200,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "infomin",
}


def points(rows: Rows, task: str, by: str = "view") -> pd.DataFrame:
    """One point per value of `by`: means and deviations over seeds, in order of information.

    Args:
        rows: as `run` returns them or `table.read` reads them; diverged ones only count.
        task: a task of the data, for example `digit`.
        by: the column that is varied.

    Raises:
        ValueError: no row says anything about the task; the message lists the tasks there are.
    """
    frame = _labelled(rows)
    tasks = [column[4:] for column in frame if column.startswith("acc_")]
    if task not in tasks:
        raise ValueError(f"task: got {task!r}, wanted one of {', '.join(tasks) or '(no row has an accuracy)'}; pick one of those")
    has_truth = "true_nats" in frame and bool(frame["true_nats"].notna().all())
    found = _means(frame, by, ["true_nats"] * has_truth + ["i_nce", f"acc_{task}", f"knn_{task}"])
    found["spread"] = found[f"acc_{task}_std"].fillna(0.0)
    return found


def _labelled(rows: Rows) -> pd.DataFrame:
    """Rows, each run once; where more than views and seeds were varied, `view` says what else, so that no mean runs over it."""
    frame = pd.DataFrame(rows)
    if "key" not in frame:
        return frame
    frame = frame.drop_duplicates("key").reset_index(drop=True)
    recipe = frame.loc[:, "key":"status"].columns  # a row begins with its recipe
    for name in recipe.drop(["key", "view", "seed", "status"]):
        if frame[name].nunique() > 1:
            frame["view"] += f", {name}=" + frame[name].astype(str)
    return frame


def _means(frame: pd.DataFrame, by: str, numbers: list[str]) -> pd.DataFrame:
    """Means and deviations over seeds in the order of the first number, without the groups that have diverged throughout."""
    found = summary(frame, by, numbers).dropna(subset=["i_nce_mean"])
    return found.sort_values(f"{numbers[0]}_mean", kind="stable").reset_index(drop=True)


def verdict(rows: Rows, task: str) -> str:
    """One sentence on what the curve shows, derived from its numbers: whether the best point is interior, and by how much."""
    at = points(rows, task)
    acc, names = at[f"acc_{task}_mean"], at["view"]
    best, last = int(acc.idxmax()), len(at) - 1

    def say(i: int) -> str:
        return f"{names[i]} ({at['i_nce_mean'][i]:.2f} nats, accuracy {acc[i]:.2f} ± {at['spread'][i]:.2f})"

    if best in (0, last):
        return f"No inverted U: the best of {len(at)} points is an end, {say(best)}; the other end is {say(last - best)}."
    gains = acc[best] - acc[0], acc[best] - acc[last]
    clear = all(gain > at["spread"][best] + at["spread"][end] for gain, end in zip(gains, (0, last), strict=True))
    shape = "An inverted U" if clear else "No clear inverted U, for the gains are within the spread over seeds"
    shape = shape if at["n"].min() > 1 else "Perhaps an inverted U, but with one seed the spread is not known"
    return (
        f"{shape}: the best point is {say(best)}, "
        f"{gains[0]:.2f} above {say(0)}, where the least is shared, and {gains[1]:.2f} above {say(last)}, where the most is."
    )


def u_curve(rows: Rows, path: str | Path, task: str = "digit") -> Path:
    """Accuracy against held-out I_NCE, one point a view, with error bars over seeds (one standard deviation).

    Drawn with it: the ceiling log K, the line I(x; y) = H(y), the regimes on its sides (InfoMin, section 3), the single seeds as
    dots and, where the shared information is known in closed form, a second panel that holds I_NCE against the truth.

    Args:
        rows: of one task and one K.
        path: the picture, `.png`, `.pdf` or `.svg`.
        task: what accuracy is measured on.

    Returns:
        the path.
    """
    frame, at = pd.DataFrame(rows), points(rows, task)
    truth = "true_nats_mean" in at
    with rc_context(STYLE):
        figure = Figure(figsize=(9.6, 4.4) if truth else (6.4, 4.4))
        axes = figure.subplots(1, 2 if truth else 1, width_ratios=(1.55, 1) if truth else None, squeeze=False)[0]
        _accuracy(axes[0], frame, at, task)
        if truth:
            _calibration(axes[1], frame, at)
        _key(figure, at["view"])
        return _save(figure, path)


def _accuracy(axes: Axes, frame: pd.DataFrame, at: pd.DataFrame, task: str) -> None:
    entropy, ceiling = float(frame[f"entropy_{task}"].max()), float(frame["ceiling"].max())
    right = max(ceiling, at["i_nce_mean"].max()) * 1.06
    left = min(-0.06 * right, at["i_nce_mean"].min() - 0.03 * right)
    for (name, shade), (a, b) in zip(REGIMES, ((left, entropy), (entropy, right)), strict=True):
        axes.axvspan(a, b, color=shade, lw=0, zorder=0)
        axes.text((max(a, 0) + b) / 2, 1.02, name, ha="center", va="bottom", color=SOFT, transform=axes.get_xaxis_transform())
    axes.text(entropy, 1.07, "sweet spot", ha="center", va="bottom", color=ACCENT, transform=axes.get_xaxis_transform())
    axes.axvline(entropy, color=ACCENT, lw=1, ls="--", label=f"I(x; y) = H(y) = {entropy:.2f} nats")
    axes.axvline(ceiling, color=SOFT, lw=1, ls=":", label=f"ceiling log K = {ceiling:.2f} nats")
    done = frame[frame["status"] != "diverged"]
    axes.plot(done["i_nce"], done[f"acc_{task}"], ".", color=SOFT, ms=4, label="a seed", zorder=3)
    bars = {"xerr": at["i_nce_std"].fillna(0), "yerr": at["spread"], "color": INK, "lw": 1.2, "capsize": 2.5, "zorder": 2}
    axes.errorbar(
        at["i_nce_mean"],
        at[f"acc_{task}_mean"],
        fmt="-" if "true_nats_mean" in at else "none",
        label="mean and deviation over seeds",
        **bars,
    )
    _numbered(axes, at["i_nce_mean"], at[f"acc_{task}_mean"])
    axes.set(
        xlabel="held-out $I_{NCE}(v_1; v_2)$ [nats]", ylabel=f"linear-probe accuracy, {task}", xlim=(left, right), ylim=(0, 1.02)
    )
    axes.legend(loc="lower center", fontsize=7.5, ncols=2, frameon=True, framealpha=0.85, edgecolor="none")


def _calibration(axes: Axes, frame: pd.DataFrame, at: pd.DataFrame) -> None:
    ceiling = float(frame["ceiling"].max())
    edge = 1.12 * ceiling
    shown = at["true_nats_mean"].clip(upper=edge)
    axes.plot([0, ceiling], [0, ceiling], color=ACCENT, lw=1, ls="--", label="$I_{NCE} = I$")
    axes.axhline(ceiling, color=SOFT, lw=1, ls=":", label="ceiling log K")
    axes.errorbar(shown, at["i_nce_mean"], yerr=at["i_nce_std"].fillna(0), fmt="none", color=INK, capsize=2.5)
    _numbered(axes, shown, at["i_nce_mean"])
    for x, y, true in zip(shown, at["i_nce_mean"], at["true_nats_mean"], strict=True):
        if true > edge:
            axes.annotate(
                f"at {true:.1f} →", (x, y), xytext=(-9, 0), textcoords="offset points", ha="right", va="center", fontsize=7.5
            )
    low = min(-0.05 * ceiling, at["i_nce_mean"].min() - 0.03 * ceiling)
    axes.set(xlabel="true $I(v_1; v_2)$ of the factors [nats]", ylabel="held-out $I_{NCE}$ [nats]", ylim=(low, 1.1 * ceiling))
    axes.legend(loc="upper left", fontsize=7.5, bbox_to_anchor=(0, 0.92))


def _numbered(axes: Axes, x: pd.Series, y: pd.Series) -> None:
    """Points that carry a number each, explained by `_key`: names beside crowded points could not be read."""
    axes.plot(x, y, "o", color=INK, ms=9, zorder=4)
    for number, place in enumerate(zip(x, y, strict=True), start=1):
        axes.annotate(str(number), place, ha="center", va="center_baseline", fontsize=6, color="white", zorder=5)


def _key(figure: Figure, names: Sequence[str]) -> None:
    handles = [Line2D([], [], ls="", marker=f"${number}$", color=INK, ms=5) for number in range(1, len(names) + 1)]
    widest = 0.35 + 0.075 * max(map(len, names))  # inches, at this size of letters
    columns = max(1, min(len(names), int(figure.get_figwidth() / widest)))
    figure.legend(handles, list(names), loc="outside lower center", ncols=columns, fontsize=7.5, handletextpad=0.2)


def calibration(rows: Rows, path: str | Path) -> Path:
    """Held-out I_NCE against the information that the views are known to share, with the line of equality and the ceiling.

    Args:
        rows: with `true_nats`.
        path: the picture.
    """
    frame = pd.DataFrame(rows)
    with rc_context(STYLE):
        figure, at = Figure(figsize=(4.4, 4.2)), _means(frame, "view", ["true_nats", "i_nce"])
        _calibration(figure.subplots(), frame, at)
        _key(figure, at["view"])
        return _save(figure, path)


def dial_curve(rows: Rows, path: str | Path, task: str, dial: str = "view") -> Path:
    """I_NCE and accuracy, one above the other, against the dial: numbers on a line, or names in order of information.

    Args:
        rows: as `run` returns them.
        path: the picture.
        task: what accuracy is measured on.
        dial: the column that was varied, for example `view` or `tau`.
    """
    at = points(rows, task, by=dial)
    numeric = pd.api.types.is_numeric_dtype(at[dial])
    at = at.sort_values(dial) if numeric else at
    names = [str(name) for name in at[dial]]
    family = {name.partition(":")[0] for name in names}
    x = at[dial] if numeric else [name.partition(":")[2] or name for name in names] if len(family) == 1 else names
    with rc_context(STYLE):
        figure = Figure(figsize=(max(4.6, 0.75 * len(at)), 4.4))
        upper, lower = figure.subplots(2, 1, sharex=True)
        form = {"fmt": "o-" if numeric else "o", "color": INK, "ms": 4.5, "lw": 1.2, "capsize": 2.5}
        upper.errorbar(x, at["i_nce_mean"], yerr=at["i_nce_std"].fillna(0), **form)
        lower.errorbar(x, at[f"acc_{task}_mean"], yerr=at["spread"], **form)
        upper.set(ylabel="held-out $I_{NCE}$ [nats]")
        lower.set(ylabel=f"linear-probe accuracy, {task}", xlabel=dial)
        return _save(figure, path)


def view_strip(views: Mapping[str, Sequence[Tensor]], path: str | Path) -> Path:
    """A sheet of pictures: a row per name, a picture per view.

    Args:
        views: name -> views of one image, each `[C, H, W]`. One channel is shown grey, two as red and blue, three as they are;
            each is stretched to its own range unless it lies in [0, 1].
        path: the picture.
    """
    columns = max(map(len, views.values()))
    with rc_context(STYLE):
        figure = Figure(figsize=(1.5 * columns + 0.8, 1.5 * len(views)))
        for axes, (name, row) in zip(figure.subplots(len(views), columns, squeeze=False), views.items(), strict=True):
            for i, place in enumerate(axes):
                place.set_axis_off()
                if i < len(row):
                    place.imshow(_picture(row[i]), vmin=0, vmax=1, cmap="gray", interpolation="nearest")
            axes[0].set_title(name, fontsize=8)
        return _save(figure, path)


def _picture(view: Tensor) -> Any:
    view = view.detach().float().cpu()
    low, high = view.amin(), view.amax()
    if low < 0 or high > 1:
        view = (view - low) / (high - low).clamp_min(1e-6)
    if len(view) == 2:
        view = torch.stack([view[0], torch.zeros_like(view[0]), view[1]])
    return view[0].numpy() if len(view) == 1 else view[:3].permute(1, 2, 0).numpy()


def _save(figure: Figure, path: str | Path) -> Path:
    path = Path(path)
    form = known(path.suffix.removeprefix("."), UNDATED, f"figure {path}: kind of picture")
    with atomic(path) as file:
        figure.savefig(file, format=form, metadata=UNDATED[form])
    return path
