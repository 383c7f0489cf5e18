"""Points are means over seeds, one view and setting each, beside their untrained networks."""

import math
import random
from pathlib import Path

import curves
import numpy as np
import pandas as pd
import pytest

from infomin.report.plots import dial_figure, u_curve, u_figure, verdict
from infomin.report.summary import points


def test_points_are_means_and_deviations_over_seeds_in_order_of_information():
    rows = curves.make_curve(nats=[2.0, 0.1, 3.0, 1.0], spread=0.02)
    shuffled = random.Random(0).sample(rows, len(rows))
    for given in (rows, pd.DataFrame(rows), shuffled):
        curve = points(given, "digit")
        assert list(curve["view"]) == ["color:b", "color:d", "color:a", "color:c"]
        np.testing.assert_allclose(curve["i_nce_mean"], [0.1, 1.0, 2.0, 3.0])
        np.testing.assert_allclose(curve["acc_digit_mean"], [0.5, 0.4, 0.2, 0.9])
        np.testing.assert_allclose(curve["knn_digit_mean"], curve["acc_digit_mean"] / 2)
        for name in ("i_nce_std", "acc_digit_std", "spread"):
            np.testing.assert_allclose(curve[name], [0.02] * 4)
        assert list(curve["n"]) == [3] * 4 and list(curve["diverged"]) == [0] * 4
    np.testing.assert_allclose(points(rows, "place")["acc_place_mean"], [0.5, 0.6, 0.8, 0.1])


def test_points_are_in_order_of_the_truth_where_all_rows_have_it():
    rows = curves.with_truth(curves.make_curve())
    assert [view[-1] for view in points(rows, "digit")["view"]] == list("acbd")
    rows[0] = {name: value for name, value in rows[0].items() if name != "true_nats"}
    assert [view[-1] for view in points(rows, "digit")["view"]] == list("abcd")


def test_points_of_one_seed_have_no_spread():
    curve = points([row for row in curves.make_curve() if row["seed"] == 1], "digit")
    assert list(curve["spread"]) == [0.0] * 4 and curve["acc_digit_std"].isna().all()
    assert list(curve["acc_digit_mean"]) == curves.HILL


@pytest.mark.parametrize("by", ["tau", "size"])
def test_points_by_another_column(by):
    """Untrained networks do not depend on tau, and each size has its own."""
    levels = dict(zip("abcd", (32, 24, 16, 8), strict=True))
    hill = dict(zip(levels.values(), curves.HILL, strict=True))
    trained = [
        row | {by: levels[row["view"][-1]], "view": "color:a", "steps": 9}
        for row in curves.make_curve()
    ]
    untrained = [
        row | {"steps": 0, "tau": 0.2, "acc_digit": 0.1 if row.get("size", 8) == 8 else 0.2}
        for row in trained
    ]
    curve = points(trained, "digit", by=by)
    order = list(curve[by])
    assert sorted(order) == [8, 16, 24, 32]
    np.testing.assert_allclose(curve["acc_digit_mean"], [hill[level] for level in order])
    both = points([*trained, *untrained], "digit", by=by)
    assert list(both[by]) == order
    wanted = [0.1 if by == "tau" or level == 8 else 0.2 for level in order]
    np.testing.assert_allclose(both["untrained"], wanted)


def test_points_by_another_column_need_one_view_each():
    taus = {"a": 0.1, "b": 0.2, "c": 0.2, "d": 0.1}
    rows = [row | {"tau": taus[row["view"][-1]]} for row in curves.make_curve()]
    message = r"got 2 views with tau=0.1, wanted one; use by='view', or rows of a single view"
    with pytest.raises(ValueError, match=message):
        points(rows, "digit", by="tau")


@pytest.mark.parametrize("case", curves.DIVERGED)
def test_diverged_rows_are_only_counted(case):
    good, rows = curves.with_diverged(*case)
    expected, curve = points(good, "digit"), points(rows, "digit")
    pd.testing.assert_frame_equal(
        curve.drop(columns="diverged"), expected.drop(columns="diverged"), check_dtype=False
    )
    counts = curve.set_index("view")["diverged"].to_dict()
    assert counts == {"color:a": 0, "color:b": 1, "color:c": 0, "color:d": 0}
    assert verdict(rows, "digit") == verdict(good, "digit")


def test_rows_that_all_diverged_are_an_error():
    message = "rows: need the columns view and i_nce, got none named i_nce; use rows of runs that "
    with pytest.raises(ValueError, match=message):
        points([curves.diverged()], "digit")


@pytest.mark.parametrize("column", ["i_nce", "acc_digit", "knn_digit", "ceiling", "entropy_digit"])
@pytest.mark.parametrize("value", ["0.5", [0.5], math.inf])
def test_what_is_no_number_is_named(column, value):
    rows = curves.make_curve()
    message = rf"rows: {column} must be a finite number, got .*{value!s:.3}.*; repair or drop that "
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        u_figure([*rows[1:], rows[0] | {column: value}], "digit")


@pytest.mark.parametrize("view", [None, 3, math.nan])
def test_a_row_without_a_view_is_an_error(view):
    rows = [*curves.make_curve(), curves.make_row(view, 1.0, 0.5)]
    for use in (points, verdict, u_figure, dial_figure):
        with pytest.raises(ValueError, match="rows: need a column view with a name in every row"):
            use(rows, "digit")


@pytest.mark.parametrize("use", [verdict, points, lambda rows, task: u_curve(rows, "a.png", task)])
def test_an_unknown_task_lists_the_known_ones(use):
    with pytest.raises(ValueError, match=r"task: got 'colour', wanted one of digit, place$"):
        use(curves.make_curve(), "colour")


def test_baselines_need_only_the_columns_of_a_point():
    curve, full = points(curves.baselines(), "digit"), points(curves.make_curve(), "digit")
    pd.testing.assert_frame_equal(curve, full[list(curve)])
    assert set(full) - set(curve) == {"knn_digit_mean", "knn_digit_std"}
    assert verdict(curves.baselines(), "digit") == verdict(curves.make_curve(), "digit")


def test_baselines_can_be_mixed_with_rows_of_runs():
    """They have no key, so none of them is a repeat of another."""
    runs = (
        {"key": f"{i}"} | curves.NETWORK | curves.TRAINING | row
        for i, row in enumerate(curves.make_curve())
    )
    rows = curves.recipe_first(runs)
    mine = [row | {"view": "mine"} for row in curves.baselines()[::4]]
    for given in ([*mine, *rows], [*rows, *mine]):
        curve = points(given, "digit").set_index("view")
        assert curve["n"].to_dict() == {"mine": 3} | {f"color:{letter}": 3 for letter in "abcd"}
        lacks_neighbours = curve["knn_digit_mean"].isna().to_dict()
        assert lacks_neighbours == {view: view == "mine" for view in curve.index}


@pytest.mark.parametrize("rows", [[], pd.DataFrame(), pd.DataFrame(curves.make_curve())[:0]])
@pytest.mark.parametrize("use", [points, verdict, u_figure, dial_figure])
def test_no_rows_are_an_error(use, rows):
    with pytest.raises(ValueError, match="rows: got none, wanted rows of runs; run a sweep first"):
        use(rows, "digit")


def test_rows_of_games_alone_are_an_error():
    game = {"key": "g", "method": "game", "view": "crop:0.5", "seed": 0, "status": "done"}
    with pytest.raises(ValueError, match="rows: got only rows of games, wanted rows of runs"):
        points([game], "digit")


def test_rows_of_games_are_not_points():
    rows = [{"key": f"{i}", "method": "infonce"} | row for i, row in enumerate(curves.make_curve())]
    game = {"key": "g", "method": "game", "view": "crop:0.5", "seed": 0, "lr_generator": 0.1}
    game |= {"status": "done", "verdict": "steady"}
    assert points([game, *rows], "digit").equals(points(rows, "digit"))


def test_rows_without_any_nats_are_an_error():
    rows = [row | {"i_nce": None} for row in curves.make_curve()]
    message = "rows: got none with an I_NCE, need runs with two views or more"
    with pytest.raises(ValueError, match=message):
        points(rows, "digit")


@pytest.mark.parametrize("rows", ["runs/mine", Path("runs/mine"), {"view": "color:lab"}])
def test_something_other_than_rows_is_an_error(rows, tmp_path):
    message = r"rows: got .*, wanted a list of rows .* infomin.read_rows"
    with pytest.raises(TypeError, match=message):
        u_curve(rows, tmp_path / "u.png")


def test_points_are_a_latex_table():
    table = points(curves.make_curve(), "digit").to_latex(index=False, float_format="%.2f")
    assert table.startswith(r"\begin{tabular}") and "color:c & 2.00 & 0.01 & 0.90" in table


def test_a_run_counts_once_however_often_its_row_occurs():
    rows = [{"key": f"{i}"} | row | {"seconds": 1.0} for i, row in enumerate(curves.make_curve())]
    run_again = [row | {"seconds": 2.0} for row in rows[:5]]
    for repeats in (rows[:5], run_again):
        assert points([*rows, *repeats], "digit").equals(points(rows, "digit"))


# Settings that vary besides view and seed


def test_rows_that_lack_a_field_are_points_of_their_own():
    """Two temperatures of one view, and two other views whose rows have no temperature."""
    settings = [
        ("color:a", 1.0, {"tau": 0.1}),
        ("color:a", 2.0, {"tau": 0.2}),
        ("color:b", 3.0, {}),
        ("color:c", 0.5, {}),
    ]
    rows = [
        {"key": str(i), "view": view} | tau | curves.make_row(view, nats, 0.5)
        for i, (view, nats, tau) in enumerate(settings)
    ]
    curve = points(rows, "digit")
    assert list(curve["view"]) == ["color:c", "color:a, tau=0.1", "color:a, tau=0.2", "color:b"]
    assert list(curve["n"]) == [1] * 4


def test_rows_of_an_older_version_that_lack_a_field_are_not_averaged_over_it():
    rows = curves.recipe_first(
        row | curves.NETWORK | curves.TRAINING | {"tau": tau, "key": f"{tau} {i}"}
        for tau in (0.1, 0.2)
        for i, row in enumerate(curves.make_curve())
    )
    old = {name: value for name, value in rows[0].items() if name != "tau"} | {"key": "old"}
    for given in ([old, *rows], [*rows, old]):
        assert "the rows differ in view and in tau" in str(verdict(given, "digit"))


@pytest.mark.parametrize("name", ["files", "learned"])
def test_other_files_at_the_same_path_are_another_point(name):
    """For example a folder whose pictures changed, or a flow that was learned again."""
    one, two = (
        [row | curves.NETWORK | {name: digest} for row in curves.make_curve()] for digest in "ab"
    )
    rows = [*curves.with_untrained(one, lambda _: 0.25), *curves.with_untrained(two, lambda _: 0.5)]
    rows = curves.recipe_first(row | {"key": f"{i}"} for i, row in enumerate(rows))
    curve, single = points(rows, "digit"), points(curves.make_curve(), "digit")
    assert len(curve) == 2 * len(single) and set(curve["n"]) == {3}
    assert set(curve["untrained"][curve["view"].str.endswith(f", {name}=a")]) == {0.25}
    several = f"Undecided: several curves, for the rows differ in view and in {name};"
    assert str(verdict(rows, "digit")).startswith(several)
    one_digest_per_view = [row for row in rows if (row[name] == "a") == (row["view"] < "color:c")]
    assert len(points(one_digest_per_view, "digit")) == len(single)


@pytest.mark.parametrize("name", ["files", "learned"])
def test_a_digest_is_named_only_where_one_view_has_two(name):
    row = {"view": "flow:a", "data": "d", "seed": 0, "status": "done", "i_nce": 1.0}
    row |= {"acc_digit": 0.8, "knn_digit": 0.8, "entropy_digit": 2.3, name: "1"}
    other_view, same_view = row | {"view": "flow:b", name: "2"}, row | {name: "2"}
    cases = [
        (other_view, {"flow:a", "flow:b"}),
        (same_view, {f"flow:a, {name}=1", f"flow:a, {name}=2"}),
    ]
    for other, views in cases:
        rows = [{"key": "0"} | row, {"key": "1"} | other]
        assert set(points(rows, "digit")["view"]) == views


# Untrained networks


def test_untrained_networks_are_columns_and_not_points():
    rows = curves.make_curve()
    both = curves.with_untrained(rows, lambda row: 0.1 if row["view"] == "color:a" else 0.4)
    curve, plain = points(both, "digit"), points(rows, "digit")
    assert list(curve["untrained"]) == pytest.approx([0.1] + [0.4] * (len(curve) - 1))
    assert list(curve["untrained_std"]) == [0] * len(curve)
    assert curve.drop(columns=["untrained", "untrained_std"]).equals(plain)
    reaches = " Untrained, the network of color:c reaches 0.40 ± 0.00."
    assert str(verdict(both, "digit")) == str(verdict(rows, "digit")) + reaches
    by_seed = curves.with_untrained(rows, lambda row: row["seed"] ** 2 / 10)  # 0, 0.1 and 0.4
    spread = points(by_seed, "digit")
    assert list(spread["untrained"]) == pytest.approx([0.5 / 3] * len(curve))
    assert list(spread["untrained_std"]) == pytest.approx([math.sqrt(0.13 / 3)] * len(curve))
    one_view = [row for row in both if row["steps"] or row["view"] == "color:b"]
    assert points(one_view, "digit")["untrained"].notna().sum() == 1


def test_untrained_networks_alone_are_points():
    untrained = [
        row
        for row in curves.with_untrained(curves.make_curve(), lambda _: 0.4)
        if row["steps"] == 0
    ]
    curve = points(untrained, "digit")
    assert "untrained" not in curve and len(curve) == len(points(curves.make_curve(), "digit"))


@pytest.mark.parametrize("name", curves.NETWORK)
def test_an_untrained_network_belongs_to_no_other_network(name):
    values = {"data": "photos", "size": 64, "encoder": "alexnet", "width": 0.5}
    other = (values | {"share_encoder": False, "probe_images": 32})[name]
    one = [row | curves.NETWORK for row in curves.make_curve()]
    two = [row | curves.NETWORK | {name: other} for row in curves.make_curve()]
    rows = curves.with_untrained(one, lambda _: 0.25)
    rows += [row | {"key": f"x{row['key']}"} for row in curves.with_untrained(two, lambda _: 0.75)]
    curve = points(curves.recipe_first(rows), "digit")
    changed = curve["view"].str.contains(f"{name}={other}", regex=False)
    assert changed.sum() * 2 == len(curve)
    assert set(curve["untrained"][changed]) == {0.75}
    assert set(curve["untrained"][~changed]) == {0.25}
    without = [row for row in rows if row["steps"] or not row["key"].startswith("x")]
    curve = points(curves.recipe_first(without), "digit")
    assert curve["untrained"][changed].isna().all() and curve["untrained"][~changed].notna().all()


@pytest.mark.parametrize("first", ["trained", "untrained"])
def test_an_untrained_network_belongs_to_no_other_one_whichever_row_comes_first(first):
    row = {"view": "a", "steps": 9, "size": 64, "i_nce": 1.0, "acc_digit": 0.8}
    row |= {"knn_digit": 0.8, "entropy_digit": 2.3}
    rows = [row, row | {"steps": 0, "size": 32, "acc_digit": 0.3}]
    curve = points(rows if first == "trained" else rows[::-1], "digit")
    assert list(curve["acc_digit_mean"]) == [0.8] and curve["untrained"].isna().all()


@pytest.mark.parametrize("name", curves.TRAINING)
def test_an_untrained_network_belongs_to_every_training(name):
    """For example in the curve of `steps=0,100,400`."""
    other = {"method": "supervised", "tau": 0.1, "lr": 0.2, "batch": 64, "steps": 100}[name]
    rows = curves.with_untrained(
        [row | curves.NETWORK | curves.TRAINING for row in curves.make_curve()], lambda _: 0.25
    )
    more = [row | {"key": f"x{row['key']}", name: other} for row in rows if row["steps"]]
    curve = points(curves.recipe_first([*rows, *more]), "digit")
    assert len(curve) == 2 * len(points(curves.make_curve(), "digit"))
    assert set(curve["untrained"]) == {0.25}
