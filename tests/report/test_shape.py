"""The dial is read from the names of the views."""

import pytest
from curves import baselines, make_row

from infomin.report.shape import by_dial, dial_values
from infomin.report.summary import points


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


def test_curves_of_several_settings_keep_the_order_of_their_rows():
    views = ("color:rgb", "color:lab", "color:hsv")
    settings = [(view, tau) for tau in (0.1, 0.2) for view in views]
    rows = [
        {"key": f"{view} {tau}", "view": view, "tau": tau} | make_row(view, 5.0 - i, 0.5)
        for i, (view, tau) in enumerate(settings)
    ]
    curve = by_dial(points(rows, "digit"), rows)
    assert list(curve["view"]) == [f"{view}, tau={tau}" for view, tau in settings]
