"""Figures show the numbers of the rows, each where it belongs."""

import json

import numpy as np
import pytest
import torch
from curves import (
    CEILING,
    DIVERGED,
    ENTROPY,
    HILL,
    NATS,
    TRAINING,
    baselines,
    error_bars,
    make_curve,
    make_row,
    recipe_first,
    with_diverged,
    with_truth,
    with_untrained,
)
from matplotlib.collections import LineCollection
from matplotlib.image import imread

from infomin.report import plots
from infomin.report.plots import UNDATED
from infomin.report.summary import points

FIGURES = {
    "u_curve": lambda rows, path: plots.u_curve(rows, path, "digit"),
    "dial_curve": lambda rows, path: plots.dial_curve(rows, path, "digit"),
    "calibration": lambda rows, path: plots.calibration(with_truth(rows), path),
    "view_strip": lambda rows, path: plots.view_strip({"x": [grey_ramp(rows)]}, path),
}


def grey_ramp(rows):
    return torch.linspace(0, rows[0]["acc_digit"], 64).view(1, 8, 8)


def contents(figure):
    """All numbers and words of a figure: lines, bars, shades, limits, texts."""
    found = []
    for axes in figure.axes:
        found += [line.get_xydata().tolist() for line in axes.lines]
        found += [text.get_text() for text in axes.texts]
        found += [patch.get_extents().bounds for patch in axes.patches]
        found += [axes.get_xlim(), axes.get_ylim()]
        for collection in axes.collections:
            if isinstance(collection, LineCollection):
                found.append([segment.tolist() for segment in collection.get_segments()])
    return found


def untrained_points(figure):
    """The lines of untrained networks in a figure."""
    return [
        bars.lines[0]
        for axes in figure.axes
        for bars in axes.containers
        if str(bars.get_label()).startswith("the same network untrained")
    ]


# Files


@pytest.mark.parametrize("name", FIGURES)
def test_a_picture_is_a_function_of_the_rows(tmp_path, name):
    path = tmp_path / "not" / "there" / "a.png"
    assert FIGURES[name](make_curve(), str(path)) == path
    picture = imread(path)
    assert min(picture.shape[:2]) > 100
    assert picture[..., :3].std() > 0.02 and picture[..., :3].mean() > 0.3
    FIGURES[name](make_curve(), tmp_path / "b.png")
    FIGURES[name](make_curve([0.3, *HILL[1:]], spread=0.2), tmp_path / "c.png")
    a, b, c = (file.read_bytes() for file in (path, tmp_path / "b.png", tmp_path / "c.png"))
    assert a == b != c
    assert sorted(file.name for file in tmp_path.iterdir()) == ["b.png", "c.png", "not"]


@pytest.mark.parametrize("suffix", ["svg", "pdf"])
def test_vector_graphics_do_not_depend_on_the_time(tmp_path, monkeypatch, suffix):
    for seconds, name in (("1000000000", "a"), ("1600000000", "b")):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", seconds)
        plots.u_curve(make_curve(), tmp_path / f"{name}.{suffix}")
    a, b = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in "ab")
    assert a == b and a.startswith(b"%PDF" if suffix == "pdf" else b"<?xml")


@pytest.mark.parametrize("suffix", UNDATED)
@pytest.mark.parametrize("name", ["u", "dial"])
def test_a_figure_can_be_changed_before_it_is_saved(tmp_path, monkeypatch, name, suffix):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    make_figure, draw_curve = getattr(plots, f"{name}_figure"), getattr(plots, f"{name}_curve")
    figure, path = make_figure(make_curve(), "digit"), tmp_path / f"figure.{suffix}"
    assert plots.save_figure(figure, path) == path
    draw_curve(make_curve(), tmp_path / f"curve.{suffix}", "digit")
    assert path.read_bytes() == (tmp_path / f"curve.{suffix}").read_bytes()
    figure.axes[0].set_title("mine")
    plots.save_figure(figure, path)
    assert path.read_bytes() != (tmp_path / f"curve.{suffix}").read_bytes()


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_trained_and_no_row_is_changed(drawn, tmp_path, monkeypatch, name):
    def fail(*_, **__):
        raise AssertionError("trained")

    rows, before, state = make_curve(), json.dumps(make_curve()), torch.get_rng_state()
    monkeypatch.setattr(torch.Tensor, "backward", fail)
    monkeypatch.setattr(torch.nn.Module, "__call__", fail)
    FIGURES[name](rows, tmp_path / "a.png")
    assert json.dumps(rows) == before and torch.equal(torch.get_rng_state(), state)


# Which rows are drawn


@pytest.mark.parametrize("case", DIVERGED)
def test_diverged_rows_are_not_drawn(drawn, tmp_path, case):
    for given in with_diverged(*case):
        plots.u_curve(given, tmp_path / "u.png")
        plots.dial_curve(given, tmp_path / "d.png", "digit")
    for clean, figure in zip(drawn[:2], drawn[2:], strict=True):
        assert contents(figure) == contents(clean)


@pytest.mark.parametrize(
    ("draw", "lines"),
    [(plots.u_curve, ["entropy_digit", "ceiling"]), (plots.dial_curve, ["entropy_digit"])],
)
def test_baselines_are_drawn_once_they_have_the_values_of_the_lines(drawn, tmp_path, draw, lines):
    values = {"entropy_digit": ENTROPY, "ceiling": CEILING}
    for name in lines:
        rows = baselines(**{other: value for other, value in values.items() if other != name})
        message = f"rows: got none with {name}, need it in nats .*; add it to the rows"
        with pytest.raises(ValueError, match=message):
            draw(rows, tmp_path / "x.png", "digit")
    draw(baselines(**values), tmp_path / "x.png", "digit")
    draw(make_curve(), tmp_path / "x.png", "digit")
    assert contents(drawn[0]) == contents(drawn[1])


def test_untrained_networks_are_drawn_beside_their_points(tmp_path, drawn):
    rows = make_curve()
    both = with_untrained(rows, lambda row: 0.1 if row["view"] == "color:a" else 0.4)
    untrained = list(points(both, "digit")["untrained"])
    for draw in (plots.u_curve, plots.dial_curve):
        draw(rows, tmp_path / "trained.png", "digit")
        draw(both, tmp_path / "both.png", "digit")
        trained_only, figure = drawn[-2:]
        lines = untrained_points(figure)
        assert lines and all(list(line.get_ydata()) == untrained for line in lines)
        assert not untrained_points(trained_only)
        for axes in figure.axes:  # the dots of single seeds, of trained networks alone
            dots = [line for line in axes.lines if line.get_label() == "a seed"]
            assert all(line.get_xdata().max() < 9 for line in dots)


def test_there_is_no_legend_entry_where_no_point_has_an_untrained_network(tmp_path, drawn):
    rows = with_untrained(make_curve(), lambda _: 0.25)
    rows = [row | {"view": row["view"] if row["steps"] else "color:none"} for row in rows]
    plots.u_curve(rows, tmp_path / "none.png", "digit")
    assert not untrained_points(drawn[-1])
    assert "Untrained" not in str(plots.verdict(rows, "digit"))


def test_calibration_leaves_out_untrained_networks_and_repeated_rows(tmp_path, drawn):
    untrained = with_untrained(with_truth(make_curve()), lambda _: 0.1)
    rows = recipe_first(TRAINING | row for row in untrained)
    plots.calibration([row for row in rows if row["steps"]], tmp_path / "one.png")
    plots.calibration([*rows, *rows[:2]], tmp_path / "two.png")
    one, two = (
        [line.get_xydata() for line in figure.axes[0].lines if line.get_marker() == "o"]
        for figure in drawn
    )
    np.testing.assert_array_equal(one, two)


# Where numbers are drawn


def test_the_u_curve_has_the_numbers_of_the_rows(drawn, tmp_path):
    rows = make_curve(nats=[2.0, 0.1, 3.0, 1.0], spread=0.02)
    plots.u_curve(rows, tmp_path / "u.png", "digit")
    (axes,) = drawn[0].axes
    means = np.array([[0.1, 0.5], [1.0, 0.4], [2.0, 0.2], [3.0, 0.9]])
    assert set(error_bars(axes)) == {"x", "y"}
    for centres, half_lengths in error_bars(axes).values():
        np.testing.assert_allclose(centres, means, atol=1e-9)
        np.testing.assert_allclose(half_lengths, [0.02] * 4)
    lines = {line.get_label(): line for line in axes.lines}
    seeds = lines["a seed"].get_xydata()
    assert sorted(map(tuple, seeds)) == sorted((row["i_nce"], row["acc_digit"]) for row in rows)
    ends = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 2]
    verticals = {round(left, 9) for left, right in ends if left == right}
    assert verticals == {round(ENTROPY, 9), round(CEILING, 9)}
    labels = " ".join(map(str, lines))
    assert "H(y) = 2.30 nats" in labels and "ceiling log K = 5.55 nats" in labels
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    assert left < 0 and right > CEILING and bottom == 0 and top >= 1
    assert any(np.isclose(patch.get_xy(), ENTROPY).any() for patch in axes.patches)
    assert "nats" in axes.get_xlabel() and "digit" in axes.get_ylabel()


@pytest.mark.parametrize("draw", [plots.u_curve, plots.calibration])
def test_measured_information_is_drawn_against_the_truth(drawn, tmp_path, draw):
    draw(with_truth(make_curve(spread=0.02)), tmp_path / "u.png")
    assert len(drawn[0].axes) == (2 if draw is plots.u_curve else 1)
    axes = drawn[0].axes[-1]
    centres, half_lengths = error_bars(axes)["y"]
    np.testing.assert_allclose(centres[:3], [[0.5, 0.1], [1.5, 2.0], [2.5, 1.0]], atol=1e-9)
    np.testing.assert_allclose(half_lengths, [0.02] * 4)
    x, y = centres[3]  # 40 nats are off the scale, so their point is at the edge, with a note
    assert CEILING < x < axes.get_xlim()[1] < 40 and y == pytest.approx(3.0)
    assert any("40.0" in text.get_text() for text in axes.texts)
    assert any(np.allclose(line.get_xydata(), [[0, 0], [CEILING, CEILING]]) for line in axes.lines)
    heights = [np.asarray(line.get_ydata(), float) for line in axes.lines]
    assert any(np.allclose(y, CEILING) for y in heights)


@pytest.mark.parametrize("numbers", [(0.5, 0.1, 2.0, 0.2), None])
def test_the_dial_curve_has_the_numbers_of_the_rows(drawn, tmp_path, numbers):
    """Numeric dials are sorted, other views keep the order of the rows."""
    names = [f"crop:{number}+grey:1" for number in numbers] if numbers else list("abcd")
    by_letter = dict(zip("abcd", names, strict=True))
    rows = [row | {"view": by_letter[row["view"][-1]]} for row in make_curve(spread=0.02)][::-1]
    plots.dial_curve(rows, tmp_path / "d.png", "digit", "area")
    upper, plane, lower = drawn[0].axes
    order = [1, 3, 0, 2] if numbers else [3, 2, 1, 0]
    x = sorted(numbers) if numbers else range(1, 5)
    nats, hill = np.array(NATS)[order], np.array(HILL)[order]
    for axes, values in ((upper, nats), (lower, hill)):
        centres, half_lengths = error_bars(axes)["y"]
        np.testing.assert_allclose(centres, np.column_stack([x, values]), atol=1e-9)
        np.testing.assert_allclose(half_lengths, [0.02] * 4)
    np.testing.assert_allclose(error_bars(plane)["y"][0], np.column_stack([nats, hill]), atol=1e-9)
    assert lower.get_xlabel() == "area"
    assert "nats" in upper.get_ylabel() and "digit" in lower.get_ylabel()
    assert (upper.get_xscale() == "log") == bool(numbers)
    assert numbers or len(lower.get_xticks()) == 0
    key = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert key == [f"{number}  {names[i]}" for number, i in enumerate(order, 1)]


# Layout


def test_the_legend_hides_no_point(tmp_path, drawn):
    rows = make_curve(nats=[0.5, 3.0, 3.5, 6.0], accuracies=[0.05, 0.02, 0.1, 0.2])
    plots.u_curve(rows, tmp_path / "low.png", "digit")
    axes = drawn[-1].axes[0]
    assert axes.get_legend().get_window_extent().y1 < axes.get_window_extent().y0


def test_the_entropy_of_many_classes_is_inside_the_axes(tmp_path, drawn):
    rows = [row | {"entropy_digit": 12.0} for row in make_curve()]
    plots.u_curve(rows, tmp_path / "many.png", "digit")
    assert drawn[-1].axes[0].get_xlim()[1] > 12


def test_many_names_make_a_higher_figure(tmp_path, drawn):
    for n in (3, 40):
        views = [f"color:{'x' * 60}$\\frac${i}" for i in range(n)]
        rows = [make_row(view, 0.1 * i, 0.5) for i, view in enumerate(views)]
        plots.u_curve(rows, tmp_path / "u.png", "digit")
    few, many = drawn
    assert many.get_figheight() > few.get_figheight()
    few_height, many_height = (figure.axes[0].get_window_extent().height for figure in (few, many))
    assert many_height > 0.8 * few_height


def test_the_legend_of_one_seed_has_no_deviation(tmp_path, drawn):
    one_seed = [row for row in make_curve() if row["seed"] == 0]
    plots.u_curve(one_seed, tmp_path / "u.png", "digit")
    labels = [text.get_text() for text in drawn[-1].axes[0].get_legend().get_texts()]
    assert "one seed" in labels and not any("deviation" in label for label in labels)


# Strips of views


def test_zero_chroma_is_drawn_grey(drawn, tmp_path):
    """Whatever else the picture has: stretched to its own range, 0 became some purple."""
    views = torch.zeros(2, 4, 4), torch.zeros(3, 4, 4)
    for view in views:
        view[0, 0, 0], view[1, 0, 1] = 0.8, -0.2
    plots.view_strip({"chroma": views}, tmp_path / "s.png")
    for axes in drawn[0].axes:
        (image,) = axes.get_images()
        np.testing.assert_allclose(np.asarray(image.get_array())[1:], 0.5)


def test_a_rounding_error_above_one_does_not_shift_black(drawn, tmp_path):
    """Ink over a background may come to 1 + 1e-7; the view still has no negative values."""
    view = torch.linspace(0, 1 + 1e-6, 48).view(3, 4, 4)
    plots.view_strip({"ink": [view]}, tmp_path / "s.png")
    (image,) = drawn[0].axes[0].get_images()
    np.testing.assert_allclose(np.asarray(image.get_array()), view.permute(1, 2, 0), atol=1e-5)


def test_a_strip_shows_the_views_as_they_are(drawn, tmp_path):
    grey, two, color = torch.rand(1, 6, 6), torch.rand(2, 6, 6), torch.rand(3, 6, 6)
    signed = (5 * torch.randn(1, 6, 6)).requires_grad_()
    strips = {"one": [grey, two], "three": [color], "signed": [signed, grey]}
    plots.view_strip(strips, tmp_path / "s.png")
    panels = drawn[0].axes
    assert len(panels) == 6 and [axes.get_title("left") for axes in panels[::2]] == list(strips)
    images = [axes.get_images() for axes in panels]
    assert [len(of_panel) for of_panel in images] == [1, 1, 1, 0, 1, 1]
    assert all(image.get_clim() == (0, 1) for of_panel in images for image in of_panel)
    shown = [np.asarray(of_panel[0].get_array()) if of_panel else None for of_panel in images]
    np.testing.assert_allclose(shown[0], grey[0])
    red_and_blue_against_green = np.stack([two[0], 1 - two.mean(0), two[1]], -1)
    np.testing.assert_allclose(shown[1], red_and_blue_against_green)
    np.testing.assert_allclose(shown[2], color.permute(1, 2, 0))
    scaled = signed.detach()[0] / signed.detach().abs().max() / 2 + 0.5
    np.testing.assert_allclose(shown[4], scaled, atol=1e-6)


def test_pictures_do_not_cover_the_titles_below_other_pictures(drawn):
    landscape, square = torch.rand(3, 20, 50), torch.rand(3, 32, 32)
    plots.view_strip({"one": [landscape, square], "two": [square, landscape]}, "sheet.png")
    panels = drawn[-1].axes
    for axes in panels:
        title_bottom = axes.title.get_window_extent().y0
        tops = [below.get_window_extent().y1 for below in panels[2:]]
        assert all(title_bottom >= top - 1e-6 for top in tops)
    first, second = panels[:2]
    assert first.get_window_extent().y1 == pytest.approx(second.get_window_extent().y1)
