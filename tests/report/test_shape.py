"""The verdict turns on the numbers of the points, and the dial on the names of the views."""

import random

import pytest
from curves import HILL, baselines, make_curve, make_row, with_truth

from infomin.report.plots import verdict
from infomin.report.shape import by_dial, dial_values
from infomin.report.summary import points

UNCLEAR = "No clear inverted U (the gains are within the spread over seeds): "


def test_an_interior_best_point_is_an_inverted_u():
    text = verdict(make_curve(), "digit")
    assert text == (
        "An inverted U: the best point is color:c (2.00 nats, accuracy 0.90 ± 0.01), 0.70 above "
        "color:a (0.10 nats, accuracy 0.20 ± 0.01), which shares least, and 0.50 above color:d "
        "(3.00 nats, accuracy 0.40 ± 0.01), which shares most."
    )


@pytest.mark.parametrize("n", [1, 2, 3])
def test_an_inverted_u_needs_four_points(n):
    best = {1: "a (0.10 nats, accuracy 0.20", 2: "b (1.00 nats, accuracy 0.90"}[min(n, 2)]
    text = (
        f"Too few points for an inverted U, {n} of at least 4: the highest accuracy is that of "
        f"color:{best} ± 0.01); vary the view further."
    )
    assert verdict(make_curve([0.2, 0.9, 0.4][:n]), "digit") == text


@pytest.mark.parametrize("seeds", [1, 2, 3])
@pytest.mark.parametrize("views", ["abcd", "b", "c"])
def test_an_inverted_u_needs_three_seeds_at_each_point(views, seeds):
    rows = [row for row in make_curve() if row["view"][-1] not in views or row["seed"] < seeds]
    text, perhaps = verdict(rows, "digit"), "Perhaps an inverted U (a sure one needs 3 seeds or "
    assert text.startswith(perhaps if seeds < 3 else "An inverted U: the best point is color:c")
    unknown = {"abcd": 3, "b": 0, "c": 1}[views] if seeds == 1 else 0
    assert text.count("±") == 3 - unknown


@pytest.mark.parametrize("dial", [False, True])
def test_a_point_with_negative_nats_is_not_the_best_one(dial):
    for best in range(4):
        accuracies = [0.9 if i == best else 0.2 for i in range(4)]
        rows = make_curve(accuracies, nats=[-2.0 if i == best else 1.0 + i for i in range(4)])
        assert verdict(rows, "digit", dial=dial) == (
            f"No inverted U: the highest accuracy is that of color:{'abcd'[best]} (-2.00 nats, "
            "accuracy 0.90 ± 0.01), where I_NCE finds nothing shared."
        )


@pytest.mark.parametrize(
    ("accuracies", "best", "other"),
    [
        ([0.2, 0.5, 0.9, 0.91], "d", "a"),
        ([0.95, 0.5, 0.9, 0.4], "a", "d"),
        ([0.1, 0.2, 0.3, 0.4], "d", "a"),
    ],
)
def test_a_best_point_at_an_end_is_not_an_inverted_u(accuracies, best, other):
    text = verdict(make_curve(accuracies), "digit")
    assert text.startswith(f"No inverted U: the best of 4 points is at an end, color:{best} (")
    assert f"the other end is color:{other} (" in text


@pytest.mark.parametrize(("spread", "clear"), [(0.01, True), (0.24, True), (0.26, False)])
def test_gains_must_exceed_the_spreads_of_both_points(spread, clear):
    """The smaller gain is 0.5, on the right; the spreads of the best point and of that end add."""
    text = verdict(make_curve(spread=spread), "digit")
    assert text.startswith("An inverted U: " if clear else UNCLEAR)


@pytest.mark.parametrize(("wide", "clear"), [(0, False), (3, False), (1, True)])
def test_a_wide_spread_makes_the_verdict_unclear_at_an_end_and_not_in_between(wide, clear):
    rows = make_curve()
    for row in rows:
        if row["view"][-1] == "abcd"[wide]:  # its deviation becomes 0.71, its mean stays
            row["acc_digit"] += 70 * (row["acc_digit"] - HILL[wide])
    assert verdict(rows, "digit").startswith("An inverted U: " if clear else UNCLEAR)


def test_the_verdict_depends_on_the_task_and_not_on_the_order_of_the_rows():
    rows = make_curve([0.1, 0.2, 0.15, 0.05])
    assert verdict(rows, "digit").startswith("An inverted U")
    at_an_end = "No inverted U: the best of 4 points is at an end, color:d"
    assert verdict(rows, "place").startswith(at_an_end)
    for seed in range(5):
        shuffled = random.Random(seed).sample(rows, len(rows))
        assert verdict(shuffled, "digit") == verdict(rows, "digit")


def test_the_ends_follow_the_truth_where_it_is_known():
    rows = with_truth(make_curve([0.2, 0.5, 0.4, 0.9]))  # d is last, measured and in truth
    assert verdict(rows, "digit").startswith("No inverted U")
    rows = [row | {"true_nats": 1.0} if row["view"] == "color:d" else row for row in rows]
    assert verdict(rows, "digit").startswith("An inverted U: the best point is color:d")


def test_the_verdict_along_the_dial_has_the_ends_of_the_dial():
    """I_NCE need not order the views as the dial does: an end of one may be inside the other."""
    dial = {letter: i for i, letter in enumerate("badc", start=1)}
    rows = [row | {"view": f"blur:{dial[row['view'][-1]]}"} for row in make_curve(spread=0.0)]
    text = verdict(rows, "digit", dial=True)
    accuracy = {row["view"]: row["acc_digit"] for row in rows}
    best = max(accuracy, key=accuracy.get)
    assert (best in ("blur:1", "blur:4")) == text.startswith("No inverted U")
    assert "shares least" not in text and ("blur:1" in text or "blur:4" in text)


@pytest.mark.parametrize(
    ("names", "values"),
    [
        (["patch:8/32", "patch:16/32"], [8, 16]),
        (["crop:0.2+jitter:1", "crop:0.2+jitter:0.125"], [1, 0.125]),
        (["crop:0.2+jitter:1", "crop:0.4+jitter:2"], None),
        (["crop:0.2, lr=1e-05", "crop:0.2, lr=1e-06"], [1e-5, 1e-6]),
        (["crop:0.2, lr=1e-05", "crop:0.4, lr=1e-05"], [0.2, 0.4]),
        (["color:lab", "color:rgb"], None),
        (["crop:0.2", "blur:0.4"], None),
        (["crop:0.2", "crop:0.2"], None),
    ],
)
def test_a_dial_is_the_one_number_that_varies(names, values):
    assert dial_values(names) == values


def test_baselines_without_a_numeric_dial_keep_the_order_of_their_rows():
    curve = by_dial(points(baselines(), "digit"), baselines())
    assert curve["view"].tolist() == [f"color:{letter}" for letter in "abcd"]


def test_curves_of_several_settings_keep_the_order_of_their_rows_and_have_no_verdict():
    views = ("color:rgb", "color:lab", "color:hsv")
    settings = [(view, tau) for tau in (0.1, 0.2) for view in views]
    numbers = zip((3.0, 2.0, 1.0, 4.0, 2.5, 1.5), (0.1, 0.9, 0.1) * 2, strict=True)
    rows = [
        {"key": f"{view} {tau}", "view": view, "tau": tau} | make_row(view, nats, accuracy)
        for (view, tau), (nats, accuracy) in zip(settings, numbers, strict=True)
    ]
    curve = by_dial(points(rows, "digit"), rows)
    assert list(curve["view"]) == [f"{view}, tau={tau}" for view, tau in settings]
    assert verdict(rows, "digit", dial=True) == (
        "Several curves: the rows differ in view and in tau; choose rows that differ only in view."
    )
    assert "inverted U" in verdict(rows[:3], "digit", dial=True)
    game = {"key": "g", "view": "crop:0.5", "method": "game", "tau": 7}
    assert "inverted U" in verdict([*rows[:3], game], "digit", dial=True)
    one_view = [rows[0], rows[3]]  # here the settings are the curve
    assert "Several" not in verdict(one_view, "digit")
