"""Pictures of learned views: what stands where, and that it is what the rows and the maps say."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgb

from infomin.report import panels
from infomin.views import ColorSplit, PixelFlow

torch.set_num_threads(1)


def rows():
    """Two generators in two spaces, three seeds each."""
    made = []
    for i, (generator, space) in enumerate(
        [("raw", "rgb"), ("raw", "lab"), ("semi-supervised", "rgb"), ("semi-supervised", "lab")]
    ):
        for seed, d in enumerate((-0.1, 0.0, 0.1)):
            row = {
                "key": f"{i}{seed}",
                "generator": generator,
                "space": space,
                "half": i // 2,
                "seed": seed,
                "status": "done",
            }
            made.append(
                row
                | {
                    "i_nce": 1.0 + i + d,
                    "acc_digit": 0.2 * (i + 1) + d / 10,
                    "entropy_digit": np.log(10),
                }
            )
    return made


def test_a_point_of_the_plane_is_the_mean_of_its_seeds_in_its_colour_and_form(drawn):
    bad = {
        "key": "x",
        "generator": "raw",
        "space": "rgb",
        "half": 0,
        "seed": 3,
        "status": "diverged",
    }
    for given in (rows(), pd.DataFrame(rows()), [*rows(), bad]):
        panels.nats_plane(given, "plane.png", "digit", "generator", "space", "half")
        shown = drawn[-1].axes
        assert [axes.get_title(loc="left") for axes in shown] == ["0", "1"] and [
            len(a.containers) for a in shown
        ] == [2, 2]
        means = [container[0] for axes in shown for container in axes.containers]
        np.testing.assert_allclose(
            [line.get_xydata()[0] for line in means], [[1 + i, 0.2 * (i + 1)] for i in range(4)]
        )
        assert [line.get_color() for line in means] == [panels.COLORS[i] for i in (0, 0, 1, 1)]
        assert [line.get_marker() for line in means] == [panels.MARKERS[i] for i in (0, 1, 0, 1)]
        for container in (container for axes in shown for container in axes.containers):
            across, up = (np.ptp(part.get_segments()[0], axis=0) for part in container[2])
            np.testing.assert_allclose([across[0], up[1]], [0.2, 0.02])
        assert [
            len([line for line in axes.lines if line.get_marker() == "."]) for axes in shown
        ] == [6, 6]


def test_the_plane_has_each_seed_beside_its_mean_and_the_entropy_as_a_line(drawn):
    made = rows()
    made[0]["entropy_digit"] = 1.0  # of rows that differ in it the greatest
    panels.nats_plane(made, "plane.png", "digit", "generator", "space", "half")
    for half, axes in enumerate(drawn[0].axes):
        seeds = [line for line in axes.lines if line.get_marker() == "."]
        want = [(row["i_nce"], row["acc_digit"]) for row in made if row["half"] == half]
        assert [tuple(line.get_xydata()[0]) for line in seeds] == want
        assert {line.get_color() for line in seeds} == {panels.COLORS[half]}
        (entropy,) = [line for line in axes.lines if line.get_linestyle() == "--"]
        assert set(entropy.get_xdata()) == {np.log(10)}
    one, two = drawn[0].axes  # two panels of one plane
    assert one.get_xlim() == two.get_xlim() and one.get_ylim() == two.get_ylim()


def test_the_legend_of_the_plane_knows_colours_and_forms_and_no_form_without_a_name(drawn):
    panels.nats_plane(rows(), "plane.png", "digit", "generator", "space", "half")
    panels.nats_plane(
        [row | {"space": ""} for row in rows()], "plane.png", "digit", "generator", "space", "half"
    )
    known, bare = (
        {h.get_label(): (h.get_color(), h.get_marker()) for h in f.legends[0].legend_handles}
        for f in drawn
    )
    assert [known[name][0] for name in ("raw", "semi-supervised")] == [
        panels.COLORS[0],
        panels.COLORS[1],
    ]
    assert [known[name][1] for name in ("rgb", "lab")] == [panels.MARKERS[0], panels.MARKERS[1]]
    assert (
        list(bare) == ["raw", "semi-supervised", "H(y) = 2.30 nats"]
        and list(known)[-1] == list(bare)[-1]
    )


def test_the_plane_of_one_seed_has_no_bars_and_no_warning(drawn):
    panels.nats_plane(
        [row for row in rows() if row["seed"] == 0],
        "plane.png",
        "digit",
        "generator",
        "space",
        "seed",
    )
    assert not any(
        np.ptp(part.get_segments()[0], axis=0).any()
        for c in drawn[0].axes[0].containers
        for part in c[2]
    )


def test_the_channels_are_the_maps_own_and_the_solid_is_the_cube_gone_through_it(monkeypatch):
    figures = []
    monkeypatch.setattr(
        panels, "save_figure", lambda figure, path, **_: figures.append(figure)
    )  # drawing would sort by depth
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    double = {"double": lambda images: 2 * images}
    panels.space_pictures(double, image, "spaces.png")
    *channels, solid = figures[0].axes
    for shown, plane in zip(channels, image, strict=True):
        np.testing.assert_allclose(shown.images[0].get_array(), 2 * plane, rtol=1e-6)
    points = solid.collections[0]
    x, y, z = points._offsets3d
    at = np.stack(
        [np.ma.getdata(z), np.ma.getdata(x), np.ma.getdata(y)], 1
    )  # channel one is the vertical axis
    colors = points.get_facecolor()[:, :3]
    assert len(colors) > 1000
    np.testing.assert_allclose(at[: len(colors)], 2 * colors, atol=1e-6)
    assert ((at == 0) | (at == 2)).any(1).all(), "all points lie on the surface of the cube"
    ways = {tuple(to_rgb(line.get_color())): np.array(line.get_data_3d()) for line in solid.lines}
    for i, color in enumerate(np.eye(3)):
        way = ways[tuple(color)][[2, 0, 1]]
        np.testing.assert_allclose(way[i], np.linspace(0, 2, 33), atol=1e-6)
        assert not np.delete(way, i, axis=0).any()


def test_a_space_is_named_with_the_range_of_its_channels_and_its_way_from_black_to_white_is_dashed(
    monkeypatch,
):
    figures = []
    monkeypatch.setattr(panels, "save_figure", lambda figure, path, **_: figures.append(figure))
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    panels.space_pictures(
        {"double, it is": lambda images: 2 * images, "less": lambda images: images - 1},
        image,
        "spaces.png",
    )
    axes = figures[0].axes
    for (first, *others, solid), name, factor, start in (
        (axes[:4], "double\nit is", 2, 0),
        (axes[4:], "less", 1, -1),
    ):
        assert [panel.get_ylabel() for panel in (first, *others)] == [name, "", ""]
        assert [panel.get_title() for panel in (first, *others)] == [
            f"channel {i + 1}" if factor == 2 else "" for i in range(3)
        ]
        for panel, plane in zip((first, *others), factor * image + start, strict=True):
            assert panel.get_xlabel() == f"{plane.min():.2f} … {plane.max():.2f}"
        (white,) = [
            np.array(line.get_data_3d()) for line in solid.lines if line.get_linestyle() == "--"
        ]
        np.testing.assert_allclose(
            white, np.tile(start + factor * np.linspace(0, 1, 33), (3, 1)), atol=1e-6
        )


def test_dots_stand_at_the_means_and_the_least_is_filled(drawn):
    columns = {"i_nce": "nats", "acc_digit": "accuracy"}
    table = [row | {"kind": f"{row['generator']} {row['space']}"} for row in rows()]
    for aside, best in (((), 0), (("raw rgb",), 1)):
        panels.dot_table(table, "dots.png", "kind", columns, aside=aside)
        for panel, want in zip(drawn[-1].axes, ([1, 2, 3, 4], [0.2, 0.4, 0.6, 0.8]), strict=True):
            discs = [line for line in panel.lines if line.get_marker() == "o"]
            np.testing.assert_allclose(
                [disc.get_xydata()[0] for disc in discs], [[x, -i] for i, x in enumerate(want)]
            )
            assert [disc.get_markerfacecolor() != "white" for disc in discs] == [
                i == best for i in range(4)
            ]
            assert panel.get_xlim()[1] > max(want)
            (seeds,) = [line for line in panel.lines if line.get_marker() == "."]
            assert len(seeds.get_xdata()) == 12
    assert [text.get_text() for text in drawn[0].axes[0].get_yticklabels()] == list(
        dict.fromkeys(row["kind"] for row in table)
    )


@pytest.mark.parametrize("seeds", [(0, 1, 2), (0, 2), (1, 1, 1, 1, 1, 2), (0,)])
def test_bars_of_dots_are_the_deviations_and_nothing_stands_outside(drawn, seeds):
    made = [
        row | {"kind": f"{row['generator']} {row['space']}"}
        for seed in seeds
        for row in rows()
        if row["seed"] == seed
    ]
    columns = {"i_nce": "nats", "acc_digit": "accuracy"}
    panels.dot_table(made, "dots.png", "kind", columns)
    kinds = list(dict.fromkeys(row["kind"] for row in made))
    for panel, (column, label) in zip(drawn[0].axes, columns.items(), strict=True):
        (each,) = [line for line in panel.lines if line.get_marker() == "."]
        assert [tuple(at) for at in each.get_xydata()] == [
            (row[column], -kinds.index(row["kind"])) for row in made
        ]
        found = [[row[column] for row in made if row["kind"] == kind] for kind in kinds]
        means, deviations = (
            np.mean(found, 1),
            np.std(found, 1, ddof=1) if len(seeds) > 1 else np.zeros(4),
        )
        bars = np.array(panel.containers[0][2][0].get_segments())
        np.testing.assert_allclose(
            bars[:, :, 0], np.stack([means - deviations, means + deviations], 1)
        )
        np.testing.assert_allclose(bars[:, :, 1].T, [[0, -1, -2, -3]] * 2)
        np.testing.assert_allclose(
            panel.get_xlim(), [0, 1.05 * max(np.max(found), (means + deviations).max())]
        )
        assert panel.get_xlabel() == label


def test_known_spaces_and_flows_are_drawn_alike(tmp_path):
    split = ColorSplit("lab", "012")
    image = (torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)) * 255).to(torch.uint8)
    maps = {
        "Lab": lambda images: split(images)[0],
        "flow": PixelFlow(hidden=4),
        "again": PixelFlow(hidden=4),
    }
    one, two = (
        panels.space_pictures(maps, image, tmp_path / name) for name in ("one.png", "two.png")
    )
    assert one.read_bytes() == two.read_bytes() and one.stat().st_size > 10_000
