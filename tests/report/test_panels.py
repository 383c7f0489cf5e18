"""Panels show what the rows and the colour maps say, each where it belongs."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgb

from infomin.report import panels
from infomin.views import ColorSplit, PixelFlow

COLUMNS = {"i_nce": "nats", "acc_digit": "accuracy"}


def make_rows():
    """Two generators in two spaces, three seeds each."""
    groups = [(name, space) for name in ("raw", "semi-supervised") for space in ("rgb", "lab")]
    rows = []
    for i, (generator, space) in enumerate(groups):
        for seed, shift in enumerate((-0.1, 0.0, 0.1)):
            row = {"key": f"{i}{seed}", "generator": generator, "space": space, "half": i // 2}
            row |= {"seed": seed, "status": "done", "i_nce": 1.0 + i + shift}
            row |= {"acc_digit": 0.2 * (i + 1) + shift / 10, "entropy_digit": np.log(10)}
            rows.append(row)
    return rows


def with_group(rows):
    """The rows, with one column for generator and space together."""
    return [row | {"group": f"{row['generator']} {row['space']}"} for row in rows]


def draw_plane(rows, panel="half"):
    return panels.nats_plane(rows, "plane.png", "digit", "generator", "space", panel)


@pytest.fixture
def figures(monkeypatch):
    """The figures that would be saved, not laid out: that would sort the cube by depth."""
    saved = []
    monkeypatch.setattr(panels, "save_figure", lambda figure, path, **_: saved.append(figure))
    return saved


@pytest.fixture
def image():
    return torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))


# The plane


def test_a_point_of_the_plane_is_the_mean_of_its_seeds_in_its_colour_and_marker(drawn):
    bad = {"key": "x", "generator": "raw", "space": "rgb", "half": 0, "seed": 3}
    bad |= {"status": "diverged"}
    for given in (make_rows(), pd.DataFrame(make_rows()), [*make_rows(), bad]):
        draw_plane(given)
        left, right = drawn[-1].axes
        assert [axes.get_title(loc="left") for axes in (left, right)] == ["0", "1"]
        assert [len(axes.containers) for axes in (left, right)] == [2, 2]
        containers = [*left.containers, *right.containers]
        means = [container[0] for container in containers]
        positions = [line.get_xydata()[0] for line in means]
        np.testing.assert_allclose(positions, [[1 + i, 0.2 * (i + 1)] for i in range(4)])
        assert [line.get_color() for line in means] == [panels.COLORS[i] for i in (0, 0, 1, 1)]
        assert [line.get_marker() for line in means] == [panels.MARKERS[i] for i in (0, 1, 0, 1)]
        for container in containers:
            x_bar, y_bar = (np.ptp(bar.get_segments()[0], axis=0) for bar in container[2])
            np.testing.assert_allclose([x_bar[0], y_bar[1]], [0.2, 0.02])
        for axes in (left, right):
            assert len([line for line in axes.lines if line.get_marker() == "."]) == 6


def test_the_plane_has_each_seed_beside_its_mean_and_the_entropy_as_a_line(drawn):
    rows = make_rows()
    rows[0]["entropy_digit"] = 1.0  # the largest one is drawn
    draw_plane(rows)
    for half, axes in enumerate(drawn[0].axes):
        seeds = [line for line in axes.lines if line.get_marker() == "."]
        expected = [(row["i_nce"], row["acc_digit"]) for row in rows if row["half"] == half]
        assert [tuple(line.get_xydata()[0]) for line in seeds] == expected
        assert {line.get_color() for line in seeds} == {panels.COLORS[half]}
        (entropy,) = [line for line in axes.lines if line.get_linestyle() == "--"]
        assert set(entropy.get_xdata()) == {np.log(10)}
    left, right = drawn[0].axes
    assert left.get_xlim() == right.get_xlim() and left.get_ylim() == right.get_ylim()


def test_the_legend_of_the_plane_has_colours_and_named_markers(drawn):
    draw_plane(make_rows())
    draw_plane([row | {"space": ""} for row in make_rows()])
    named, nameless = (
        {handle.get_label(): handle for handle in figure.legends[0].legend_handles}
        for figure in drawn
    )
    for i, name in enumerate(("raw", "semi-supervised")):
        assert named[name].get_color() == panels.COLORS[i]
    for i, name in enumerate(("rgb", "lab")):
        assert named[name].get_marker() == panels.MARKERS[i]
    assert list(named)[-1] == "H(y) = 2.30 nats"
    assert list(nameless) == ["raw", "semi-supervised", "H(y) = 2.30 nats"]


def test_the_plane_of_one_seed_has_no_bars_and_no_warning(drawn):
    draw_plane([row for row in make_rows() if row["seed"] == 0], panel="seed")
    bars = [bar for container in drawn[0].axes[0].containers for bar in container[2]]
    assert bars and not any(np.ptp(bar.get_segments()[0], axis=0).any() for bar in bars)


# The table


def test_dots_are_at_the_means_and_the_lowest_is_filled(drawn):
    rows = with_group(make_rows())
    for aside, lowest in (((), 0), (("raw rgb",), 1)):
        panels.dot_table(rows, "dots.png", "group", COLUMNS, aside=aside)
        expected = ([1, 2, 3, 4], [0.2, 0.4, 0.6, 0.8])
        for axes, means in zip(drawn[-1].axes, expected, strict=True):
            circles = [line for line in axes.lines if line.get_marker() == "o"]
            positions = [circle.get_xydata()[0] for circle in circles]
            np.testing.assert_allclose(positions, [[x, -i] for i, x in enumerate(means)])
            filled = [circle.get_markerfacecolor() != "white" for circle in circles]
            assert filled == [i == lowest for i in range(4)]
            assert axes.get_xlim()[1] > max(means)
            (seeds,) = [line for line in axes.lines if line.get_marker() == "."]
            assert len(seeds.get_xdata()) == 12
    names = [text.get_text() for text in drawn[0].axes[0].get_yticklabels()]
    assert names == list(dict.fromkeys(row["group"] for row in rows))


@pytest.mark.parametrize("seeds", [(0, 1, 2), (0, 2), (1, 1, 1, 1, 1, 2), (0,)])
def test_bars_of_dots_are_the_deviations_and_nothing_is_outside(drawn, seeds):
    all_rows = with_group(make_rows())
    rows = [row for seed in seeds for row in all_rows if row["seed"] == seed]
    rows = [row | {"key": f"{i}"} for i, row in enumerate(rows)]
    panels.dot_table(rows, "dots.png", "group", COLUMNS)
    groups = list(dict.fromkeys(row["group"] for row in rows))
    for axes, (column, label) in zip(drawn[0].axes, COLUMNS.items(), strict=True):
        (dots,) = [line for line in axes.lines if line.get_marker() == "."]
        expected = [(row[column], -groups.index(row["group"])) for row in rows]
        assert [tuple(position) for position in dots.get_xydata()] == expected
        values = [[row[column] for row in rows if row["group"] == group] for group in groups]
        means = np.mean(values, 1)
        deviations = np.std(values, 1, ddof=1) if len(seeds) > 1 else np.zeros(4)
        bars = np.array(axes.containers[0][2][0].get_segments())
        ends = np.stack([means - deviations, means + deviations], 1)
        np.testing.assert_allclose(bars[:, :, 0], ends)
        np.testing.assert_allclose(bars[:, :, 1].T, [[0, -1, -2, -3]] * 2)
        right = 1.05 * max(np.max(values), (means + deviations).max())
        np.testing.assert_allclose(axes.get_xlim(), [0, right])
        assert axes.get_xlabel() == label


# Colour spaces


def test_channels_are_those_of_the_map_and_the_cube_is_mapped_too(figures, image):
    panels.space_pictures({"double": lambda images: 2 * images}, image, "spaces.png")
    *channels, cube = figures[0].axes
    for axes, plane in zip(channels, image, strict=True):
        np.testing.assert_allclose(axes.images[0].get_array(), 2 * plane, rtol=1e-6)
    dots = cube.collections[0]
    x, y, z = map(np.ma.getdata, dots._offsets3d)
    positions = np.stack([z, x, y], 1)  # channel 1 is the vertical axis
    colors = dots.get_facecolor()[:, :3]
    assert len(colors) > 1000
    np.testing.assert_allclose(positions[: len(colors)], 2 * colors, atol=1e-6)
    on_surface = ((positions == 0) | (positions == 2)).any(1)
    assert on_surface.all()
    lines = {tuple(to_rgb(line.get_color())): np.array(line.get_data_3d()) for line in cube.lines}
    for i, color in enumerate(np.eye(3)):
        line = lines[tuple(color)][[2, 0, 1]]
        np.testing.assert_allclose(line[i], np.linspace(0, 2, 33), atol=1e-6)
        assert not np.delete(line, i, axis=0).any()


def test_a_space_has_its_name_the_ranges_of_its_channels_and_a_dashed_line_to_white(figures, image):
    maps = {"double, it is": lambda images: 2 * images, "less": lambda images: images - 1}
    panels.space_pictures(maps, image, "spaces.png")
    axes = figures[0].axes
    titles = ["channel 1", "channel 2", "channel 3"]
    rows = [(axes[:4], "double\nit is", titles, 2, 0), (axes[4:], "less", ["", "", ""], 1, -1)]
    for (*channels, cube), name, row_titles, factor, start in rows:
        assert [channel.get_ylabel() for channel in channels] == [name, "", ""]
        assert [channel.get_title() for channel in channels] == row_titles
        for channel, plane in zip(channels, factor * image + start, strict=True):
            assert channel.get_xlabel() == f"{plane.min():.2f} … {plane.max():.2f}"
        (dashed,) = [line for line in cube.lines if line.get_linestyle() == "--"]
        ramp = start + factor * np.linspace(0, 1, 33)
        np.testing.assert_allclose(np.array(dashed.get_data_3d()), [ramp] * 3, atol=1e-6)


def test_known_spaces_and_flows_are_drawn_alike(tmp_path, image):
    split = ColorSplit("lab", "012")
    pixels = (image * 255).to(torch.uint8)
    maps = {
        "Lab": lambda images: split(images)[0],
        "flow": PixelFlow(hidden=4),
        "again": PixelFlow(hidden=4),
    }
    one, two = (
        panels.space_pictures(maps, pixels, tmp_path / name) for name in ("one.png", "two.png")
    )
    assert one.read_bytes() == two.read_bytes() and one.stat().st_size > 10_000
