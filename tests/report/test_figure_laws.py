"""What holds for all figures of rows: their bars, the columns they need, their layout."""

from itertools import combinations

import numpy as np
import pytest
from curves import error_bars, make_curve, with_truth, with_untrained

from infomin.report import panels, plots
from infomin.report.drawing import LEAST_HEIGHT

DEVIATIONS = {"NCE": [0.01, 0.02, 0.03, 0.04], "accuracy": [0.08, 0.05, 0.07, 0.06]}
FIGURES = {
    "u_curve": lambda rows: plots.u_curve(rows, "x.png"),
    "dial_curve": lambda rows: plots.dial_curve(rows, "x.png", "digit"),
    "calibration": lambda rows: plots.calibration(rows, "x.png"),
    "nats_plane": lambda rows: panels.nats_plane(rows, "x.png", "digit", "view", "kind", "half"),
    "dot_table": lambda rows: panels.dot_table(
        rows, "x.png", "view", {"i_nce": "$I_{NCE}$", "acc_digit": "accuracy"}
    ),
}


def uneven():
    """Rows whose deviations differ between nats and accuracy, and from point to point."""
    rows = []
    for row in make_curve(spread=0.0, kind="", half=""):
        view, seed = "abcd".index(row["view"][-1]), row["seed"]
        nats = row["i_nce"] + DEVIATIONS["NCE"][view] * (-1, 0, 1)[seed]
        accuracy = row["acc_digit"] + DEVIATIONS["accuracy"][view] * (0, 1, -1)[seed]
        truth = {"true_nats": row["i_nce"] + 0.3}
        rows.append(row | truth | {"i_nce": nats, "acc_digit": accuracy})
    return rows


@pytest.mark.parametrize("name", FIGURES)
def test_a_bar_along_an_axis_is_the_deviation_of_what_the_axis_shows(drawn, name):
    FIGURES[name](uneven())
    seen = 0
    for axes in drawn[0].axes:
        bars = error_bars(axes)
        for side, label in (("x", axes.get_xlabel()), ("y", axes.get_ylabel())):
            (expected,) = [d for word, d in DEVIATIONS.items() if word in label] or [None]
            assert (side in bars) == (expected is not None)
            if expected:
                np.testing.assert_allclose(bars[side][1], expected)
                seen += 1
    assert seen == {"u_curve": 3, "dial_curve": 4, "calibration": 1}.get(name, 2)


def shown(figure):
    """Every line, bar and word of a figure."""
    return [
        [line.get_xydata().tolist() for line in axes.lines]
        + [[text.get_text() for text in axes.texts], axes.get_xlim(), axes.get_ylim()]
        + [segments.tolist() for pair in error_bars(axes).values() for segments in pair]
        for axes in figure.axes
    ]


@pytest.mark.parametrize("name", FIGURES)
def test_rows_of_a_table_of_your_own_are_drawn_like_those_of_runs(drawn, name):
    runs = [{"key": f"{i}", "steps": 400} | row for i, row in enumerate(uneven())]
    own = ("view", "kind", "half", "true_nats", "i_nce", "acc_digit", "entropy_digit", "ceiling")
    FIGURES[name](runs)
    FIGURES[name]([{column: row[column] for column in own} for row in runs])
    assert shown(drawn[0]) == shown(drawn[1])


MAKERS = {
    "u_figure": lambda rows: plots.u_figure(rows, "digit"),
    "u_figure, truth": lambda rows: plots.u_figure(
        with_truth([row for row in rows if row["view"][-1] in "abcd"]), "digit"
    ),
    "dial_figure": lambda rows: plots.dial_figure(rows, "digit", "dial"),
}
SIZES = [None, (3.25, 3), (3.25, 1), (6.75, 3)]


def overlap(a, b):
    """The smaller side of the common part of two boxes; negative if they are apart."""
    return min(min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0))


@pytest.mark.parametrize("letters", [1, 60])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", MAKERS)
def test_a_figure_of_any_size_keeps_its_layout(tmp_path, name, size, letters):
    curve = make_curve([0.2, 0.5, 0.9, 0.4, 0.3, 0.2, 0.1, 0.6], [*np.arange(7) / 2, 5.0])
    rows = with_untrained(curve, lambda row: 0.3)
    rows = [row | {"view": f"color:{'x' * letters}{row['view'][-1]}"} for row in rows]
    figure = MAKERS[name](rows)
    if size:
        figure.set_size_inches(size)
    width, height = figure.get_size_inches()
    plots.save_figure(figure, tmp_path / "x.png")
    assert figure.get_figwidth() == width and figure.get_figheight() >= height
    page, (key,) = figure.bbox, figure.legends
    boxes = [key.get_window_extent(), *(axes.get_tightbbox() for axes in figure.axes)]
    for box in boxes:  # nothing is cut off by more than two pixels
        assert min(box.x0 - page.x0, box.y0 - page.y0, page.x1 - box.x1, page.y1 - box.y1) > -2
    assert max(overlap(a, b) for a, b in combinations(boxes, 2)) < 2
    for axes in figure.axes:
        inner = axes.get_window_extent()
        assert inner.height >= 0.97 * LEAST_HEIGHT * figure.dpi and inner.width >= inner.height / 2
        words = [text for text in axes.texts if text.get_gid() != "number"]
        parts = [axes.xaxis.label, *words, *filter(None, [axes.get_legend()])]
        outside = [part.get_window_extent() for part in parts if "→" not in str(part)]
        if "true" not in axes.get_xlabel():  # there the legend is inside
            assert all(overlap(inner, box) < 1 for box in outside)
            assert max((overlap(a, b) for a, b in combinations(outside, 2)), default=0) < 2
