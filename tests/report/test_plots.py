"""Figures say what the rows say: their numbers, in order, and a verdict that turns on one of them."""

import json
import math
import random
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.image import imread

from infomin.report import plots
from infomin.report.plots import UNDATED
from infomin.report.shape import by_dial, dial_values
from infomin.report.summary import points

NATS, HILL = [0.1, 1.0, 2.0, 3.0], [0.2, 0.5, 0.9, 0.4]
CEILING, ENTROPY = math.log(256), math.log(10)


def row(view, nats, acc, seed=0, **others):
    task = {
        "acc_digit": acc,
        "knn_digit": acc / 2,
        "entropy_digit": ENTROPY,
        "acc_place": 1 - acc,
        "knn_place": 0.1,
    }
    given = {
        "view": view,
        "seed": seed,
        "status": "done",
        "i_nce": nats,
        "candidates": 256,
        "ceiling": CEILING,
    }
    return given | task | {"entropy_place": math.log(9)} | others


def curve(accuracies=HILL, nats=NATS, spread=0.01, **others):
    """Three seeds a point, of which the mean is the number given and the deviation is `spread`."""
    names = [f"color:{letter}" for letter in "abcdefgh"]
    points = list(zip(names, nats, accuracies, strict=False))
    return [
        row(*p[:1], p[1] + d, p[2] + d, seed, **others)
        for seed, d in enumerate((-spread, 0.0, spread))
        for p in points
    ]


def truth(rows):
    """The same rows with the true information, which is in another order than what was measured."""
    return [
        r | {"true_nats": {"a": 0.5, "b": 2.5, "c": 1.5, "d": 40.0}[r["view"][-1]]} for r in rows
    ]


def diverged(view="color:z", **others):
    """A diverged row as `run` gives it: it has no numbers."""
    return {
        "view": view,
        "seed": 0,
        "status": "diverged",
        "reason": "step 3: the loss is nan",
        **others,
    }


def bars(axes):
    """Where the error bars of an axes are: x, y, their half lengths along x, if there are any, and along y."""
    lines = [
        line
        for container in axes.containers
        for part in container
        if part
        for line in np.ravel(part)
    ]
    segments = [np.array(line.get_segments()) for line in lines if isinstance(line, LineCollection)]
    half = {
        ("x" if np.ptp(ends[:, :, 0]) and not np.ptp(ends[:, :, 1], axis=1).any() else "y"): ends
        for ends in segments
    }
    return {
        way: (ends.mean(1), np.ptp(ends, axis=1)[:, "xy".index(way)] / 2)
        for way, ends in half.items()
    }


# Points


def test_points_are_means_and_deviations_over_seeds_in_order_of_information():
    rows = curve(nats=[2.0, 0.1, 3.0, 1.0], spread=0.02)
    for given in (rows, pd.DataFrame(rows), random.Random(0).sample(rows, len(rows))):
        at = plots.points(given, "digit")
        assert list(at["view"]) == ["color:b", "color:d", "color:a", "color:c"]
        np.testing.assert_allclose(at["i_nce_mean"], [0.1, 1.0, 2.0, 3.0])
        np.testing.assert_allclose(at["acc_digit_mean"], [0.5, 0.4, 0.2, 0.9])
        np.testing.assert_allclose(at["knn_digit_mean"], at["acc_digit_mean"] / 2)
        for name in ("i_nce_std", "acc_digit_std", "spread"):
            np.testing.assert_allclose(at[name], [0.02] * 4)
        assert list(at["n"]) == [3] * 4 and list(at["diverged"]) == [0] * 4
    np.testing.assert_allclose(plots.points(rows, "place")["acc_place_mean"], [0.5, 0.6, 0.8, 0.1])


def test_points_are_in_order_of_the_truth_where_it_is_known_for_all():
    rows = truth(curve())
    assert [view[-1] for view in plots.points(rows, "digit")["view"]] == list("acbd")
    rows[0] = {name: value for name, value in rows[0].items() if name != "true_nats"}
    assert [view[-1] for view in plots.points(rows, "digit")["view"]] == list("abcd")


def test_points_of_one_seed_have_no_spread():
    at = plots.points([r for r in curve() if r["seed"] == 1], "digit")
    assert list(at["spread"]) == [0.0] * 4 and at["acc_digit_std"].isna().all()
    assert list(at["acc_digit_mean"]) == HILL


@pytest.mark.parametrize("by", ["tau", "size"])
def test_points_by_another_column(by):
    """Untrained networks know no tau, and each size has its own."""
    levels = dict(zip("abcd", (32, 24, 16, 8), strict=True))
    trained = [r | {by: levels[r["view"][-1]], "view": "color:a", "steps": 9} for r in curve()]
    bare = [
        r | {"steps": 0, "tau": 0.2, "acc_digit": 0.1 if r.get("size", 8) == 8 else 0.2}
        for r in trained
    ]
    at = plots.points(trained, "digit", by=by)
    order = list(at[by])
    assert sorted(order) == [8, 16, 24, 32]
    np.testing.assert_allclose(
        at["acc_digit_mean"], [dict(zip(levels.values(), HILL, strict=True))[x] for x in order]
    )
    beside = plots.points([*trained, *bare], "digit", by=by)
    assert list(beside[by]) == order
    wanted = [0.1 if by == "tau" or x == 8 else 0.2 for x in order]
    np.testing.assert_allclose(beside["untrained"], wanted)


def test_points_by_another_column_are_of_one_view():
    rows = [r | {"tau": {"a": 0.1, "b": 0.2, "c": 0.2, "d": 0.1}[r["view"][-1]]} for r in curve()]
    with pytest.raises(
        ValueError, match=r"got 2 views of tau=0.1, wanted one; take by='view', or rows of one view"
    ):
        plots.points(rows, "digit", by="tau")


@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize("others", [{}, {"true_nats": 1.0}])
def test_diverged_rows_are_counted_and_nothing_else(drawn, tmp_path, place, others):
    good = truth(curve()) if others else curve()
    bad = [diverged(**others), diverged("color:b", **others)]
    rows = bad + good if place == "first" else good + bad
    clean, found = plots.points(good, "digit"), plots.points(rows, "digit")
    counted = ["diverged"]
    pd.testing.assert_frame_equal(
        found.drop(columns=counted), clean.drop(columns=counted), check_dtype=False
    )
    assert found.set_index("view")["diverged"].to_dict() == {
        f"color:{x}": int(x == "b") for x in "abcd"
    }
    assert plots.verdict(rows, "digit") == plots.verdict(good, "digit")
    for given in (good, rows):
        plots.u_curve(given, tmp_path / "u.png")
        plots.dial_curve(given, tmp_path / "d.png", "digit")
    for clean, found in zip(drawn[:2], drawn[2:], strict=True):
        assert numbers(found) == numbers(clean)


def numbers(figure):
    """All numbers that stand in a figure: lines, bars, shades, limits, words."""
    found = []
    for axes in figure.axes:
        found += [line.get_xydata().tolist() for line in axes.lines] + [
            t.get_text() for t in axes.texts
        ]
        found += [patch.get_extents().bounds for patch in axes.patches] + [
            axes.get_xlim(),
            axes.get_ylim(),
        ]
        found += [
            [s.tolist() for s in c.get_segments()]
            for c in axes.collections
            if isinstance(c, LineCollection)
        ]
    return found


def test_rows_that_all_diverged_are_an_error():
    with pytest.raises(
        ValueError, match=r"task: got 'digit', wanted one of \(no row has an accuracy\)"
    ):
        plots.points([diverged()], "digit")


@pytest.mark.parametrize(
    "draw", [plots.verdict, plots.points, lambda rows, task: plots.u_curve(rows, "never.png", task)]
)
def test_an_unknown_task_lists_the_known_ones(draw):
    with pytest.raises(
        ValueError, match="task: got 'colour', wanted one of digit, place; pick one of those"
    ):
        draw(curve(), "colour")


def own(**others):
    """Rows of one's own baselines: what a point needs and no more."""
    return [
        {name: r[name] for name in ("view", "seed", "i_nce", "acc_digit")} | others for r in curve()
    ]


def test_rows_of_ones_own_need_no_more_than_a_point_has():
    at, full = plots.points(own(), "digit"), plots.points(curve(), "digit")
    pd.testing.assert_frame_equal(at, full[list(at)])
    assert set(full) - set(at) == {"knn_digit_mean", "knn_digit_std"}
    assert plots.verdict(own(), "digit") == plots.verdict(curve(), "digit")
    assert by_dial(at, own())["view"].tolist() == [f"color:{x}" for x in "abcd"]


def test_rows_of_ones_own_are_drawn_once_they_have_what_is_drawn_as_a_line(drawn, tmp_path):
    lines = {"entropy_digit": ENTROPY, "ceiling": CEILING}
    for draw, lacks in ((plots.u_curve, lines), (plots.dial_curve, ["entropy_digit"])):
        for name in lacks:
            rows = own(**{other: value for other, value in lines.items() if other != name})
            with pytest.raises(
                ValueError,
                match=f"rows: got none with {name}, wanted it in nats, .*; add it to the rows",
            ):
                draw(rows, tmp_path / "x.png", "digit")
        draw(own(**lines), tmp_path / "x.png", "digit")
        draw(curve(), tmp_path / "x.png", "digit")
        assert numbers(drawn[-2]) == numbers(drawn[-1])


def test_rows_of_ones_own_stand_beside_those_of_runs():
    """They have no key, so none is a run that is there twice."""
    rows = recipe_first({"key": f"{i}"} | NETWORKS | TRAINING | r for i, r in enumerate(curve()))
    mine = [r | {"view": "mine"} for r in own()[::4]]
    for given in ([*mine, *rows], [*rows, *mine]):
        at = plots.points(given, "digit").set_index("view")
        assert at["n"].to_dict() == {"mine": 3} | {f"color:{x}": 3 for x in "abcd"}
        assert at["knn_digit_mean"].isna().to_dict() == {view: view == "mine" for view in at.index}


@pytest.mark.parametrize("rows", [[], pd.DataFrame(), pd.DataFrame(curve())[:0]])
@pytest.mark.parametrize("ask", [plots.points, plots.verdict, plots.u_figure, plots.dial_figure])
def test_no_rows_at_all_are_told(ask, rows):
    with pytest.raises(ValueError, match="rows: got none, wanted those of runs; run a sweep first"):
        ask(rows, "digit")


def test_rows_of_games_alone_are_told():
    with pytest.raises(ValueError, match="rows: got none but those of games, wanted"):
        plots.points(
            [{"key": "g", "method": "game", "view": "crop:0.5", "seed": 0, "status": "done"}],
            "digit",
        )


def test_points_can_be_set_in_a_paper():
    said = plots.points(curve(), "digit").to_latex(index=False, float_format="%.2f")
    assert said.startswith(r"\begin{tabular}") and "color:c & 2.00 & 0.01 & 0.90" in said


# Verdict


def test_an_interior_best_point_is_an_inverted_u():
    said = plots.verdict(curve(), "digit")
    assert said.startswith(
        "An inverted U: the best point is color:c (2.00 nats, accuracy 0.90 ± 0.01), 0.70 above color:a (0.10"
    )
    assert (
        "where the least is shared, and 0.50 above color:d (3.00 nats, accuracy 0.40 ± 0.01), where the most is."
        in said
    )


def test_one_point_is_no_curve():
    said = "One point is no curve: color:a (0.10 nats, accuracy 0.20 ± 0.01); vary the view."
    assert plots.verdict(curve([0.2]), "digit") == said


def test_of_one_seed_no_spread_is_told():
    rows = curve([0.2, 0.9, 0.4])
    said = plots.verdict([row for row in rows if row["seed"] == 0], "digit")
    assert said.startswith(
        "Perhaps an inverted U, but with one seed the spread is not known: the best point is color:b ("
    )
    assert "±" not in said and plots.verdict(rows, "digit").count("±") == 3
    best, ends = plots.verdict(
        [row for row in rows if row["view"] != "color:b" or row["seed"] == 0], "digit"
    ).split("), ", 1)
    assert "±" not in best and ends.count("±") == 2


@pytest.mark.parametrize(
    ("accuracies", "best", "other"),
    [
        ([0.2, 0.5, 0.9, 0.91], "d", "a"),
        ([0.95, 0.5, 0.9, 0.4], "a", "d"),
        ([0.1, 0.2, 0.3, 0.4], "d", "a"),
    ],
)
def test_a_best_point_at_an_end_is_not(accuracies, best, other):
    said = plots.verdict(curve(accuracies), "digit")
    assert said.startswith(
        f"No inverted U: the best of {len(accuracies)} points is an end, color:{best} ("
    )
    assert f"the other end is color:{other} (" in said


@pytest.mark.parametrize(("spread", "clear"), [(0.01, True), (0.24, True), (0.26, False)])
def test_gains_must_exceed_the_spreads_of_both_points(spread, clear):
    """The smaller gain is 0.5, on the right; it is held against the best point's spread and the end's."""
    said = plots.verdict(curve(spread=spread), "digit")
    assert said.startswith(
        "An inverted U: "
        if clear
        else "No clear inverted U, for the gains are within the spread over seeds: "
    )


@pytest.mark.parametrize(("end", "clear"), [(0, False), (3, False), (1, True)])
def test_a_wide_end_is_enough_to_make_the_verdict_unclear_and_a_wide_point_between_is_not(
    end, clear
):
    rows = curve()
    for r in rows:
        if r["view"][-1] == "abcd"[end]:
            r["acc_digit"] += 70 * (
                r["acc_digit"] - HILL[end]
            )  # its deviation becomes 0.71, its mean stays
    assert plots.verdict(rows, "digit").startswith(
        "An inverted U: " if clear else "No clear inverted U"
    )


def test_one_seed_says_perhaps():
    rows = curve()
    assert plots.verdict([r for r in rows if r["seed"] == 1], "digit").startswith(
        "Perhaps an inverted U"
    )
    fewer = [r for r in rows if r["view"] != "color:b" or r["seed"] == 1]
    assert plots.verdict(fewer, "digit").startswith("Perhaps an inverted U")


def test_the_verdict_is_about_the_task_and_not_about_the_order_of_the_rows():
    rows = curve([0.1, 0.2, 0.15, 0.05])
    assert plots.verdict(rows, "digit").startswith("An inverted U")
    assert plots.verdict(rows, "place").startswith(
        "No inverted U: the best of 4 points is an end, color:d"
    )
    for seed in range(5):
        shuffled = random.Random(seed).sample(rows, len(rows))
        assert plots.verdict(shuffled, "digit") == plots.verdict(rows, "digit")


def test_the_ends_are_those_of_the_truth_where_it_is_known():
    rows = truth(curve([0.2, 0.5, 0.4, 0.9]))  # by what was measured, and by the truth, d is last
    assert plots.verdict(rows, "digit").startswith("No inverted U")
    rows = [r | {"true_nats": 1.0 if r["view"] == "color:d" else r["true_nats"]} for r in rows]
    assert plots.verdict(rows, "digit").startswith("An inverted U: the best point is color:d")


# Figures

FIGURES = {
    "u_curve": lambda rows, path: plots.u_curve(rows, path, "digit"),
    "dial_curve": lambda rows, path: plots.dial_curve(rows, path, "digit"),
    "calibration": lambda rows, path: plots.calibration(truth(rows), path),
    "view_strip": lambda rows, path: plots.view_strip(
        {"x": [torch.linspace(0, rows[0]["acc_digit"], 64).view(1, 8, 8)]}, path
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_picture_is_a_function_of_the_rows(tmp_path, name):
    path = tmp_path / "not" / "there" / "a.png"
    assert FIGURES[name](curve(), str(path)) == path
    picture = imread(path)
    assert (
        min(picture.shape[:2]) > 100
        and picture[..., :3].std() > 0.02
        and picture[..., :3].mean() > 0.3
    )
    FIGURES[name](curve(), tmp_path / "b.png")
    FIGURES[name](curve([0.3, *HILL[1:]], spread=0.2), tmp_path / "c.png")
    a, b, c = (file.read_bytes() for file in (path, tmp_path / "b.png", tmp_path / "c.png"))
    assert a == b != c
    assert sorted(file.name for file in tmp_path.iterdir()) == ["b.png", "c.png", "not"]


@pytest.mark.parametrize("suffix", ["svg", "pdf"])
def test_drawings_are_a_function_of_the_rows_too(tmp_path, monkeypatch, suffix):
    for moment, name in (
        ("1000000000", "a"),
        ("1600000000", "b"),
    ):  # seconds: whenever they are drawn
        monkeypatch.setenv("SOURCE_DATE_EPOCH", moment)
        plots.u_curve(curve(), tmp_path / f"{name}.{suffix}")
    a, b = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in "ab")
    assert a == b and a.startswith(b"%PDF" if suffix == "pdf" else b"<?xml")


@pytest.mark.parametrize("suffix", UNDATED)
@pytest.mark.parametrize("name", ["u", "dial"])
def test_a_figure_can_be_changed_before_it_is_saved(tmp_path, monkeypatch, name, suffix):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    figure, path = getattr(plots, f"{name}_figure")(curve(), "digit"), tmp_path / f"figure.{suffix}"
    assert plots.save_figure(figure, path) == path
    getattr(plots, f"{name}_curve")(curve(), tmp_path / f"curve.{suffix}", "digit")
    assert path.read_bytes() == (tmp_path / f"curve.{suffix}").read_bytes()
    figure.axes[0].set_title("mine")
    plots.save_figure(figure, path)
    assert path.read_bytes() != (tmp_path / f"curve.{suffix}").read_bytes()


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_trained_and_no_row_is_changed(drawn, tmp_path, monkeypatch, name):
    def fail(*_, **__):
        raise AssertionError("trained")

    rows, before, draws = curve(), json.dumps(curve()), torch.get_rng_state()
    monkeypatch.setattr(torch.Tensor, "backward", fail)
    monkeypatch.setattr(torch.nn.Module, "__call__", fail)
    FIGURES[name](rows, tmp_path / "a.png")
    assert json.dumps(rows) == before and torch.equal(torch.get_rng_state(), draws)


def test_the_u_curve_has_the_rows_numbers(drawn, tmp_path):
    rows = curve(nats=[2.0, 0.1, 3.0, 1.0], spread=0.02)
    plots.u_curve(rows, tmp_path / "u.png", "digit")
    (axes,) = drawn[0].axes
    means = np.array([[0.1, 0.5], [1.0, 0.4], [2.0, 0.2], [3.0, 0.9]])
    assert set(bars(axes)) == {"x", "y"}
    for where, half in bars(axes).values():
        np.testing.assert_allclose(where, means, atol=1e-9)
        np.testing.assert_allclose(half, [0.02] * 4)
    lines = {line.get_label(): line for line in axes.lines}
    seeds = lines["a seed"].get_xydata()
    assert sorted(map(tuple, seeds)) == sorted((r["i_nce"], r["acc_digit"]) for r in rows)
    upright = {
        round(line.get_xdata()[0], 9)
        for line in axes.lines
        if len(set(line.get_xdata())) == 1 and len(line.get_xdata()) == 2
    }
    assert upright == {round(ENTROPY, 9), round(CEILING, 9)}
    words = " ".join(map(str, lines))
    assert "H(y) = 2.30 nats" in words and "ceiling log K = 5.55 nats" in words
    assert (
        axes.get_xlim()[0] < 0
        and axes.get_xlim()[1] > CEILING
        and axes.get_ylim()[0] == 0
        and axes.get_ylim()[1] >= 1
    )
    shades = [patch.get_xy() for patch in axes.patches]
    assert any(np.isclose(xy, ENTROPY).any() for xy in shades)
    assert "nats" in axes.get_xlabel() and "digit" in axes.get_ylabel()


def test_points_stay_and_their_numbers_lie_on_no_point_and_on_no_number(drawn, tmp_path):
    """Five crowded means, two of them equal, and two alone: a number within reach of its point, apart from all else."""
    at = [(1.0, 0.5), (1.0, 0.5), (1.01, 0.5), (1.0, 0.51), (1.02, 0.49), (3.0, 0.2), (5.0, 0.9)]
    rows = [
        row | {"view": f"v{i}", "i_nce": x, "acc_digit": y}
        for i, (x, y) in enumerate(at)
        for row in curve([0.2])[:1]
    ]
    plots.dial_curve(rows, tmp_path / "x.png", "digit")
    figure = drawn[0]
    plots._apart(figure)
    plane = next(axes for axes in figure.axes if "NCE" in axes.get_xlabel())
    points = next(line for line in plane.lines if line.get_marker() == "o").get_xydata()
    assert sorted(map(tuple, points)) == sorted(at)
    notes = [text for text in plane.texts if text.get_gid() == "number"]
    home = plane.transData.transform([note.xy for note in notes]) * 72 / figure.dpi
    place = home + np.array([note.xyann for note in notes])
    to_numbers = np.linalg.norm(place[:, None] - place, axis=2) + 99 * np.eye(len(notes))
    to_points = np.linalg.norm(place[:, None] - home, axis=2)
    assert to_numbers.min() > 0.8 * plots.DISC and to_points.min() > 0.6 * plots.DISC
    assert to_points.diagonal().max() < 4 * plots.DISC


def test_points_carry_the_numbers_that_the_key_explains(drawn, tmp_path):
    plots.u_curve(curve(nats=[2.0, 0.1, 3.0, 1.0]), tmp_path / "u.png")
    figure = drawn[0]
    order = [text.get_text() for text in figure.legends[0].get_texts()]
    assert order == ["1  color:b", "2  color:d", "3  color:a", "4  color:c"]
    numbered = {
        text.get_text(): text.xy
        for text in figure.axes[0].texts
        if re.fullmatch(r"\d", text.get_text())
    }
    want = {"1": (0.1, 0.5), "2": (1.0, 0.4), "3": (2.0, 0.2), "4": (3.0, 0.9)}
    assert {number: tuple(map(float, xy)) for number, xy in numbered.items()} == {
        n: pytest.approx(xy) for n, xy in want.items()
    }


@pytest.mark.parametrize("draw", [plots.u_curve, plots.calibration])
def test_measured_information_is_held_against_the_truth(drawn, tmp_path, draw):
    draw(truth(curve(spread=0.02)), tmp_path / "u.png")
    axes = drawn[0].axes[-1]
    assert len(drawn[0].axes) == (2 if draw is plots.u_curve else 1)
    edge = axes.get_xlim()[1]
    where, half = bars(axes)["y"]
    np.testing.assert_allclose(where[:3], [[0.5, 0.1], [1.5, 2.0], [2.5, 1.0]], atol=1e-9)
    np.testing.assert_allclose(half, [0.02] * 4)
    assert CEILING < where[3, 0] < edge < 40 and where[3, 1] == pytest.approx(
        3.0
    )  # 40 nats are off the scale, and said
    assert [text.get_text() for text in axes.texts if "40.0" in text.get_text()]
    assert any(np.allclose(line.get_xydata(), [[0, 0], [CEILING, CEILING]]) for line in axes.lines)
    assert any(set(np.round(line.get_ydata(), 9)) == {round(CEILING, 9)} for line in axes.lines)


@pytest.mark.parametrize("numbers", [(0.5, 0.1, 2.0, 0.2), None])
def test_the_dial_curve_has_the_rows_numbers(drawn, tmp_path, numbers):
    """Numbers stand in their own order, names in that of the rows."""
    names = [f"crop:{number}+grey:1" for number in numbers] if numbers else list("abcd")
    rows = [r | {"view": names["abcd".index(r["view"][-1])]} for r in curve(spread=0.02)][::-1]
    plots.dial_curve(rows, tmp_path / "d.png", "digit", "area")
    upper, plane, lower = drawn[0].axes
    order = [1, 3, 0, 2] if numbers else [3, 2, 1, 0]
    x = sorted(numbers) if numbers else range(1, 5)
    nats, hill = np.array(NATS)[order], np.array(HILL)[order]
    for axes, values in ((upper, nats), (lower, hill)):
        where, half = bars(axes)["y"]
        np.testing.assert_allclose(where, np.column_stack([x, values]), atol=1e-9)
        np.testing.assert_allclose(half, [0.02] * 4)
    np.testing.assert_allclose(bars(plane)["y"][0], np.column_stack([nats, hill]), atol=1e-9)
    assert (
        lower.get_xlabel() == "area"
        and "nats" in upper.get_ylabel()
        and "digit" in lower.get_ylabel()
    )
    assert (upper.get_xscale() == "log") == bool(numbers)
    assert len(lower.get_xticks()) == 0 or numbers
    key = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert key == [f"{number}  {names[i]}" for number, i in enumerate(order, 1)]


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


def test_rows_that_lack_a_field_are_not_taken_together():
    """Two temperatures of one view, and two other views whose rows say nothing of a temperature."""
    given = [
        ("color:a", 1.0, 0.1),
        ("color:a", 2.0, 0.2),
        ("color:b", 3.0, None),
        ("color:c", 0.5, None),
    ]
    rows = [
        {"key": str(i), "view": view} | ({"tau": tau} if tau else {}) | row(view, nats, 0.5)
        for i, (view, nats, tau) in enumerate(given)
    ]
    at = plots.points(rows, "digit")
    assert (
        list(at["view"]) == ["color:c", "color:a, tau=0.1", "color:a, tau=0.2", "color:b"]
        and list(at["n"]) == [1] * 4
    )


def test_curves_of_several_settings_keep_the_order_of_their_rows_and_are_told_apart():
    given = [(view, tau) for tau in (0.1, 0.2) for view in ("color:rgb", "color:lab", "color:hsv")]
    rows = [
        {"key": str(i), "view": view, "tau": tau} | row(view, nats, acc)
        for i, ((view, tau), nats, acc) in enumerate(
            zip(given, (3.0, 2.0, 1.0, 4.0, 2.5, 1.5), (0.1, 0.9, 0.1) * 2, strict=True)
        )
    ]
    at = by_dial(plots.points(rows, "digit"), rows)
    assert list(at["view"]) == [f"{view}, tau={tau}" for view, tau in given]
    several = plots.verdict(rows, "digit", dial=True)
    assert (
        several
        == "Several curves: rows differ in view and in tau; choose rows that differ in the view alone."
    )
    assert "inverted U" in plots.verdict(rows[:3], "digit", dial=True)
    game = {"key": "g", "view": "crop:0.5", "method": "game", "tau": 7}
    assert "inverted U" in plots.verdict([*rows[:3], game], "digit", dial=True)
    assert "Several" not in plots.verdict(
        [rows[0], rows[3]], "digit"
    )  # of one view, the settings are the curve


def with_untrained(rows, accuracy):
    """And for each row that of its network before training."""
    keyed = [{"key": f"{i}", "steps": 400} | r for i, r in enumerate(rows)]
    return keyed + [
        r | {"key": f"0{r['key']}", "steps": 0, "i_nce": 9.0, "acc_digit": accuracy(r)}
        for r in keyed
    ]


def hollow(figure):
    """The points of untrained networks in a figure."""
    bars = [
        bar
        for axes in figure.axes
        for bar in axes.containers
        if str(bar.get_label()).startswith("the same network untrained")
    ]
    return [bar.lines[0] for bar in bars]


NETWORKS = {
    "data": "digits",
    "size": 32,
    "encoder": "tiny",
    "width": 1.0,
    "share_encoder": True,
    "probe_images": 64,
}
TRAINING = {"method": "infonce", "tau": 0.2, "lr": 0.1, "batch": 32, "steps": 400}


def recipe_first(rows):
    """Rows as `run` gives them."""
    names = ["key", "view", *NETWORKS, *TRAINING, "seed", "status"]
    return [{name: r[name] for name in names if name in r} | r for r in rows]


@pytest.mark.parametrize("name", NETWORKS)
def test_an_untrained_network_tells_of_no_other_one(name):
    other = {
        "data": "photos",
        "size": 64,
        "encoder": "alexnet",
        "width": 0.5,
        "share_encoder": False,
        "probe_images": 32,
    }
    mine, theirs = (
        [r | NETWORKS | fields for r in curve()] for fields in ({}, {name: other[name]})
    )
    rows = with_untrained(mine, lambda r: 0.25)
    rows += [r | {"key": f"x{r['key']}"} for r in with_untrained(theirs, lambda r: 0.75)]
    at = plots.points(recipe_first(rows), "digit")
    changed = at["view"].str.contains(f"{name}={other[name]}", regex=False)
    assert (
        changed.sum() * 2 == len(at)
        and set(at["untrained"][changed]) == {0.75}
        and set(at["untrained"][~changed]) == {0.25}
    )
    rows = [r for r in rows if r["steps"] or not str(r["key"]).startswith("x")]
    at = plots.points(recipe_first(rows), "digit")
    assert at["untrained"][changed].isna().all() and at["untrained"][~changed].notna().all()


@pytest.mark.parametrize("name", ["files", "learned"])
def test_what_other_files_gave_is_another_point(name):
    """Of the same path: a folder whose pictures were changed, a flow that was learned anew."""
    one, two = ([r | NETWORKS | {name: told} for r in curve()] for told in "ab")
    rows = [*with_untrained(one, lambda r: 0.25), *with_untrained(two, lambda r: 0.5)]
    rows = recipe_first(r | {"key": f"{i}"} for i, r in enumerate(rows))
    at = plots.points(rows, "digit")
    assert len(at) == 2 * len(plots.points(curve(), "digit")) and set(at["n"]) == {3}
    assert set(at["untrained"][at["view"].str.endswith(f", {name}=a")]) == {0.25}
    assert plots.verdict(rows, "digit").startswith(
        f"Several curves: rows differ in view and in {name};"
    )
    apart = [
        r for r in rows if (r[name] == "a") == (r["view"] < "color:c")
    ]  # each view from files of its own
    assert len(plots.points(apart, "digit")) == len(plots.points(curve(), "digit"))


def test_rows_of_an_older_version_lack_a_field_and_are_not_averaged_over_it():
    rows = recipe_first(
        [
            r | NETWORKS | TRAINING | {"tau": tau, "key": f"{tau} {i}"}
            for tau in (0.1, 0.2)
            for i, r in enumerate(curve())
        ]
    )
    old = {name: value for name, value in rows[0].items() if name != "tau"} | {"key": "old"}
    for given in ([old, *rows], [*rows, old]):
        assert "rows differ in view and in tau" in plots.verdict(given, "digit")


@pytest.mark.parametrize("rows", ["runs/mine", Path("runs/mine"), {"view": "color:lab"}])
def test_what_is_no_list_of_rows_is_told(rows, tmp_path):
    with pytest.raises(
        TypeError, match=r"rows: got a .*, wanted a list of rows .* infomin.table.read"
    ):
        plots.u_curve(rows, tmp_path / "u.png")


def test_the_legend_hides_no_point(tmp_path, drawn):
    rows = curve(nats=[0.5, 3.0, 3.5, 6.0], accuracies=[0.05, 0.02, 0.1, 0.2])
    plots.u_curve(rows, tmp_path / "low.png", "digit")
    axes = drawn[-1].axes[0]
    assert axes.get_legend().get_window_extent().y1 < axes.get_window_extent().y0


def test_the_entropy_of_many_classes_lies_inside_the_figure(tmp_path, drawn):
    plots.u_curve([r | {"entropy_digit": 12.0} for r in curve()], tmp_path / "many.png", "digit")
    assert drawn[-1].axes[0].get_xlim()[1] > 12


def test_many_names_make_a_higher_figure(tmp_path, drawn):
    for n in (3, 40):
        plots.u_curve(
            [row(f"color:{'x' * 60}$\\frac${i}", 0.1 * i, 0.5, 0) for i in range(n)],
            tmp_path / "u.png",
            "digit",
        )
    few, many = (figure.axes[0].get_window_extent().height for figure in drawn[-2:])
    assert many > 0.8 * few and drawn[-1].get_figheight() > drawn[-2].get_figheight()


def test_one_seed_has_no_deviation(tmp_path, drawn):
    plots.u_curve([r for r in curve() if r["seed"] == 0], tmp_path / "u.png", "digit")
    said = [text.get_text() for text in drawn[-1].axes[0].get_legend().get_texts()]
    assert "one seed" in said and not any("deviation" in words for words in said)


def test_calibration_leaves_untrained_networks_and_repeated_rows_out(tmp_path, drawn):
    rows = recipe_first(TRAINING | r for r in with_untrained(truth(curve()), lambda r: 0.1))
    plots.calibration([r for r in rows if r["steps"]], tmp_path / "one.png")
    plots.calibration([*rows, *rows[:2]], tmp_path / "two.png")
    one, two = (
        np.array([line.get_xydata() for line in figure.axes[0].lines if line.get_marker() == "o"])
        for figure in drawn[-2:]
    )
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("name", TRAINING)
def test_an_untrained_network_tells_whatever_the_training(name, tmp_path, drawn):
    """As the curve of `steps=0,100,400` has it."""
    other = {"method": "supervised", "tau": 0.1, "lr": 0.2, "batch": 64, "steps": 100}
    rows = with_untrained([r | NETWORKS | TRAINING for r in curve()], lambda r: 0.25)
    rows = recipe_first(
        [*rows, *(r | {"key": f"x{r['key']}", name: other[name]} for r in rows if r["steps"])]
    )
    at = plots.points(rows, "digit")
    assert len(at) == 2 * len(plots.points(curve(), "digit")) and set(at["untrained"]) == {0.25}


def test_there_is_no_legend_where_no_point_has_an_untrained_network(tmp_path, drawn):
    rows = with_untrained(curve(), lambda r: 0.25)
    rows = [r | {"view": r["view"] if r["steps"] else "color:none"} for r in rows]
    plots.u_curve(rows, tmp_path / "none.png", "digit")
    assert not hollow(drawn[-1]) and "Untrained" not in plots.verdict(rows, "digit")


def test_a_run_counts_once_however_often_its_row_is_there():
    rows = [{"key": f"{i}"} | r | {"seconds": 1.0} for i, r in enumerate(curve())]
    for again in (
        rows[:5],
        [r | {"seconds": 2.0} for r in rows[:5]],
    ):  # carried out a second time too
        assert plots.points([*rows, *again], "digit").equals(plots.points(rows, "digit"))


def test_networks_that_took_no_step_are_told_beside_their_points_and_are_none(tmp_path, drawn):
    rows = curve()
    both = with_untrained(rows, lambda r: 0.1 if r["view"] == "color:a" else 0.4)
    at, plain = plots.points(both, "digit"), plots.points(rows, "digit")
    assert list(at["untrained"]) == pytest.approx([0.1] + [0.4] * (len(at) - 1))
    assert at.drop(columns=["untrained", "untrained_std"]).equals(plain) and list(
        at["untrained_std"]
    ) == [0] * len(at)
    assert (
        plots.verdict(both, "digit")
        == plots.verdict(rows, "digit") + " Untrained, its network has 0.40 ± 0.00."
    )
    spread = plots.points(
        with_untrained(rows, lambda r: r["seed"] ** 2 / 10), "digit"
    )  # 0, 0.1 and 0.4
    assert list(spread["untrained"]) == pytest.approx([0.5 / 3] * len(at))
    assert list(spread["untrained_std"]) == pytest.approx([math.sqrt(0.13 / 3)] * len(at))
    for draw in (plots.u_curve, plots.dial_curve):
        draw(rows, tmp_path / "bare.png", "digit")
        draw(both, tmp_path / "both.png", "digit")
        bare, figure = drawn[-2:]
        lines = hollow(figure)
        assert (
            lines
            and all(list(line.get_ydata()) == list(at["untrained"]) for line in lines)
            and not hollow(bare)
        )
        seeds = [
            [line.get_xdata().max() for line in axes.lines if line.get_label() == "a seed"]
            for axes in figure.axes
        ]
        assert all(most < 9 for found in seeds for most in found)
    some = [r for r in both if r["steps"] or r["view"] == "color:b"]
    assert plots.points(some, "digit")["untrained"].notna().sum() == 1
    alone = [r for r in both if r["steps"] == 0]
    assert "untrained" not in plots.points(alone, "digit") and len(
        plots.points(alone, "digit")
    ) == len(at)


def test_rows_of_games_are_no_points():
    rows = [{"key": f"{i}", "method": "infonce"} | r for i, r in enumerate(curve())]
    game = {
        "key": "g",
        "method": "game",
        "view": "crop:0.5",
        "seed": 0,
        "lr_generator": 0.1,
        "status": "done",
        "verdict": "steady",
    }
    assert plots.points([game, *rows], "digit").equals(plots.points(rows, "digit"))


def test_rows_without_any_nats_are_told():
    with pytest.raises(
        ValueError, match="rows: got none with an I_NCE, wanted runs of two views or more"
    ):
        plots.points([r | {"i_nce": None} for r in curve()], "digit")


def test_the_verdict_along_the_dial_speaks_of_the_dials_ends():
    """I_NCE need not order the views as the dial does: what is inside along one may be an end of the other."""
    rows = [r | {"view": f"blur:{'badc'.index(r['view'][-1]) + 1}"} for r in curve(spread=0.0)]
    along = plots.verdict(rows, "digit", dial=True)
    acc = {r["view"]: r["acc_digit"] for r in rows}
    best = max(acc, key=acc.get)
    assert (best in ("blur:1", "blur:4")) == along.startswith("No inverted U")
    assert "least is shared" not in along and ("blur:1" in along or "blur:4" in along)


def test_what_has_no_colour_is_drawn_without(drawn, tmp_path):
    """Chroma of 0 is middle grey, whatever else is in the picture: stretched to its own range it was some purple."""
    views = torch.zeros(2, 4, 4), torch.zeros(3, 4, 4)
    for view in views:
        view[0, 0, 0], view[1, 0, 1] = 0.8, -0.2
    plots.view_strip({"chroma": views}, tmp_path / "s.png")
    for place in drawn[0].axes:
        (image,) = place.get_images()
        np.testing.assert_allclose(np.asarray(image.get_array())[1:], 0.5)


def test_a_rounding_above_one_makes_no_signs(drawn, tmp_path):
    """Ink over a background may come to 1 + 1e-7, and black stays black all the same."""
    view = torch.linspace(0, 1 + 1e-6, 48).view(3, 4, 4)
    plots.view_strip({"ink": [view]}, tmp_path / "s.png")
    (image,) = drawn[0].axes[0].get_images()
    np.testing.assert_allclose(np.asarray(image.get_array()), view.permute(1, 2, 0), atol=1e-5)


def test_a_strip_shows_the_views_as_they_are(drawn, tmp_path):
    grey, two, color = torch.rand(1, 6, 6), torch.rand(2, 6, 6), torch.rand(3, 6, 6)
    wide = 5 * torch.randn(1, 6, 6)
    plots.view_strip(
        {"one": [grey, two], "three": [color], "wide": [wide.requires_grad_(), grey]},
        tmp_path / "s.png",
    )
    axes = drawn[0].axes
    assert len(axes) == 6 and [place.get_title("left") for place in axes[::2]] == [
        "one",
        "three",
        "wide",
    ]
    shown = [[np.asarray(image.get_array()) for image in place.get_images()] for place in axes]
    assert [len(images) for images in shown] == [1, 1, 1, 0, 1, 1]
    np.testing.assert_allclose(shown[0][0], grey[0])
    np.testing.assert_allclose(
        shown[1][0], np.stack([two[0], 1 - two.mean(0), two[1]], -1)
    )  # red and blue against green
    np.testing.assert_allclose(shown[2][0], color.permute(1, 2, 0))
    scaled = wide[0] / wide.abs().max() / 2 + 0.5
    np.testing.assert_allclose(shown[4][0], scaled.detach(), atol=1e-6)
    assert all(image.get_clim() == (0, 1) for place in axes for image in place.get_images())


@pytest.mark.parametrize("first", ["trained", "untrained"])
def test_an_untrained_network_tells_of_no_other_one_whichever_row_comes_first(first):
    row = {
        "view": "a",
        "steps": 9,
        "size": 64,
        "i_nce": 1.0,
        "acc_digit": 0.8,
        "knn_digit": 0.8,
        "entropy_digit": 2.3,
    }
    rows = [row, row | {"steps": 0, "size": 32, "acc_digit": 0.3}]
    at = points(rows if first == "trained" else rows[::-1], "digit")
    assert list(at["acc_digit_mean"]) == [0.8] and at["untrained"].isna().all()


@pytest.mark.parametrize("name", ["files", "learned"])
def test_what_stood_at_a_path_is_told_where_one_view_had_two_of_it_and_only_there(name):
    row = {
        "view": "flow:a",
        "data": "d",
        "seed": 0,
        "status": "done",
        "i_nce": 1.0,
        "acc_digit": 0.8,
        "knn_digit": 0.8,
    }
    row |= {"entropy_digit": 2.3, name: "1"}
    apart, both = row | {"view": "flow:b", name: "2"}, row | {name: "2"}
    for other, names in (
        (apart, {"flow:a", "flow:b"}),
        (both, {f"flow:a, {name}=1", f"flow:a, {name}=2"}),
    ):
        rows = [{"key": str(i)} | one for i, one in enumerate((row, other))]
        assert set(points(rows, "digit")["view"]) == names
